import type { Cursor } from "../cursor.ts";
import type { Event, Version } from "../event.ts";
import type { NewDeadLetter } from "../subscription/subscription-store.ts";
import { GroupDeadLetters, type KnownDeadLetter } from "./group-dead-letters.ts";
import { GroupItem } from "./group-item.ts";
import { decodeProgress, encodeProgress, KeptProgress, progressOf } from "./group-progress.ts";
import { GroupWindow } from "./group-window.ts";

/** What is kept of a group. */
export interface GroupRecord {
  /** Everything up to here is acknowledged. */
  readonly cursor: Cursor;
  /** As `GroupWriting.progress` was last. */
  readonly progress: string | undefined;
  readonly deadLetters: readonly KnownDeadLetter[];
}

/** What has become of a group since it was last written. */
export interface GroupWriting {
  /** Everything up to here is settled. */
  readonly cursor: Cursor;
  readonly progress: string;
  readonly deadLetters: readonly NewDeadLetter[];
  readonly settledDeadLetters: readonly Version[];
  /** What was said up to this revision is in it. */
  readonly revision: number;
}

/** What has become of the events of a group, and what of that has yet to be written. */
export class GroupLedger {
  readonly window: GroupWindow;
  readonly letters: GroupDeadLetters;
  readonly #epoch: string;
  readonly #kept: KeptProgress;
  /** Of the stream, as it was last said: its fingerprint is known. */
  #mark: Cursor;
  #revision = 0;
  #written: { readonly revision: number; readonly version: Version };
  #writing: { readonly revision: number; readonly version: Version };
  #delivered = false;
  #acknowledged = 0;
  #deadLetters = 0;

  constructor({ cursor, progress, deadLetters }: GroupRecord) {
    this.#epoch = cursor.epoch;
    this.#mark = cursor;
    this.#written = { revision: 0, version: cursor.version };
    this.#writing = this.#written;
    this.window = new GroupWindow(cursor.version);
    this.letters = new GroupDeadLetters(deadLetters);
    this.#kept = new KeptProgress(decodeProgress(progress, cursor.epoch));
  }

  get epoch(): string {
    return this.#epoch;
  }

  /** Totals. */
  get acknowledged(): number {
    return this.#acknowledged;
  }

  get deadLetters(): number {
    return this.#deadLetters;
  }

  /** Everything up to here is settled. */
  get cursor(): Cursor {
    const version = this.window.settledUpTo;
    return version === this.#mark.version
      ? this.#mark
      : { epoch: this.#epoch, version, fingerprint: 0, snapshot: undefined };
  }

  /** Rises with all that somebody may wait for to be durable. */
  get revision(): number {
    return this.#revision;
  }

  /** How much was not written: "much" is worth a writing of its own, "little" goes with the next one. */
  get unwritten(): "nothing" | "little" | "much" {
    if (this.#revision > this.#written.revision) {
      return "much";
    }
    return this.#delivered || this.window.settledUpTo > this.#written.version ? "little" : "nothing";
  }

  /**
   * The next event of the stream. Settled when it was before a holder of the group ended; and when it is a dead letter, which
   * outlives that the group is moved back: there would be two of it, and one would come again when the other is acknowledged.
   */
  take(event: Event): GroupItem {
    const kept = this.#kept.find(event.version);
    const item = new GroupItem(event, kept?.deliveries, kept?.spared);
    if (kept?.deliveries === 0 || this.letters.has(event.version)) {
      item.settle();
    }
    this.window.push(item);
    return item;
  }

  /** The stream has come to here. */
  passed(cursor: Cursor): void {
    this.#mark = cursor;
    this.window.pass(cursor.version);
  }

  /** Something was given out, or taken back. */
  delivered(): void {
    this.#delivered = true;
  }

  find(version: Version): GroupItem | undefined {
    return this.letters.replaying.get(version) ?? this.window.find(version);
  }

  /** It need not come again. */
  acknowledge(item: GroupItem): void {
    item.settle();
    this.#acknowledged += 1;
    this.#revision += 1;
    if (item.replay) {
      this.letters.settle(item.version);
    } else {
      this.window.settled(item);
    }
  }

  /** It becomes a dead letter. */
  giveUp(item: GroupItem, reason: string): void {
    this.letters.add(item, reason);
    this.#deadLetters += 1;
    this.#revision += 1;
    item.settle();
    if (!item.replay) {
      this.window.settled(item);
    }
  }

  /** What to write, one writing at a time; `written` ends it. */
  write(): GroupWriting {
    const { added, settled } = this.letters.write();
    const { cursor } = this;
    const ranges = progressOf(this.window, this.#kept.ranges);
    this.#writing = { revision: this.#revision, version: cursor.version };
    this.#delivered = false;
    return {
      cursor,
      progress: encodeProgress(this.#epoch, cursor.version, ranges),
      deadLetters: added,
      settledDeadLetters: settled,
      revision: this.#revision,
    };
  }

  /** It was written, or is not known to be. */
  written(done: boolean): void {
    this.letters.written(done);
    if (done) {
      this.#written = this.#writing;
    } else {
      this.#delivered = true;
    }
  }
}
