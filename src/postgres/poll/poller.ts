import pg from "pg";
import type { Service } from "../../core/ports.ts";
import { createPool } from "../database.ts";
import { sqlState } from "../database-error.ts";
import { withLease } from "../lease.ts";
import type { WatchedSessions } from "../watch/watched-sessions.ts";
import { duePolls, type PollLimits, pollFailed, pollTransaction } from "./statements.ts";

/** How to poll. */
export interface PollerOptions {
  /** As a role that `millrace.allow` made a server, with SELECT on the tables. */
  readonly url: string;
  /** The epoch in force: after another has begun nothing is polled. */
  readonly epoch: string;
  /** Sources looked at at the same time, a connection each. Default 2. */
  readonly lanes?: number | undefined;
  /**
   * Rows of one transaction. Default 5,000; fewer when they are large; up to ten times as many where a transaction takes more
   * than a second, for each sorts all rows of its last moment anew.
   */
  readonly maxRows?: number | undefined;
  /** Told of a failure when it is another than the source's last one. */
  readonly report?: ((message: string, error?: unknown) => void) | undefined;
  /** Events were written: the feed may tick. Must return at once. */
  readonly onTold?: ((count: number) => void) | undefined;
  /** A batch of this source has come to its end, or was not free. For tests and metrics. Must return at once. */
  readonly onBatch?: ((sourceId: number, told: number | undefined) => void) | undefined;
  /** Who watches its connections. Default: nobody does. */
  readonly watch?: WatchedSessions | undefined;
}

/** Between two looks for what is due, in milliseconds: at the most, and when no table is polled at all. */
const longestPauseMs = 1000;
const idlePauseMs = 5000;
/** What one batch may read, and how long it may take; twice as long after each failure, up to the last. */
const maxBytes = 8 * 1024 * 1024;
const growBeyondMs = 1000;
const mostGrowth = 10;
const firstTimeoutMs = 30_000;
const lastTimeoutMs = 600_000;

interface DuePoll {
  readonly id: number;
  readonly failures: number;
  readonly inMs: number;
}

/**
 * Looks at polled tables when that is due. Every server has one; each source is looked at by one of them at a time, and by
 * whoever is first. A source that fails is tried again, more and more rarely, and stops no other.
 */
export function createPoller(options: PollerOptions): Service {
  return new Poller(options);
}

class Poller implements Service {
  readonly #options: PollerOptions;
  readonly #stopping = new AbortController();
  readonly #pool: pg.Pool;
  readonly #reasons = new Map<number, string>();
  /** How many times as many rows as usual a source's batches have. */
  readonly #growth = new Map<number, number>();
  /** Sources that a lane is at. */
  readonly #taken = new Set<number>();
  readonly #lanes: Promise<void>[] = [];

  constructor(options: PollerOptions) {
    this.#options = options;
    this.#pool = createPool({ url: options.url, max: options.lanes ?? 2, idleMs: 30_000, watch: options.watch });
  }

  /** Resolves at once: the first look is soon after. */
  async start(): Promise<void> {
    const lanes = this.#options.lanes ?? 2;
    for (let lane = 0; lane < lanes && this.#lanes.length < lanes; lane += 1) this.#lanes.push(this.#run());
  }

  async stop(): Promise<void> {
    this.#stopping.abort(new Error("the poller stops"));
    await Promise.all(this.#lanes);
    if (!this.#pool.ended) await this.#pool.end();
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      let pauseMs = longestPauseMs;
      try {
        pauseMs = await this.#next();
      } catch (error) {
        if (!signal.aborted) this.#tell(0, "Could not see which tables are due for polling.", error);
      }
      await pause(pauseMs, signal);
    }
  }

  /** Looks at what has been due for longest; says how long there is nothing more to do, in milliseconds. */
  async #next(): Promise<number> {
    const { signal } = this.#stopping;
    const [due] = await withLease(this.#pool, signal, ({ rows }) =>
      rows<DuePoll & pg.QueryResultRow>(duePolls, [[...this.#taken]]),
    );
    this.#reasons.delete(0);
    if (due === undefined) return this.#taken.size > 0 ? longestPauseMs : idlePauseMs;
    if (due.inMs > 0) return Math.min(due.inMs, longestPauseMs);
    // The other lane may have taken it while this one asked.
    if (this.#taken.has(due.id)) return 0;
    this.#taken.add(due.id);
    try {
      return (await this.#poll(due)) ? 0 : 50;
    } finally {
      this.#taken.delete(due.id);
    }
  }

  /** One batch. False when another server is at it. */
  async #poll({ id, failures }: DuePoll): Promise<boolean> {
    const { epoch, maxRows: usual = 5000, onTold, onBatch } = this.#options;
    const growth = this.#growth.get(id) ?? 1;
    const maxRows = usual * growth;
    const began = performance.now();
    const { signal } = this.#stopping;
    const statementTimeoutMs = Math.min(firstTimeoutMs * 2 ** failures, lastTimeoutMs);
    try {
      const told = await batch(this.#pool, id, epoch, { maxRows, maxBytes, statementTimeoutMs }, signal);
      this.#reasons.delete(id);
      if (told !== maxRows) this.#growth.delete(id);
      else if (performance.now() - began > growBeyondMs) this.#growth.set(id, Math.min(2 * growth, mostGrowth));
      if (told !== undefined && told > 0) onTold?.(told);
      onBatch?.(id, told);
      return told !== undefined;
    } catch (error) {
      if (signal.aborted) return false;
      const reason = reasonOf(error);
      // Without an answer, or in another epoch, there is nobody to note it.
      if (reason === undefined) throw error;
      this.#tell(id, `Polling failed: ${reason}.`, error);
      await withLease(this.#pool, signal, ({ rows }) => rows(pollFailed, [id, reason]));
      return true;
    }
  }

  #tell(id: number, message: string, error: unknown): void {
    const reason = error instanceof Error ? error.message : String(error);
    if (this.#reasons.get(id) === reason) return;
    this.#reasons.set(id, reason);
    this.#options.report?.(message, error);
  }
}

/**
 * One batch of one source; the number of events, `undefined` when it was not due or another server is at it. Rejects with
 * what the driver says.
 */
export async function batch(
  pool: pg.Pool,
  sourceId: number,
  epoch: string,
  limits: PollLimits,
  signal: AbortSignal,
): Promise<number | undefined> {
  return await withLease(pool, signal, async ({ client, allow }) => {
    allow(limits.statementTimeoutMs);
    const results: unknown = await client.query(pollTransaction(sourceId, epoch, limits));
    const answers = results as readonly pg.QueryResult<{ readonly told: number | null }>[];
    return answers.find(({ command }) => command === "SELECT")?.rows[0]?.told ?? undefined;
  });
}

/** What the database says of a look that it refused; `undefined` when it says nothing of the source. */
function reasonOf(error: unknown): string | undefined {
  if (!(error instanceof pg.DatabaseError)) return undefined;
  const state = error.code ?? "";
  const passing = state === sqlState.deadlockDetected || /^(?:08|57P|MR)/.test(state);
  return passing ? undefined : error.message;
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (ms <= 0 || signal.aborted) {
      setImmediate(resolve);
      return;
    }
    const wake = (): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", wake);
      resolve();
    };
    const timer = setTimeout(wake, ms);
    signal.addEventListener("abort", wake, { once: true });
  });
}
