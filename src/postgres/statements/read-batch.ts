/** What to read: the rows that the later snapshot sees and the earlier does not, in (afterSeq, maxSeq], at most `limit`. */
export interface Batch {
  readonly earlier: string;
  readonly later: string;
  readonly afterSeq: number;
  readonly maxSeq: number;
  readonly limit: number;
  /** Through the index on xid. */
  readonly sparse: boolean;
  /** Instead of the snapshots. */
  readonly seam?: Seam | undefined;
}

/**
 * The batch of the first tick after a restored dump: every row above `seq`, and those that the tick itself names. No row of
 * it is told by its xid, for some came with the dump and some were written since: see `millrace.write_seam`.
 */
export interface Seam {
  readonly tick: number;
  readonly seq: number;
}

/**
 * The rows of one tick or of several successive ones, in the order of seq, and the end of the transaction.
 *
 * Right, because what lies between two snapshots never changes: both are over. Between two ticks that are not neighbours
 * it is the union of the batches, told apart by each row's xid.
 *
 * Dense: a range of the primary key, filtered; whoever continues in the middle of a batch continues after the last seq, for
 * OFFSET would read everything before again. Sparse: a transaction that committed late owns a few rows among a great many
 * of others; then by the xids themselves, exactly as the tick found them. OFFSET 0 keeps the planner from joining the whole
 * table instead. Both read through an index, in the order or into a sort of what is wanted.
 *
 * Literals and not parameters: COPY takes none, and the planner then leaves out the partitions. They are numbers and
 * snapshots that the database wrote itself.
 */
export function copyBatch(batch: Batch): string {
  return `
    copy (
      select o.xid, o.seq, o.topic, o.key, o.operation, o.before, o.after, o.headers, o.occurred_at
      from ${rowsOf(batch, batch.limit)}
      order by o.seq limit ${batch.limit}
    ) to stdout (format binary);
    commit`;
}

/**
 * The seq of the row at this place of a batch, from 1: for a reader that begins in the middle and is not known here. Reads
 * everything before it, 0.2 s per million rows; those who go on from there do not.
 */
export function seqAt(batch: Omit<Batch, "limit" | "sparse">, place: number): string {
  return `
    select o.seq from ${rowsOf({ ...batch, sparse: false }, place)} order by o.seq offset ${place - 1} limit 1`;
}

/** At least the first `most` of them, in no order. */
function rowsOf(batch: Omit<Batch, "limit">, most: number): string {
  const { earlier, later, afterSeq, maxSeq, sparse, seam } = batch;
  if (seam !== undefined) return seamRows(seam, afterSeq, maxSeq, most);
  const range = `o.seq > ${afterSeq} and o.seq <= ${maxSeq}`;
  if (sparse) {
    return `millrace.new_xids('${earlier}', '${later}') x,
        lateral (select * from millrace.outbox o where o.xid > x.low and o.xid < x.high and ${range} offset 0) o`;
  }
  return `millrace.outbox o where ${range}
        and pg_catalog.pg_visible_in_snapshot(o.xid, '${later}')
        and not pg_catalog.pg_visible_in_snapshot(o.xid, '${earlier}')`;
}

/** Each half is limited in its own order, so that a page of a large batch reads no more than itself. */
function seamRows({ tick, seq }: Seam, afterSeq: number, maxSeq: number, most: number): string {
  return `(
        (select o.* from (
            select early from millrace.tick t, pg_catalog.unnest(t.early_seqs) early
            where t.tick = ${tick} and early > ${afterSeq} order by early limit ${most}) e,
          lateral (select * from millrace.outbox o where o.seq = e.early offset 0) o)
        union all
        (select o.* from millrace.outbox o
          where o.seq > ${Math.max(afterSeq, seq)} and o.seq <= ${maxSeq} order by o.seq limit ${most})
      ) o`;
}
