import type { Version } from "../../core/event.ts";
import { parseTopicPattern, patternMatches } from "../../core/selector/topic.ts";
import type {
  Claimant,
  DeadLetter,
  DeliveredUpTo,
  NewSubscription,
  StoredPosition,
  SubscriptionFilter,
} from "../../core/subscription/subscription-store.ts";

/** A subscription as it is held in memory: what `millrace.subscription` and `millrace.dead_letter` are to Postgres. */
export interface SubscriptionRow {
  readonly created: NewSubscription;
  readonly createdAtMs: number;
  position: StoredPosition;
  paused: boolean;
  generation: number;
  movedGeneration: number;
  lastUsedAtMs: number;
  delivered: readonly DeliveredUpTo[];
  progress: string | undefined;
  /** Of a group. */
  holder: (Claimant & { readonly untilMs: number }) | undefined;
  readonly deadLetters: Map<Version, DeadLetter>;
}

/** One that nobody has claimed yet. */
export function newRow(created: NewSubscription, nowMs: number): SubscriptionRow {
  return {
    created,
    createdAtMs: nowMs,
    position: created.position,
    paused: false,
    generation: 0,
    movedGeneration: 0,
    lastUsedAtMs: nowMs,
    delivered: [],
    progress: undefined,
    holder: undefined,
    deadLetters: new Map(),
  };
}

/** What a store that comes after this one goes on with. */
export function copyRow(row: SubscriptionRow): SubscriptionRow {
  return { ...row, deadLetters: new Map(row.deadLetters) };
}

/** Whether they are the same but for where they begin. */
export function sameSubscription(a: NewSubscription, b: NewSubscription): boolean {
  return (
    a.definition === b.definition &&
    a.isGroup === b.isGroup &&
    a.owner === b.owner &&
    a.expireAfterMs === b.expireAfterMs &&
    Object.keys(a.labels).length === Object.keys(b.labels).length &&
    hasLabels(a, b.labels)
  );
}

/** Whether it passes the filter. */
export function passes(subscription: NewSubscription, { topic, owner, labels = {} }: SubscriptionFilter): boolean {
  return (
    (owner === undefined || subscription.owner === owner) &&
    hasLabels(subscription, labels) &&
    (topic === undefined || couldMatch(subscription.topics, topic))
  );
}

function couldMatch(patterns: readonly string[], topic: string): boolean {
  const matches = (text: string): boolean => {
    const parsed = parseTopicPattern(text);
    return "pattern" in parsed && patternMatches(parsed.pattern, topic);
  };
  return patterns.length === 0 || patterns.some(matches);
}

function hasLabels({ labels }: NewSubscription, wanted: Readonly<Record<string, string>>): boolean {
  return Object.entries(wanted).every(([name, value]) => Object.hasOwn(labels, name) && labels[name] === value);
}
