import type pg from "pg";
import type { Service } from "../../core/ports.ts";
import { sqlState, sqlStateOf } from "../database-error.ts";
import { withLease } from "../lease.ts";
import { look } from "../look.ts";
import { announceChange, changedSources } from "./statements.ts";

/** What was told of a source whose table was altered. */
export interface SchemaChange {
  readonly topic: string;
  /** The payload of the MESSAGE. */
  readonly change: SchemaChangePayload;
}

/** The part of the payload that every one has; docs/capture.md has the rest. */
export interface SchemaChangePayload {
  readonly table: string;
  /** Rows may look otherwise than their last events said, or have come or gone without one. */
  readonly rowsChanged: boolean;
}

/** How to watch schemas. */
export interface SchemaWatchOptions {
  /** As a role that `millrace.allow` made a server. One connection is taken while it looks. */
  readonly pool: pg.Pool;
  /** Time between looks, in milliseconds. Default 10,000; longer by itself where looking takes more than a hundredth of it. */
  readonly intervalMs?: number | undefined;
  /** Told of each announcement, and of a look that failed. */
  readonly report?: ((message: string, error?: unknown) => void) | undefined;
}

/**
 * Looks at once and then from time to time at what DDL has done to watched tables without an event, and has it announced.
 * Any number of servers may do so: each change is announced once.
 */
export function createSchemaWatch(options: SchemaWatchOptions): Service {
  return new SchemaWatch(options);
}

/**
 * One look. Says what it has announced; a source that DDL has just locked is left for the next look. Rejects with the first
 * failure, once all the others have been looked at.
 */
export async function announceSchemaChanges(pool: pg.Pool, signal: AbortSignal): Promise<readonly SchemaChange[]> {
  return await withLease(pool, signal, async ({ client }) => {
    const changed = await look(client, () => client.query<{ id: number }>(changedSources));
    const announced: SchemaChange[] = [];
    const failures: unknown[] = [];
    for (const { id } of changed.rows) {
      try {
        const results: unknown = await client.query(announceChange(id));
        announced.push(...changesIn(results as readonly pg.QueryResult<AnnouncedRow>[]));
      } catch (error) {
        await client.query("rollback");
        const state = sqlStateOf(error);
        if (state !== sqlState.lockNotAvailable && state !== sqlState.deadlockDetected) failures.push(error);
      }
    }
    if (failures.length > 0) throw failures[0];
    return announced;
  });
}

interface AnnouncedRow {
  readonly topic: string;
  readonly change: SchemaChangePayload | null;
}

function changesIn(results: readonly pg.QueryResult<AnnouncedRow>[]): readonly SchemaChange[] {
  return results
    .filter(({ command }) => command === "SELECT")
    .flatMap(({ rows }) => rows)
    .flatMap(({ topic, change }) => (change === null ? [] : [{ topic, change }]));
}

const defaultIntervalMs = 10_000;

class SchemaWatch implements Service {
  readonly #options: SchemaWatchOptions;
  readonly #stopping = new AbortController();
  #timer: NodeJS.Timeout | undefined;
  #looking: Promise<void> = Promise.resolve();

  constructor(options: SchemaWatchOptions) {
    this.#options = options;
  }

  async start(): Promise<void> {
    this.#looking = this.#look();
    await this.#looking;
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    clearTimeout(this.#timer);
    await this.#looking;
  }

  async #look(): Promise<void> {
    const { pool, report, intervalMs = defaultIntervalMs } = this.#options;
    const began = performance.now();
    try {
      for (const { topic, change } of await announceSchemaChanges(pool, this.#stopping.signal)) {
        const rows = change.rowsChanged ? " Rows may have changed without events: a new snapshot shows them." : "";
        report?.(`The schema of ${change.table} has changed; told on topic "${topic}".${rows}`);
      }
    } catch (error) {
      if (!this.#stopping.signal.aborted) report?.("Could not look for changes of schemas.", error);
    }
    if (this.#stopping.signal.aborted) return;
    const pauseMs = Math.max(intervalMs, 100 * (performance.now() - began));
    this.#timer = setTimeout(() => {
      this.#looking = this.#look();
    }, pauseMs);
  }
}
