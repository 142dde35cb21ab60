/**
 * Whether a transaction has begun and whether it is over. Null when it is so old that its commit status is gone, which is
 * over. Raises 22023 for an id that was not given to anybody yet: the only function that compares with the next id. (A
 * snapshot's xmax is one above the last id that *ended*: those in progress may lie beyond.)
 */
export const transactionStatus = "select coalesce(pg_catalog.pg_xact_status($1::xid8), 'over') as status";

/**
 * For each transaction: whether it is over, and whether the last tick has settled it.
 *
 * A snapshot "sees" a transaction that was over when it was taken, committed or not; one that is prepared is not over.
 * If the last tick's snapshot sees it, whatever it wrote is at or below that tick's last version. If only the statement's
 * own snapshot does, a tick that begins from now on will; ticks that find nothing write no row, so a transaction without
 * events may stay in that state for ever unless somebody ticks and looks at the answer instead of the row.
 *
 * $1 the transactions, $2 the epoch that they belong to: of another server's, nothing can be said here.
 */
export const transactionProgress = `
  select x::text as xid,
    pg_catalog.pg_visible_in_snapshot(x, pg_catalog.pg_current_snapshot()) as over,
    pg_catalog.pg_visible_in_snapshot(x, t.snapshot) as settled,
    (t.first_version + t.count - 1)::text as head
  from millrace.assert_epoch($2::uuid), pg_catalog.unnest($1::xid8[]) x,
    (select * from millrace.tick order by tick desc limit 1) t`;
