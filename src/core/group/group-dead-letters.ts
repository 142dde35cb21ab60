import type { Version } from "../event.ts";
import type { NewDeadLetter } from "../subscription/subscription-store.ts";
import { type GroupItem, orderKeyOf } from "./group-item.ts";

/** One that is kept, as far as a group needs to know it. */
export type KnownDeadLetter = Pick<NewDeadLetter, "version" | "topic" | "key">;

/** What is to be written about dead letters. A version is in one of the two. */
export interface DeadLetterChanges {
  readonly added: readonly NewDeadLetter[];
  readonly settled: readonly Version[];
}

/** The dead letters of a group: which there are, which of them are delivered again, and what has yet to be written of them. */
export class GroupDeadLetters {
  /** Order keys of all. */
  readonly #keys = new Map<Version, string>();
  /** By order key, those that nobody is given. */
  readonly #lying = new Map<string, Set<Version>>();
  readonly #replaying = new Map<Version, GroupItem>();
  #added = new Map<Version, NewDeadLetter>();
  #settled = new Set<Version>();
  /** Of those that have yet to be written. */
  readonly #bytes = new Map<Version, number>();
  #unwrittenBytes = 0;
  #highest: Version = 0;
  #writing: DeadLetterChanges = { added: [], settled: [] };

  constructor(known: readonly KnownDeadLetter[]) {
    for (const letter of known) {
      this.#lie(letter.version, orderKeyOf(letter));
    }
  }

  get count(): number {
    return this.#keys.size;
  }

  /** Of all. */
  get versions(): Iterable<Version> {
    return this.#keys.keys();
  }

  /** None that there ever was lies beyond it. */
  get highest(): Version {
    return this.#highest;
  }

  /** Those that are delivered again. */
  get replaying(): ReadonlyMap<Version, GroupItem> {
    return this.#replaying;
  }

  /** So many events are in memory until they are written. */
  get unwritten(): number {
    return this.#added.size + this.#writing.added.length;
  }

  /** As much do they cost in memory, about. */
  get unwrittenBytes(): number {
    return this.#unwrittenBytes;
  }

  #weigh(version: Version, bytes: number): void {
    this.#unwrittenBytes += bytes - (this.#bytes.get(version) ?? 0);
    if (bytes === 0) {
      this.#bytes.delete(version);
    } else {
      this.#bytes.set(version, bytes);
    }
  }

  /** Whether one of this order key lies before this version. */
  parks(orderKey: string, version: Version): boolean {
    const lying = this.#lying.size === 0 || orderKey === "" ? undefined : this.#lying.get(orderKey);
    for (const before of lying ?? []) {
      if (before < version) {
        return true;
      }
    }
    return false;
  }

  has(version: Version): boolean {
    return this.#keys.has(version);
  }

  /** The item is given up. */
  add(item: GroupItem, reason: string): void {
    const { event, version } = item;
    if (event === undefined) {
      return;
    }
    const { topic, key, operation, before, after, transaction, occurredAtMicros, headers, transition } = event;
    const attempts = item.deliveries;
    const letter = { version, topic, key, operation, before, after, transaction, occurredAtMicros, headers };
    this.#added.set(version, { ...letter, transition, attempts, reason });
    this.#weigh(version, item.bytes);
    this.#settled.delete(version);
    this.#replaying.delete(version);
    this.#lie(version, orderKeyOf(event));
  }

  /** It is delivered again. */
  replay(item: GroupItem): void {
    this.#rise(item.version);
    this.#replaying.set(item.version, item);
  }

  /** It was acknowledged after all. */
  settle(version: Version): void {
    this.#added.delete(version);
    this.#settled.add(version);
    this.forget(version);
  }

  /** It is there no more. */
  forget(version: Version): void {
    this.#added.delete(version);
    this.#weigh(version, 0);
    this.#replaying.delete(version);
    this.#rise(version);
    this.#keys.delete(version);
  }

  /** What is to be written now. One writing at a time. */
  write(): DeadLetterChanges {
    this.#writing = { added: [...this.#added.values()], settled: [...this.#settled] };
    this.#added = new Map();
    this.#settled = new Set();
    return this.#writing;
  }

  /** It was written, or not. */
  written(done: boolean): void {
    const { added, settled } = this.#writing;
    this.#writing = { added: [], settled: [] };
    if (done) {
      for (const { version } of added) {
        if (!this.#added.has(version)) {
          this.#weigh(version, 0);
        }
      }
      return;
    }
    for (const letter of added) {
      if (this.#keys.has(letter.version) && !this.#added.has(letter.version)) {
        this.#added.set(letter.version, letter);
      }
    }
    for (const version of settled) {
      if (!this.#keys.has(version)) {
        this.#settled.add(version);
      }
    }
  }

  #lie(version: Version, orderKey: string): void {
    this.#keys.set(version, orderKey);
    this.#highest = Math.max(this.#highest, version);
    const lying = this.#lying.get(orderKey);
    if (lying === undefined) {
      this.#lying.set(orderKey, new Set([version]));
    } else {
      lying.add(version);
    }
  }

  #rise(version: Version): void {
    const orderKey = this.#keys.get(version);
    const lying = orderKey === undefined ? undefined : this.#lying.get(orderKey);
    lying?.delete(version);
    if (orderKey !== undefined && lying?.size === 0) {
      this.#lying.delete(orderKey);
    }
  }
}
