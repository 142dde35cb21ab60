import type { Version } from "../event.ts";
import { type GroupItem, orderKeyOf } from "./group-item.ts";
import type { GroupMember } from "./group-member.ts";

/** Why deliveries end without a word, as dead letters tell it. */
export const ENDED = {
  parked: "An earlier event of its key is a dead letter.",
  holderEnded: "The server that had delivered it ended before it was acknowledged.",
  left: "Its member's stream ended before it was acknowledged.",
  replaced: "Another stream took its member's place before it was acknowledged.",
  stayedAway: "Its member did not come again in time.",
  cameAgain: "Its member came again without having acknowledged it.",
} as const;

/** A delivery that came to nothing. */
export interface Failure {
  readonly item: GroupItem;
  readonly reason: string;
  /** It shall not be tried again. */
  readonly giveUp: boolean;
}

/** What failing means in a group. */
export interface FailureTerms {
  readonly maxAttempts: number;
  /** Nothing of a key flows behind one that was given up. */
  readonly parks: boolean;
  /** The member said it of each: then each counts, and else the first of a key alone, which the others had to wait for. */
  readonly said: boolean;
}

/** What becomes of what a member has. */
export interface Failed {
  /** Given up, with the reason. */
  readonly dead: ReadonlyMap<GroupItem, string>;
  /** Taken back, by version. */
  readonly back: readonly GroupItem[];
}

/**
 * Of the failures of one member: what is given up, and what is taken back. With an event all later ones of its key that the
 * member has are taken back, so that they come after it again; that is no failure of theirs.
 */
export function failuresOf(failures: readonly Failure[], member: GroupMember, terms: FailureTerms): Failed {
  const dead = new Map<GroupItem, string>();
  const back = new Set<GroupItem>();
  /** By order key: from where on everything is taken back. */
  const from = new Map<string, Version>();
  const met = new Set<string>();
  for (const { item, reason, giveUp } of failures.toSorted((a, b) => a.item.version - b.item.version)) {
    const orderKey = orderKeyFor(item);
    const counts = terms.said || !met.has(orderKey);
    met.add(orderKey);
    item.spared += counts ? 0 : 1;
    if (counts && (giveUp || item.failures >= terms.maxAttempts)) {
      dead.set(item, reason);
    } else {
      back.add(item);
    }
    if (!from.has(orderKey) && (back.has(item) || terms.parks)) {
      from.set(orderKey, item.version);
    }
  }
  const behind = (item: GroupItem) => item.version > (from.get(orderKeyFor(item)) ?? Number.POSITIVE_INFINITY);
  for (const item of member.having((given) => !dead.has(given) && !back.has(given) && behind(given))) {
    item.spared += 1;
    back.add(item);
  }
  return { dead, back: [...back].sort((a, b) => a.version - b.version) };
}

/** A barrier is alone with itself. */
function orderKeyFor({ event, version }: GroupItem): string {
  return (event === undefined ? "" : orderKeyOf(event)) || `\n${version}`;
}

/** What a member has and passes the test has come to nothing. */
export function failing(
  member: GroupMember,
  reason: string,
  passes: (item: GroupItem) => boolean = () => true,
): readonly Failure[] {
  return member.having(passes).map((item) => ({ item, reason, giveUp: false }));
}
