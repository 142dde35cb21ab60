import type { Version } from "../core/event.ts";
import type { Tick } from "../core/page.ts";
import { SnapshotBounds } from "./snapshot-bounds.ts";
import type { Seam } from "./statements/read-batch.ts";
import { tickFromText } from "./tick-row.ts";

/** A tick with what it takes to read its batch. */
export interface TickBatch {
  readonly tick: Tick;
  readonly snapshot: string;
  readonly minSeq: number;
  readonly maxSeq: number;
  /** Of the first tick after a restored dump, whose batch snapshots do not tell: see `Seam`. */
  readonly seamSeq: number | undefined;
}

/** One statement's worth of a page: whole successive ticks, or a part of a single one. */
export interface PagePlan {
  /** The snapshot where the first batch begins. */
  readonly earlier: string;
  /** Not empty; none of them is. */
  readonly batches: readonly TickBatch[];
  /** Rows of the first batch that lie before the page. */
  readonly skip: number;
  /** Those of them that are read nevertheless, and dropped: all, or none. */
  readonly dropped: number;
  /** Rows that the page must have. */
  readonly rows: number;
  readonly firstVersion: Version;
  /** By xid: see `copyBatch`. */
  readonly sparse: boolean;
  /** Set when the only batch is a seam. */
  readonly seam: Seam | undefined;
}

/** What the ticks of the database allow: a page, nothing because `wanted` is beyond the head, or nothing any more. */
export type PlanOutcome =
  | { readonly kind: "page"; readonly plan: PagePlan }
  | { readonly kind: "beyond" }
  | { readonly kind: "lost" };

/** One row of `beginPage`. */
export interface TickText {
  readonly text: string;
  readonly min_seq: string | null;
  readonly max_seq: string | null;
  readonly seam_seq: string | null;
}

/**
 * Chooses what to read for a page that begins with `wanted`.
 *
 * As many whole ticks as `maxRows` allows, together, because under load a tick holds a handful of events and a statement
 * for each would cost more than its rows. One that is entered in the middle is read from its beginning, and what lies
 * before is dropped. A tick that is larger is read alone: then rank and seq agree, and the next page goes on after the last
 * seq.
 *
 * A seam is read alone too, and nothing is read together across one: before it and after it, transaction ids mean different
 * things, so that no snapshot of the one side can be asked about a row of the other.
 */
export function planPage(rows: readonly TickText[], wanted: Version, maxRows: number, single: boolean): PlanOutcome {
  const [previous, ...following] = rows.map(batchFromRow);
  const [first] = following;
  if (previous === undefined) return { kind: "lost" };
  if (first === undefined || first.tick.count === 0 || first.tick.firstVersion > wanted) return { kind: "lost" };
  const skip = wanted - first.tick.firstVersion;
  if (skip >= first.tick.count) return { kind: "beyond" };

  const batches = [first];
  const whole = first.tick.count <= maxRows && !single && first.seamSeq === undefined;
  let read = whole ? first.tick.count : Math.min(first.tick.count - skip, maxRows);
  if (whole) {
    for (const next of following.slice(1)) {
      if (read + next.tick.count > maxRows || next.seamSeq !== undefined) break;
      if (next.tick.count === 0) continue;
      batches.push(next);
      read += next.tick.count;
    }
  }
  const dropped = whole ? skip : 0;
  const seam = first.seamSeq === undefined ? undefined : { tick: first.tick.tick, seq: first.seamSeq };
  const plan = { earlier: previous.snapshot, batches, skip, dropped, rows: read - dropped, firstVersion: wanted, seam };
  return { kind: "page", plan: { ...plan, sparse: seam === undefined && isSparse(batches, maxRows) } };
}

/** What the statement's range of seq is. */
export function seqRange(batches: readonly TickBatch[]): { readonly min: number; readonly max: number } {
  return {
    min: batches.reduce((least, { minSeq }) => Math.min(least, minSeq), Number.POSITIVE_INFINITY),
    max: batches.reduce((most, { maxSeq }) => Math.max(most, maxSeq), 0),
  };
}

/**
 * A row found by its xid costs about four of those that a range passes over. By xid each page reads the whole batch, so
 * that a large one is read that often.
 */
function isSparse(batches: readonly TickBatch[], maxRows: number): boolean {
  const { min, max } = seqRange(batches);
  const count = batches.reduce((sum, { tick }) => sum + tick.count, 0);
  return count * Math.ceil(count / maxRows) < (max - min + 1) / 4;
}

function batchFromRow({ text, min_seq, max_seq, seam_seq }: TickText): TickBatch {
  const [, , , , ...snapshot] = text.split(":");
  return {
    tick: tickFromText(text),
    snapshot: snapshot.join(":"),
    minSeq: Number(min_seq ?? 0),
    maxSeq: Number(max_seq ?? 0),
    seamSeq: seam_seq === null ? undefined : Number(seam_seq),
  };
}

/** Says to which of several successive ticks a transaction belongs: the first whose snapshot sees it. */
export class TickFinder {
  readonly #batches: readonly TickBatch[];
  readonly #bounds: (SnapshotBounds | undefined)[] = [];
  readonly #known = new Map<number, number>();
  #lastXid = -1;
  #lastIndex = 0;

  constructor(batches: readonly TickBatch[]) {
    this.#batches = batches;
  }

  /** Index among the batches. What one snapshot sees each later one sees: so this is a binary search. */
  indexOf(xid: number): number {
    if (this.#batches.length === 1) return 0;
    if (xid === this.#lastXid) return this.#lastIndex;
    let index = this.#known.get(xid);
    if (index === undefined) {
      index = this.#search(xid);
      this.#known.set(xid, index);
    }
    this.#lastXid = xid;
    this.#lastIndex = index;
    return index;
  }

  #search(xid: number): number {
    let low = 0;
    let high = this.#batches.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#boundsOf(middle).sees(xid)) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  #boundsOf(index: number): SnapshotBounds {
    let bounds = this.#bounds[index];
    if (bounds === undefined) {
      bounds = new SnapshotBounds(this.#batches[index]?.snapshot ?? "");
      this.#bounds[index] = bounds;
    }
    return bounds;
  }
}
