import type { Event } from "../core/event.ts";
import { newlySeen, type Snapshot } from "./snapshot.ts";

/** An event before it has a version. */
export type OutboxRow = Omit<Event, "version"> & {
  /** Drawn when the row is written, whoever commits first. */
  readonly seq: number;
};

/** Events as writers leave them: by transaction, ordered by nothing but the sequence they drew from. */
export class Outbox {
  readonly #rows = new Map<number, OutboxRow[]>();
  #seq = 0;

  insert(xid: number, row: Omit<OutboxRow, "seq" | "transaction">): void {
    this.#seq += 1;
    const rows = this.#rows.get(xid);
    const written = { ...row, seq: this.#seq, transaction: String(xid) };
    if (rows === undefined) {
      this.#rows.set(xid, [written]);
    } else {
      rows.push(written);
    }
  }

  /** The transaction rolled back: nobody ever sees its rows. */
  discard(xid: number): void {
    this.#rows.delete(xid);
  }

  /** What became visible between two snapshots, in the order of the sequence. A row is taken once. */
  take(before: Snapshot, now: Snapshot): OutboxRow[] {
    const taken: OutboxRow[] = [];
    for (const xid of newlySeen(before, now)) {
      for (const row of this.#rows.get(xid) ?? []) {
        taken.push(row);
      }
      this.#rows.delete(xid);
    }
    return taken.sort((a, b) => a.seq - b.seq);
  }
}
