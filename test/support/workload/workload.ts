import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import type { Ledger } from "../checker/ledger.ts";
import { type Attempt, ChangeLog } from "./change-log.ts";
import { type LongTransaction, runLongTransaction } from "./long-transaction.ts";
import { createRandom, seedOfRun } from "./random.ts";
import { createShop, notesTopic, readTables } from "./shop.ts";
import { prove } from "./transactions.ts";
import { gidOf, Writer } from "./writer.ts";

export interface WorkloadOptions {
  /** Default 16. */
  readonly writers?: number;
  /** Hot keys per table. Default 16: enough to progress, few enough to collide. */
  readonly keys?: number;
  /** Longest pause inside a transaction, in milliseconds. Default 4. */
  readonly thinkMs?: number;
  /** Default true: the cluster has `max_prepared_transactions` > 0. */
  readonly twoPhase?: boolean;
  /** Default: none. */
  readonly longTransaction?: LongTransaction;
  /** Default: `MILLRACE_SEED` or a fresh one. */
  readonly seed?: number;
}

/** Writers at work. */
export interface Workload {
  readonly seed: number;
  /** Transactions that were acknowledged so far. */
  readonly committed: () => number;
  /** Resolves once this many more have committed, or the workload has ended. */
  readonly untilCommitted: (more: number) => Promise<void>;
  /** Stops the writers, finishes what is prepared, and finds out what became of every transaction. */
  readonly finish: () => Promise<FinishedWorkload>;
}

/** The key of the last event, a message of its own: whoever has it has all that committed before. */
export const lastKey = "end";

export interface FinishedWorkload {
  readonly ledger: Ledger;
  /** Errors that concurrency does not explain. */
  readonly failures: readonly string[];
  /** Commits that were acknowledged and are gone: only `synchronous_commit = off` and a crash may bring that about. */
  readonly acknowledgedAndLost: readonly string[];
}

/** Creates the watched tables in a database that has the schema `millrace`, and sets writers to work on them. */
export async function startWorkload(url: string, options: WorkloadOptions = {}): Promise<Workload> {
  const seed = options.seed ?? seedOfRun();
  process.stdout.write(`workload: MILLRACE_SEED=${seed}\n`);
  const habits = { keys: options.keys ?? 16, thinkMs: options.thinkMs ?? 4, twoPhase: options.twoPhase ?? true };
  await withClient(url, (client) => createShop(client, habits.keys + 2));
  const log = new ChangeLog();
  const random = createRandom(seed);
  const stopping = new AbortController();
  const running = Array.from({ length: options.writers ?? 16 }, (_, id) =>
    new Writer(url, id, log, random.fork(id), habits, stopping.signal).run(),
  );
  if (options.longTransaction !== undefined) {
    running.push(runLongTransaction(url, 100, log, options.longTransaction, stopping.signal));
  }
  return {
    seed,
    committed: () => log.committed,
    untilCommitted: (more) => log.untilCommitted(log.committed + more),
    finish: async () => {
      stopping.abort();
      log.end();
      await Promise.all(running);
      return withClient(url, (client) => settle(client, log));
    },
  };
}

async function settle(client: pg.Client, log: ChangeLog): Promise<FinishedWorkload> {
  const { rows: prepared } = await client.query<{ gid: string }>(
    "select gid from pg_prepared_xacts where database = current_database()",
  );
  for (const { gid } of prepared) await client.query(`commit prepared '${gid}'`);
  await emitLast(client, log);
  const { rows: proven } = await client.query<{ gid: string }>(
    "select format('w%s.%s', writer, number) as gid from truth",
  );
  const proof = new Set(proven.map(({ gid }) => gid));
  const isCommitted = (attempt: Attempt) => proof.has(gidOf(attempt));
  for (const attempt of log.attempts) {
    if (attempt.outcome === "rolled-back" && isCommitted(attempt)) {
      throw new Error(`The workload itself is wrong: ${gidOf(attempt)} rolled back and is there.`);
    }
  }
  const committed = log.attempts.filter(isCommitted);
  const lives = new Set(committed.map(({ xid }) => xid));
  return {
    ledger: {
      committed,
      rolledBack: new Set(log.attempts.map(({ xid }) => xid).filter((xid) => xid !== "" && !lives.has(xid))),
      tables: await readTables(client),
    },
    failures: log.failures,
    acknowledgedAndLost: log.attempts
      .filter((attempt) => attempt.outcome === "committed" && !isCommitted(attempt))
      .map(gidOf),
  };
}

async function emitLast(client: pg.Client, log: ChangeLog): Promise<void> {
  const last = log.begin(999, 1);
  await client.query("begin");
  const change = { topic: notesTopic, key: lastKey, operation: "MESSAGE", life: "message", counter: 1 } as const;
  const payload = JSON.stringify({ life: change.life, counter: change.counter });
  await client.query("select millrace.emit($1, $2, $3::json)", [change.topic, change.key, payload]);
  last.changes.push(change);
  await prove(client, last);
  await client.query("commit");
  log.acknowledge(last);
}

/** Connects, trying for half a minute while the database starts, and disconnects on every path. */
export async function withClient<T>(url: string, use: (client: pg.Client) => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    const client = new pg.Client({ connectionString: url });
    client.on("error", () => {});
    try {
      await client.connect();
    } catch (error) {
      await client.end().catch(() => {});
      if (attempt >= 300) throw error;
      await delay(100);
      continue;
    }
    try {
      return await use(client);
    } finally {
      await client.end().catch(() => {});
    }
  }
}
