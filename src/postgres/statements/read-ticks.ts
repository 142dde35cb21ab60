import { tickRow } from "./find-ticks.ts";

/**
 * Opens the transaction of a page and finds the ticks from the one that holds version `wanted` on, preceded by that one's
 * predecessor, whose snapshot is where its batch begins.
 *
 * One message. assert_epoch is inside the transaction, because a pooler may have put another server underneath since the
 * last one. REPEATABLE READ, so that these ticks and their rows are as of one moment.
 *
 * The outbox is locked first, which takes no snapshot: a partition is dropped only after its ticks are gone, and not while
 * anybody holds this lock. So the ticks that are seen here have their rows until the transaction ends; with the lock taken
 * as late as the rows are read, a partition could go in between, and its rows would be missing.
 *
 * An empty tick shares its first_version with the next one that is not: those that hold nothing are left out of the search
 * and kept in the list, where each is its successor's predecessor. No row at all: nothing is kept at or below `wanted`.
 */
export function beginPage(epoch: string, wanted: number, maxTicks: number): string {
  return `
    begin isolation level repeatable read read only;
    set local jit = off;
    set local enable_seqscan = off;
    set local enable_bitmapscan = off;
    set local max_parallel_workers_per_gather = 0;
    set local statement_timeout = '60s';
    set local idle_in_transaction_session_timeout = '10s';
    lock table only millrace.outbox in access share mode;
    select millrace.assert_epoch('${epoch}');
    select ${tickRow} as text,
      t.min_seq, t.max_seq, t.seam_seq
    from millrace.tick t
    where t.tick >= (
        select tick from millrace.tick where first_version <= ${wanted} and count > 0
        order by first_version desc, tick desc limit 1
      ) - 1
    order by t.tick limit ${maxTicks + 1}`;
}
