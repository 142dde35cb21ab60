import type { Event, Version } from "./event.ts";
import { Batch, type ScanOptions } from "./scan.ts";

/** The rows of one snapshot on their way into frames. It holds one batch of the reader's at a time. */
export class SnapshotDelivery {
  readonly version: Version;
  readonly topics: readonly string[];
  /** An earlier delivery was cut: this one begins anew. */
  readonly restart: boolean;
  readonly #scan: ScanOptions;
  #rows: readonly Event[] = [];
  #next = 0;
  #done = false;
  #delivered = 0;

  constructor(
    snapshot: { readonly version: Version; readonly topics: readonly string[]; readonly restart: boolean },
    options: ScanOptions,
  ) {
    this.version = snapshot.version;
    this.topics = snapshot.topics;
    this.restart = snapshot.restart;
    this.#scan = options;
  }

  /** Rows delivered so far. */
  get delivered(): number {
    return this.#delivered;
  }

  /** The reader has come to its end and everything of it is delivered. */
  get complete(): boolean {
    return this.#done && this.#next >= this.#rows.length;
  }

  /** `undefined` says that there are no more. */
  supply(rows: readonly Event[] | undefined): void {
    if (rows === undefined) {
      this.#done = true;
      return;
    }
    this.#rows = rows;
    this.#next = 0;
  }

  /** The rows of the next frame; `undefined` when the reader must be asked for more, or is at its end. */
  take(): readonly Event[] | undefined {
    const batch = new Batch(this.#scan.maxBatchBytes);
    for (; this.#next < this.#rows.length; this.#next++) {
      const row = this.#rows[this.#next];
      if (row === undefined || !this.#scan.matches(row)) {
        continue;
      }
      if (!batch.add(row, this.#scan.measure(row))) {
        break;
      }
    }
    this.#delivered += batch.events.length;
    return batch.empty ? undefined : batch.events;
  }
}
