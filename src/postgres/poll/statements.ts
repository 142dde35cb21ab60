/** Sources whose next look is due, those that wait longest first, without $1; and how long until the next one, in milliseconds. */
export const duePolls = `
  select p.source_id as id, p.failures,
    extract(epoch from p.next_at - clock_timestamp())::float8 * 1000::float8 as "inMs"
  from millrace.poll p join millrace.source s on s.id = p.source_id and s.capture = 'poll'
  where p.source_id <> all ($1::int[])
  order by p.next_at
  limit 16`;

/** How much one batch may read, and how long it may take. */
export interface PollLimits {
  readonly maxRows: number;
  readonly maxBytes: number;
  readonly statementTimeoutMs: number;
}

/**
 * One batch of one source: the whole transaction in ONE message, whose only answer with rows is `told` and `more`. A process
 * that freezes holds neither the source, which another server then polls, nor the table, which DDL may wait for.
 *
 * Not durable by itself: state and events are one transaction, and the tick that settles them comes after it in the log.
 */
export function pollTransaction(sourceId: number, epoch: string, limits: PollLimits): string {
  return `
    begin isolation level read committed read write;
    set local synchronous_commit = off;
    set local lock_timeout = '1s';
    set local statement_timeout = ${limits.statementTimeoutMs};
    set local idle_in_transaction_session_timeout = '5s';
    select b.told, b.more
    from millrace.poll_batch(${sourceId}, '${epoch}', ${limits.maxRows}, ${limits.maxBytes}) b;
    commit`;
}

/** Notes why a look failed: $1 source, $2 reason. */
export const pollFailed = "select millrace.poll_failed($1, $2)";
