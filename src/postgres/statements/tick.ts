import type { Tick } from "../../core/page.ts";

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
 *
 * Unless all of these ticks are in the database, nothing is settled and there is no row: the condition does not depend on
 * the function's row, so that Postgres answers it before, and instead of, the call. Rows of ticks are never changed, and a
 * later history has the same number with another time, to the microsecond; asking for both costs 0.03 ms.
 */
export function tickTransaction(
  epoch: string,
  { lockTimeoutMs, statementTimeoutMs }: TickLimits,
  continues: readonly Tick[] = [],
): string {
  return `
    begin isolation level read committed read write;
    set local synchronous_commit = on;
    set local lock_timeout = ${lockTimeoutMs};
    set local statement_timeout = ${statementTimeoutMs};
    set local idle_in_transaction_session_timeout = '5s';
    select t.tick, t.head from millrace.tick('${epoch}') t${continuing(continues)};
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
 * writer of it fail. The outbox is locked before the ticks are looked up, so that no partition of theirs goes in between:
 * see `beginPage`. The tail's rows are the answer to the last statement but one.
 */
export function tickAndTail(
  epoch: string,
  limits: TickLimits,
  continues: readonly Tick[],
  tail: { readonly after: number; readonly maxRows: number; readonly maxBytes: number } | undefined,
): string {
  const tick = tickTransaction(epoch, limits, continues);
  if (tail === undefined) return tick;
  return `${tick};
    begin isolation level read committed read only;
    lock table only millrace.outbox in access share mode;
    select tick_row, xid, topic, key, operation, before, after, headers, occurred_at
    from millrace.tail('${epoch}', ${tail.after}, ${tail.maxRows}, ${tail.maxBytes});
    commit`;
}

function continuing(ticks: readonly Tick[]): string {
  const conditions = ticks.map((tick) => `exists (${knownTick(tick)})`);
  return conditions.length === 0 ? "" : ` where ${conditions.join(" and ")}`;
}

/** What became of a tick that was shown: still there as it was, or older than what is kept, or neither. */
export function tickFate(tick: Tick): string {
  return `
    select exists (${knownTick(tick)}) as held, (
      select f.tick > ${tick.tick}::bigint from millrace.tick f order by f.tick limit 1
    ) as dropped`;
}

/** A row when the tick is in the database, exactly as it was. */
function knownTick({ tick, timeMicros }: Tick): string {
  return `select from millrace.tick k where k.tick = ${tick}::bigint and k.time = '${timestamp(timeMicros)}'::timestamptz`;
}

/** To the microsecond, in a form that no setting changes the meaning of. */
function timestamp(timeMicros: number): string {
  const seconds = new Date(Math.floor(timeMicros / 1e6) * 1000).toISOString().slice(0, 19);
  return `${seconds}.${String(timeMicros % 1e6).padStart(6, "0")}+00`;
}
