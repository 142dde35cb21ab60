/**
 * Settle what has committed, and read the tail: the whole transaction and the read in ONE message.
 *
 * One message, because the server then runs to the commit whatever becomes of the client: frozen or dead, it holds no lock
 * that others wait for. The isolation and synchronous_commit are spelled out against role defaults (see millrace.tick for
 * what they protect); the timeouts bound what a sick server can do to everybody else's tick.
 *
 * The tail is read after the COMMIT, in a transaction of its own in the same message: it sees only ticks whose commit is
 * durable, on the server whose identity the tick has just compared. A failing statement ends the message, so that nothing
 * is read after a tick that failed. All plans are cached on the server side; one round trip in all.
 *
 * @param statementTimeoutMs of the tick. One tick settles all that there is, also after a week's absence, and cannot be
 * split: a timeout must be raised until it goes through.
 */
export function tickAndTail(
  epoch: string,
  statementTimeoutMs: number,
  tail: { readonly after: number; readonly maxRows: number; readonly maxBytes: number } | undefined,
): string {
  return `
    begin isolation level read committed read write;
    set local synchronous_commit = on;
    set local lock_timeout = ${statementTimeoutMs};
    set local statement_timeout = ${statementTimeoutMs};
    set local idle_in_transaction_session_timeout = '5s';
    select tick, head from millrace.tick('${epoch}');
    commit;
    ${
      tail === undefined
        ? ""
        : `select tick_row, xid, topic, key, operation, before, after, headers, occurred_at
           from millrace.tail('${epoch}', ${tail.after}, ${tail.maxRows}, ${tail.maxBytes})`
    }`;
}
