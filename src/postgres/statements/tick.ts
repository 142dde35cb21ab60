/** How long a tick may wait for its turn, and how long it may take, in milliseconds. */
export interface TickLimits {
  readonly lockTimeoutMs: number;
  /**
   * One tick settles all that there is, also after a week's absence, and cannot be split: a timeout must be raised until it
   * goes through.
   */
  readonly statementTimeoutMs: number;
}

/**
 * Settle what has committed: the whole transaction in ONE message, whose only answer with rows is `tick` and `head`.
 *
 * One message, because the server then runs to the commit whatever becomes of the client: frozen or dead, it holds no lock
 * that others wait for. The isolation and synchronous_commit are spelled out against role defaults (see millrace.tick for
 * what they protect); the timeouts bound what a sick server can do to everybody else's tick.
 */
export function tickTransaction(epoch: string, { lockTimeoutMs, statementTimeoutMs }: TickLimits): string {
  return `
    begin isolation level read committed read write;
    set local synchronous_commit = on;
    set local lock_timeout = ${lockTimeoutMs};
    set local statement_timeout = ${statementTimeoutMs};
    set local idle_in_transaction_session_timeout = '5s';
    select tick, head from millrace.tick('${epoch}');
    commit`;
}

/**
 * Settle what has committed, and read the tail, in one message.
 *
 * The tail is read after the COMMIT, in a transaction of its own in the same message: it sees only ticks whose commit is
 * durable, on the server whose identity the tick has just compared. A failing statement ends the message, so that nothing
 * is read after a tick that failed. All plans are cached on the server side; one round trip in all.
 *
 * READ COMMITTED and READ ONLY, whatever the role's default: a serializable reader of the outbox can make a serializable
 * writer of it fail. The tail's rows are the answer to the last statement but one.
 */
export function tickAndTail(
  epoch: string,
  limits: TickLimits,
  tail: { readonly after: number; readonly maxRows: number; readonly maxBytes: number } | undefined,
): string {
  const tick = tickTransaction(epoch, limits);
  if (tail === undefined) return tick;
  return `${tick};
    begin isolation level read committed read only;
    select tick_row, xid, topic, key, operation, before, after, headers, occurred_at
    from millrace.tail('${epoch}', ${tail.after}, ${tail.maxRows}, ${tail.maxBytes});
    commit`;
}
