import type { Version } from "../event.ts";
import type { GroupItem } from "./group-item.ts";

/** Passed items that are kept in front before the list is cut. */
const CUT_AT = 4_096;

/**
 * What a group has read and not put behind itself: the items after its position, in version order. Those that are settled stay
 * until everything before them is, as part of a run: what is told of them to whoever comes after a crash is the runs.
 *
 * All of it is O(1) for an item, but `find`, which is a binary search.
 */
export class GroupWindow {
  #items: GroupItem[] = [];
  /** Of the first item that counts. */
  #head = 0;
  /** `index` of `#items[0]`. */
  #base = 0;
  #passed: Version;
  #runs = 0;
  #bytes = 0;
  #unsettled = 0;
  /** Behind it nothing was ever delivered or settled. */
  #touched = -1;

  /** Begins after this version. */
  constructor(after: Version) {
    this.#passed = after;
  }

  /** Items from the first that is not settled on. */
  get size(): number {
    return this.#items.length - this.#head;
  }

  /** Of events that are not settled. */
  get bytes(): number {
    return this.#bytes;
  }

  get unsettled(): number {
    return this.#unsettled;
  }

  /** Runs of settled items behind the position. */
  get runs(): number {
    return this.#runs;
  }

  /** The stream has come to here. */
  get passed(): Version {
    return this.#passed;
  }

  /** Everything up to here is settled, or was never the group's. */
  get settledUpTo(): Version {
    const { first } = this;
    return first === undefined ? this.#passed : first.version - 1;
  }

  /** The lowest that is not settled. */
  get first(): GroupItem | undefined {
    return this.#items[this.#head];
  }

  /** The stream has come to here, with whatever was pushed. */
  pass(version: Version): void {
    this.#passed = Math.max(this.#passed, version);
  }

  /** The next one; it may be settled already. */
  push(item: GroupItem): void {
    item.index = this.#base + this.#items.length;
    this.#passed = item.version;
    if (item.state === "settled") {
      if (this.size > 0) {
        this.#runs += this.#isSettled(item.index - 1) ? 0 : 1;
        this.#items.push(item);
        this.#touched = item.index;
      }
      return;
    }
    this.#bytes += item.bytes;
    this.#unsettled += 1;
    this.#items.push(item);
    if (item.deliveries > 0) {
      this.#touched = item.index;
    }
  }

  /** It was given out, which whoever comes after a crash shall know. */
  touch(item: GroupItem): void {
    if (item.index > this.#touched) {
      this.#touched = item.index;
    }
  }

  /** Its `settle` was called. */
  settled(item: GroupItem): void {
    this.touch(item);
    this.#bytes -= item.bytes;
    this.#unsettled -= 1;
    const before = this.#isSettled(item.index - 1);
    const after = this.#isSettled(item.index + 1);
    this.#runs += before && after ? -1 : before || after ? 0 : 1;
    if (item === this.first) {
      this.#advance();
    }
  }

  find(version: Version): GroupItem | undefined {
    const items = this.#items;
    let low = this.#head;
    let high = items.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((items[middle]?.version ?? 0) < version) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    const found = items[low];
    return found?.version === version ? found : undefined;
  }

  /** From the lowest that is not settled to the last that was ever given out or settled. */
  *touched(): Generator<GroupItem> {
    for (let at = this.#head; at <= this.#touched - this.#base; at++) {
      const item = this.#items[at];
      if (item !== undefined) {
        yield item;
      }
    }
  }

  #isSettled(index: number): boolean {
    const at = index - this.#base;
    return at >= this.#head && this.#items[at]?.state === "settled";
  }

  #advance(): void {
    const items = this.#items;
    this.#runs -= 1;
    while (items[this.#head]?.state === "settled") {
      this.#head += 1;
    }
    if (this.#head >= CUT_AT && this.#head * 2 >= items.length) {
      this.#items = items.slice(this.#head);
      this.#base += this.#head;
      this.#head = 0;
    }
  }
}
