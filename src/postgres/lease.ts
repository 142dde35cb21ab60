import type pg from "pg";
import { watchOf } from "./watch/watched-sessions.ts";

/** A connection of a pool, held until it is given back. Give it back on every path. */
export interface Lease {
  readonly client: pg.PoolClient;
  /** One or more statements without parameters, in one round trip. */
  run(sql: string): Promise<void>;
  /** Rows of one statement. */
  rows<R extends pg.QueryResultRow>(sql: string, values?: readonly unknown[]): Promise<readonly R[]>;
  /** What is sent from now on may take so long without a sign of life, in milliseconds, before it counts as stuck. */
  allow(ms: number): void;
  /** Back to the pool, outside any transaction. Idempotent. */
  release(): void;
  /** Closes the connection in whatever state it is; a running statement fails. Idempotent. */
  destroy(): void;
}

/** Takes a connection. When the signal fires the connection is destroyed, and with it whatever waits on it. */
export async function takeLease(pool: pg.Pool, signal: AbortSignal): Promise<Lease> {
  const client = await connect(pool, signal);
  // A connection that breaks between two statements would otherwise end the process; the next statement reports it.
  const ignore = () => undefined;
  client.on("error", ignore);
  let held = true;
  const giveBack = (destroy: boolean) => {
    if (!held) return;
    held = false;
    signal.removeEventListener("abort", abort);
    work?.end(destroy ? "failed" : "done");
    if (!destroy) client.removeListener("error", ignore);
    client.release(destroy);
  };
  const abort = () => giveBack(true);
  const work = watchOf(pool)?.begin(client, abort);
  signal.addEventListener("abort", abort, { once: true });
  return {
    client,
    run: async (sql) => {
      await client.query(sql);
    },
    rows: async <R extends pg.QueryResultRow>(sql: string, values: readonly unknown[] = []) =>
      (await client.query<R>(sql, [...values])).rows,
    allow: (ms) => work?.allow(ms),
    release: () => giveBack(false),
    destroy: () => giveBack(true),
  };
}

/** Uses a connection for one transaction or none; gives it back clean, or destroys it when `use` fails. */
export async function withLease<T>(pool: pg.Pool, signal: AbortSignal, use: (lease: Lease) => Promise<T>): Promise<T> {
  const lease = await takeLease(pool, signal);
  try {
    const result = await use(lease);
    lease.release();
    return result;
  } catch (error) {
    const clean = await lease.run("rollback").then(
      () => true,
      () => false,
    );
    if (clean) lease.release();
    else lease.destroy();
    throw signal.aborted ? signal.reason : error;
  }
}

async function connect(pool: pg.Pool, signal: AbortSignal): Promise<pg.PoolClient> {
  signal.throwIfAborted();
  const waiting = pool.connect();
  let abort = () => {};
  const aborted = new Promise<never>((_, reject) => {
    abort = () => reject(signal.reason);
    signal.addEventListener("abort", abort, { once: true });
  });
  try {
    return await Promise.race([waiting, aborted]);
  } catch (error) {
    // It may yet come: nobody else would give it back.
    waiting.then(
      (client) => client.release(),
      () => undefined,
    );
    throw error;
  } finally {
    signal.removeEventListener("abort", abort);
  }
}
