import type { Event } from "../event.ts";
import { type GroupItem, isBarrier } from "./group-item.ts";
import type { GroupMember } from "./group-member.ts";

/** Keys share so many slots, and a slot is what a member has: enough for even shares among dozens of members. */
const KEY_SLOTS = 256;
/** Of all barriers. */
const BARRIER_SLOT = KEY_SLOTS;

/** One share of the keys. Its events go to its owner alone. */
export class GroupSlot {
  owner: GroupMember | undefined;
  /** Who gets it once nothing of it is in flight at its owner any more. */
  next: GroupMember | undefined;
  inFlight = 0;
  /** By version; what waits while it has no owner, or moves. */
  held: GroupItem[] = [];

  /** Who is given its events now. */
  get taker(): GroupMember | undefined {
    return this.next === undefined ? this.owner : undefined;
  }

  /** Whose it will be. */
  get heir(): GroupMember | undefined {
    return this.next ?? this.owner;
  }
}

/** The slots of a group. */
export function createSlots(): readonly GroupSlot[] {
  return Array.from({ length: KEY_SLOTS + 1 }, () => new GroupSlot());
}

/**
 * By the key's text alone: events of one key go to one member whatever their topic, so that it can keep together what belongs
 * together. FNV-1a over UTF-16, for it is fast and spreads short texts and numbers well enough.
 */
export function slotOf(event: Event): number {
  const { key } = event;
  if (key === undefined || isBarrier(event)) {
    return BARRIER_SLOT;
  }
  let hash = 0x811c9dc5;
  for (let at = 0; at < key.length; at++) {
    hash = Math.imul(hash ^ key.charCodeAt(at), 0x01000193);
  }
  return ((hash >>> 24) ^ (hash >>> 12) ^ hash) & (KEY_SLOTS - 1);
}

/**
 * Who shall have which slot: even shares, that differ by one at most, and of all such deals one that moves the fewest slots.
 * `members` are at least one.
 */
export function dealSlots(slots: readonly GroupSlot[], members: readonly GroupMember[]): readonly GroupMember[] {
  const had = new Map<GroupMember, number>(members.map((member) => [member, 0]));
  for (const { heir } of slots) {
    const count = heir === undefined ? undefined : had.get(heir);
    if (heir !== undefined && count !== undefined) {
      had.set(heir, count + 1);
    }
  }
  const least = Math.floor(slots.length / members.length);
  let larger = slots.length % members.length;
  // Those who have most keep one more.
  const quota = new Map<GroupMember, number>();
  for (const [member, count] of [...had].sort((a, b) => b[1] - a[1])) {
    quota.set(member, count > least && larger > 0 ? least + 1 : least);
    larger -= count > least && larger > 0 ? 1 : 0;
  }
  const deal: (GroupMember | undefined)[] = slots.map(({ heir }) => {
    const left = heir === undefined ? 0 : (quota.get(heir) ?? 0);
    if (heir === undefined || left === 0) {
      return undefined;
    }
    quota.set(heir, left - 1);
    return heir;
  });
  // What nobody keeps goes to those who have least first: they differ by one at most afterwards.
  const open = [...quota]
    .filter(([, left]) => left > 0)
    .flatMap(([member, left]) => Array.from({ length: left }, () => member));
  const rest = [...open, ...[...quota.keys()].reverse()];
  let next = 0;
  return deal.map((member) => member ?? rest[next++] ?? members[0]).filter((member) => member !== undefined);
}
