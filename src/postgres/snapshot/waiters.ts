import type pg from "pg";
import { withLease } from "../lease.ts";
import { look } from "../look.ts";
import { somebodyWaits } from "./statements.ts";

/** How often to ask, in milliseconds: writers queue behind whoever waits for a table. */
const everyMs = 250;

/**
 * Calls `found` each time somebody is seen to wait for one of these sources' tables, as ALTER TABLE does while they are
 * read. Asks on another connection of the pool, and not at all while the pool has none to spare. The result ends it.
 */
export function watchWaiters(pool: pg.Pool, sources: readonly number[], found: () => void): () => void {
  const ended = new AbortController();
  let asking = false;
  const ask = async () => {
    const spare = pool.waitingCount === 0 && (pool.idleCount > 0 || pool.totalCount < pool.options.max);
    if (asking || !spare) return;
    asking = true;
    try {
      const waiting = await withLease(pool, ended.signal, (lease) =>
        look(lease.client, () => lease.rows(somebodyWaits, [sources])),
      );
      if (waiting.length > 0 && !ended.signal.aborted) found();
    } catch {
      // Whoever waits then waits for the copy's deadline.
    } finally {
      asking = false;
    }
  };
  const timer = setInterval(() => void ask(), everyMs);
  return () => {
    clearInterval(timer);
    ended.abort();
  };
}
