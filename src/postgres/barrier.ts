import type pg from "pg";
import { FeedError } from "../core/errors.ts";
import type { Version } from "../core/event.ts";
import { sqlState, sqlStateOf } from "./database-error.ts";
import { withLease } from "./lease.ts";
import { queryError } from "./query-error.ts";
import { transactionProgress, transactionStatus } from "./statements/settle-transaction.ts";
import { tickTransaction } from "./statements/tick.ts";

/** How long transactions that are not over are left alone, in milliseconds: doubles from the first to the last. */
const firstPauseMs = 2;
const lastPauseMs = 250;
/** Somebody else's tick does as well; and waiting for it must not take the connection from others for long. */
const tickLimits = { lockTimeoutMs: 2000, statementTimeoutMs: 10_000 };

/**
 * Resolves when the transaction is over (committed or rolled back; a prepared one is not) and whatever it wrote is settled,
 * with the last version as of then.
 *
 * However many wait, the database is asked one question at a time for all of them. When they are over and no tick has
 * settled them yet, this ticks.
 *
 * @param epoch must be in force, for each pool always the same.
 * @param xid decimal xid8.
 * @throws FeedError INVALID_REQUEST for a transaction that has not begun; EPOCH_CHANGED; DATABASE_UNAVAILABLE.
 */
export async function waitForTransaction(
  pool: pg.Pool,
  epoch: string,
  xid: string,
  signal: AbortSignal,
): Promise<Version> {
  signal.throwIfAborted();
  try {
    await assertBegun(pool, xid, signal);
    let waiters = shared.get(pool);
    if (waiters === undefined) {
      waiters = new Waiters(pool, epoch);
      shared.set(pool, waiters);
    }
    return await waiters.wait(xid, signal);
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    throw queryError(error, "wait for the transaction");
  }
}

const shared = new WeakMap<pg.Pool, Waiters>();

async function assertBegun(pool: pg.Pool, xid: string, signal: AbortSignal): Promise<void> {
  try {
    if (!/^\d{1,20}$/.test(xid) || BigInt(xid) >= 2n ** 64n) throw notBegun(xid);
    await withLease(pool, signal, (lease) => lease.rows(transactionStatus, [xid]));
  } catch (error) {
    throw sqlStateOf(error) === "22023" ? notBegun(xid) : error;
  }
}

function notBegun(xid: string): FeedError {
  return new FeedError(
    "INVALID_REQUEST",
    `Transaction ${xid} has not begun on this database.`,
    "Give a transaction as Publish or millrace.transaction() returned it.",
    { violations: [{ field: "after_transaction", message: "names a transaction that has not begun" }] },
  );
}

interface Waiter {
  readonly xid: string;
  readonly resolve: (version: Version) => void;
  readonly reject: (error: unknown) => void;
}

interface Progress {
  readonly xid: string;
  readonly over: boolean;
  readonly settled: boolean;
  readonly head: string;
}

/** All barriers of one pool. Asks in rounds while anybody waits; idle otherwise. */
class Waiters {
  readonly #pool: pg.Pool;
  readonly #epoch: string;
  readonly #waiting = new Set<Waiter>();
  #running = false;
  #wake: () => void = () => {};
  #pauseMs = firstPauseMs;

  constructor(pool: pg.Pool, epoch: string) {
    this.#pool = pool;
    this.#epoch = epoch;
  }

  wait(xid: string, signal: AbortSignal): Promise<Version> {
    signal.throwIfAborted();
    return new Promise<Version>((resolve, reject) => {
      const done = () => {
        signal.removeEventListener("abort", abort);
        this.#waiting.delete(waiter);
      };
      const waiter: Waiter = {
        xid,
        resolve: (version) => {
          done();
          resolve(version);
        },
        reject: (error) => {
          done();
          reject(error);
        },
      };
      const abort = () => {
        waiter.reject(signal.reason);
        this.#wake();
      };
      signal.addEventListener("abort", abort, { once: true });
      this.#waiting.add(waiter);
      this.#pauseMs = firstPauseMs;
      this.#wake();
      if (!this.#running) void this.#run();
    });
  }

  /** Never rejects: a round that fails fails whoever waited for it. */
  async #run(): Promise<void> {
    this.#running = true;
    while (this.#waiting.size > 0) {
      const asked = [...this.#waiting];
      try {
        await this.#round(asked);
      } catch (error) {
        for (const waiter of asked) waiter.reject(error);
      }
      if (this.#waiting.size > 0) await this.#pause();
    }
    this.#running = false;
  }

  async #round(asked: readonly Waiter[]): Promise<void> {
    const xids = [...new Set(asked.map(({ xid }) => xid))];
    const rows = await withLease(this.#pool, new AbortController().signal, (lease) =>
      lease.rows<Progress & pg.QueryResultRow>(transactionProgress, [xids, this.#epoch]),
    );
    const progress = new Map(rows.map((row) => [row.xid, row]));
    const settle = (which: (row: Progress) => boolean, version: (row: Progress) => Version) => {
      for (const waiter of asked) {
        const row = progress.get(BigInt(waiter.xid).toString());
        if (row !== undefined && which(row)) waiter.resolve(version(row));
      }
    };
    settle(
      (row) => row.settled,
      (row) => Number(row.head),
    );
    if (!rows.some((row) => row.over && !row.settled)) return;
    // Begun after the look above, so its snapshot sees every transaction that was over then.
    const head = await this.#tick();
    if (head === undefined) return;
    settle(
      (row) => row.over,
      () => head,
    );
  }

  /** `undefined` when somebody else has been ticking all the while: the next round finds what that settled. */
  async #tick(): Promise<Version | undefined> {
    try {
      return await withLease(this.#pool, new AbortController().signal, async ({ client }) =>
        headOf(await client.query(tickTransaction(this.#epoch, tickLimits))),
      );
    } catch (error) {
      if (sqlStateOf(error) === sqlState.lockNotAvailable) return undefined;
      throw error;
    }
  }

  #pause(): Promise<void> {
    const pauseMs = this.#pauseMs;
    this.#pauseMs = Math.min(pauseMs * 2, lastPauseMs);
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, pauseMs);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}

/** Several statements in one message answer with several results; the tick's is the one with rows. */
function headOf(results: unknown): Version | undefined {
  for (const result of Array.isArray(results) ? results : [results]) {
    const head: unknown = result?.rows?.[0]?.head;
    if (head !== undefined && head !== null) return Number(head);
  }
  return undefined;
}
