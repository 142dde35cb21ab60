import type { Version } from "../event.ts";
import { type GroupItem, isBarrier, orderKeyOf } from "./group-item.ts";
import { type GroupMember, mergeByVersion } from "./group-member.ts";
import { createSlots, dealSlots, type GroupSlot } from "./group-slots.ts";
import type { GroupWindow } from "./group-window.ts";

/** Items that were taken out in front before the list is cut. */
const CUT_AT = 4_096;

/** What a deal asks of its group. */
export interface DealMeans {
  readonly window: GroupWindow;
  /** Whether later events of the item's key may not be delivered; then they are given up. */
  readonly parks: (orderKey: string, item: GroupItem) => boolean;
  readonly giveUp: (item: GroupItem) => void;
  /** This may not be dealt out now, nor what comes behind it. */
  readonly held: (item: GroupItem) => boolean;
  /** Something waits for the member. */
  readonly eager: (member: GroupMember) => void;
}

/**
 * Who is given what. Items are dealt out in version order, to the owner of their slot; what belongs to a slot that moves, or has
 * no owner, is held with it. Behind a barrier nothing is dealt out until it is settled.
 */
export class GroupDeal {
  readonly #means: DealMeans;
  readonly #slots: readonly GroupSlot[] = createSlots();
  /** Not dealt out. */
  #backlog: GroupItem[] = [];
  #at = 0;
  /** The last item that was dealt out, or is next to be, when it is one. */
  #barrier: GroupItem | undefined;
  /** Everything before it is settled, and it is its turn. */
  #passing = false;

  constructor(means: DealMeans) {
    this.#means = means;
  }

  /** Everything up to here that was read is dealt out, or was. */
  get frontier(): Version {
    const next = this.#barrier ?? this.#backlog[this.#at];
    return next === undefined ? this.#means.window.passed : next.version - 1;
  }

  /** A barrier is in the way of what follows. */
  get barred(): boolean {
    return this.#barrier !== undefined;
  }

  slot(item: GroupItem): GroupSlot {
    const slot = this.#slots[item.slot];
    if (slot === undefined) {
      throw new RangeError(`No slot ${item.slot}.`);
    }
    return slot;
  }

  /** Those come behind all others. Call `deal` afterwards. */
  add(item: GroupItem): void {
    this.#backlog.push(item);
  }

  /** Deals out what may go. To be called whenever something was settled, added, or came free. */
  deal(): void {
    if (this.#barrier?.state === "settled") {
      this.#barrier = undefined;
    }
    while (this.#barrier === undefined) {
      const item = this.#backlog[this.#at];
      if (item === undefined || this.#means.held(item)) {
        break;
      }
      this.#at += 1;
      this.#dealOne(item);
    }
    const barrier = this.#barrier;
    if (barrier !== undefined && !this.#passing && this.#means.window.first === barrier) {
      this.#passing = true;
      this.assign(barrier);
    }
    if (this.#at >= CUT_AT && this.#at * 2 >= this.#backlog.length) {
      this.#backlog = this.#backlog.slice(this.#at);
      this.#at = 0;
    }
  }

  #dealOne(item: GroupItem): void {
    const { event } = item;
    if (event === undefined) {
      return;
    }
    if (isBarrier(event)) {
      this.#barrier = item;
      this.#passing = false;
    } else if (this.#means.parks(orderKeyOf(event), item)) {
      this.#means.giveUp(item);
    } else {
      this.assign(item);
    }
  }

  /** To the owner of its slot, by version among those that wait. */
  assign(item: GroupItem): void {
    const slot = this.slot(item);
    const { taker } = slot;
    if (taker === undefined) {
      slot.held = mergeByVersion(slot.held, [item]);
    } else {
      taker.enqueue(item);
      this.#means.eager(taker);
    }
  }

  /** Items that were taken back, by version. Their slots must not count them as in flight any more. */
  takeBack(items: readonly GroupItem[]): void {
    const byMember = new Map<GroupMember, GroupItem[]>();
    const bySlot = new Map<GroupSlot, GroupItem[]>();
    for (const item of items) {
      const slot = this.slot(item);
      const { taker } = slot;
      if (taker === undefined) {
        listed(bySlot, slot).push(item);
      } else {
        listed(byMember, taker).push(item);
      }
    }
    for (const [slot, taken] of bySlot) {
      slot.held = mergeByVersion(slot.held, taken);
    }
    for (const [member, taken] of byMember) {
      member.merge(taken);
      this.#means.eager(member);
    }
  }

  /** One of the slot is not in flight any more. */
  landed(slot: GroupSlot): void {
    slot.inFlight -= 1;
    if (slot.inFlight === 0 && slot.next !== undefined) {
      this.#hand(slot, slot.next);
    }
  }

  #hand(slot: GroupSlot, member: GroupMember): void {
    slot.owner = member;
    slot.next = undefined;
    if (slot.held.length > 0) {
      member.merge(slot.held);
      slot.held = [];
      this.#means.eager(member);
    }
  }

  /** Takes out of what waits. By version within a member. */
  sift(keeps: (item: GroupItem) => boolean, members: Iterable<GroupMember>): readonly GroupItem[] {
    const out: GroupItem[] = [];
    for (const member of members) {
      out.push(...member.sift(keeps));
    }
    for (const slot of this.#slots) {
      if (slot.held.length > 0) {
        out.push(...slot.held.filter((item) => !keeps(item)));
        slot.held = slot.held.filter(keeps);
      }
    }
    return out;
  }

  /**
   * Shares the slots out among these members: a slot of which something is in flight moves once that has landed. `all` are those
   * that may have something waiting.
   */
  rebalance(takers: readonly GroupMember[], all: Iterable<GroupMember>): void {
    const waiting = this.sift(() => false, all).toSorted((a, b) => a.version - b.version);
    const deal = takers.length === 0 ? [] : dealSlots(this.#slots, takers);
    this.#slots.forEach((slot, index) => {
      const member = deal[index];
      if (slot.inFlight === 0) {
        slot.owner = member;
        slot.next = undefined;
      } else {
        slot.next = member === slot.owner ? undefined : member;
      }
    });
    this.takeBack(waiting);
  }
}

function listed<K>(map: Map<K, GroupItem[]>, key: K): GroupItem[] {
  const found = map.get(key);
  if (found !== undefined) {
    return found;
  }
  const made: GroupItem[] = [];
  map.set(key, made);
  return made;
}
