import { type Cursor, deliveredTo } from "../cursor.ts";
import type { Event, Version } from "../event.ts";
import type { GroupItem } from "./group-item.ts";

/** Taken items that are kept in front before a list is cut. */
const CUT_AT = 1_024;

/** What a member takes. */
export interface MemberTerms {
  /** Most that it may have without having acknowledged them. */
  readonly maxInFlight: number;
  /** Most events of one frame. */
  readonly maxBatchEvents: number;
  /** Events of one frame add up to at most this by `measure`, unless it is a single one. */
  readonly maxBatchBytes: number;
  readonly measure: (event: Event) => number;
  /** See `Consumer.inPieces`. */
  readonly inPieces: boolean;
}

/** One consumer of a group: what waits for it, and what it has. */
export class GroupMember {
  readonly generation: number;
  readonly name: string;
  terms: MemberTerms;
  /** Its stream takes a frame now. */
  ready = false;
  /** It has a stream. */
  attached = true;
  /**
   * Others have its slots, if there are others: "silent" when its events' time was over without a word from it, "blocked" when
   * its stream took nothing for as long, "leaving" when its stream was told to end and it may still speak of what it has.
   */
  stalled: "silent" | "blocked" | "leaving" | undefined;
  /** Since when its stream has not taken what it might be given. */
  blockedAtMs: number | undefined;
  /** What it has and did not acknowledge. */
  inFlight = 0;
  /** When it last said something about what it was given, or came. */
  heardAtMs: number;
  /** Of all that it has been given. */
  highest: Version = 0;
  /** Events that were given to it so far. */
  seq = 0;
  #waiting: GroupItem[] = [];
  #next = 0;
  /** By delivery: `#given[i]` was the delivery `#givenFrom + i`, and may have been settled or taken back since. */
  #given: GroupItem[] = [];
  #givenAt = 0;
  #givenFrom = 1;

  constructor(generation: number, name: string, terms: MemberTerms, nowMs: number) {
    this.generation = generation;
    this.name = name;
    this.terms = terms;
    this.heardAtMs = nowMs;
  }

  /** How many it may be given now. */
  get room(): number {
    return this.terms.maxInFlight - this.inFlight;
  }

  get waiting(): number {
    return this.#waiting.length - this.#next;
  }

  /** The lowest that waits for it. */
  get next(): GroupItem | undefined {
    return this.#waiting[this.#next];
  }

  /** Behind all that it has been given so far. */
  cursorAt(epoch: string, version: Version): Cursor {
    const delivered = { delivery: this.seq, deliveredTo: deliveredTo(this.generation) };
    return { epoch, version, fingerprint: 0, snapshot: undefined, ...delivered };
  }

  /** Takes the lowest. */
  take(): void {
    this.#next += 1;
    if (this.#next >= CUT_AT && this.#next * 2 >= this.#waiting.length) {
      this.#waiting = this.#waiting.slice(this.#next);
      this.#next = 0;
    }
  }

  /** In its place among those that wait: nearly always the last. */
  enqueue(item: GroupItem): void {
    const last = this.#waiting.at(-1);
    if (this.waiting === 0 || (last !== undefined && last.version < item.version)) {
      this.#waiting.push(item);
    } else {
      this.merge([item]);
    }
  }

  /** Those, by version, among those that wait. */
  merge(items: readonly GroupItem[]): void {
    this.#waiting = mergeByVersion(this.#waiting.slice(this.#next), items);
    this.#next = 0;
  }

  /** Keeps those that pass the test; answers the others. By version. */
  sift(keeps: (item: GroupItem) => boolean): readonly GroupItem[] {
    const kept: GroupItem[] = [];
    const others: GroupItem[] = [];
    for (let at = this.#next; at < this.#waiting.length; at++) {
      const item = this.#waiting[at];
      if (item !== undefined) {
        (keeps(item) ? kept : others).push(item);
      }
    }
    if (others.length > 0) {
      this.#waiting = kept;
      this.#next = 0;
    }
    return others;
  }

  /** It has been given this. */
  give(item: GroupItem, nowMs: number): void {
    this.seq += 1;
    this.inFlight += 1;
    item.state = "in_flight";
    item.member = this;
    item.seq = this.seq;
    item.deliveries += 1;
    item.deliveredAtMs = nowMs;
    item.inOrder = item.version > this.highest;
    this.highest = Math.max(this.highest, item.version);
    this.#given.push(item);
  }

  /** It has the item, by the delivery that it was told of last. */
  has(item: GroupItem): boolean {
    return item.state === "in_flight" && item.member === this;
  }

  /** The oldest delivery that it has; forgets what it has no more. */
  get oldest(): GroupItem | undefined {
    let item = this.#given[this.#givenAt];
    while (item !== undefined && !this.#holdsAt(this.#givenAt, item)) {
      this.#givenAt += 1;
      item = this.#given[this.#givenAt];
    }
    this.#cut();
    return item;
  }

  /** What it has and passes the test, by delivery. */
  having(passes: (item: GroupItem) => boolean): readonly GroupItem[] {
    const found: GroupItem[] = [];
    for (let at = this.#givenAt; at < this.#given.length; at++) {
      const item = this.#given[at];
      if (item !== undefined && this.#holdsAt(at, item) && passes(item)) {
        found.push(item);
      }
    }
    return found;
  }

  /** An item that was taken back and given again is in the list twice, and there only by the later delivery. */
  #holdsAt(at: number, item: GroupItem): boolean {
    return this.has(item) && item.seq === this.#givenFrom + at;
  }

  #cut(): void {
    if (this.#givenAt >= CUT_AT && this.#givenAt * 2 >= this.#given.length) {
      this.#given = this.#given.slice(this.#givenAt);
      this.#givenFrom += this.#givenAt;
      this.#givenAt = 0;
    }
  }
}

/** Two lists by version, as one. */
export function mergeByVersion(a: readonly GroupItem[], b: readonly GroupItem[]): GroupItem[] {
  const merged: GroupItem[] = [];
  let i = 0;
  let j = 0;
  for (let x = a[i], y = b[j]; x !== undefined || y !== undefined; x = a[i], y = b[j]) {
    if (y === undefined || (x !== undefined && x.version <= y.version)) {
      if (x !== undefined) {
        merged.push(x);
      }
      i += 1;
    } else {
      merged.push(y);
      j += 1;
    }
  }
  return merged;
}
