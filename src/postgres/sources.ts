import { setTimeout as delay } from "node:timers/promises";
import type { InferResult } from "kysely";
import pg from "pg";
import { FeedError } from "../core/errors.ts";
import type { SourceRequest } from "../core/source/sources.ts";
import { rowsOf } from "./catalog.ts";
import { sentence, sqlState, sqlStateOf } from "./database-error.ts";
import { withLease } from "./lease.ts";
import { type Literal, withLiterals } from "./literal.ts";
import { look } from "./look.ts";
import { type Polling, type PollingProblem, pollingProblems } from "./poll/polling.ts";
import { queryError } from "./query-error.ts";
import { listedSources } from "./statements/list-sources.ts";

/**
 * What to watch and how. `table` is looked up in the role's search path. `capture: "strict"` has events written at commit:
 * until then each takes memory, and TRUNCATE and ALTER TABLE of a table fail in a transaction that has changed it.
 */
export type WatchRequest = Omit<SourceRequest, "polling">;

type TriggerSettings = "beforeValues" | "captureTruncate" | "capture" | "reset";

/** How to wait for a table's lock. */
export interface LockOptions {
  /** How often to try for the table's lock, 1 s each, with a growing pause between in which writers go on. Default 5. */
  readonly lockAttempts?: number;
  /** Told after each try but the last: a sentence that names the pids in the way. */
  readonly onWait?: (sentence: string) => void;
  /** Told of what works but deserves a look, such as a trigger that fires before capture, and what to do; in SQL. */
  readonly onWarning?: (sentence: string, action: string) => void;
  readonly signal?: AbortSignal;
}

/** A watched table: how it is captured, and whether it is. */
export interface Source {
  readonly id: number;
  /** As it is called now; `undefined` when it is gone. */
  readonly table: string | undefined;
  /** As it was called when it was watched. */
  readonly watchedAs: string;
  readonly oid: number;
  readonly topic: string;
  readonly keyColumns: readonly string[];
  /** `undefined` for all but the excluded ones. */
  readonly includedColumns: readonly string[] | undefined;
  readonly excludedColumns: readonly string[];
  readonly beforeValues: boolean;
  readonly captureTruncate: boolean;
  /** By triggers at each change, by triggers at commit, or by polling. */
  readonly capture: "trigger" | "strict" | "poll";
  /** How it is polled; `undefined` when it is captured by triggers. */
  readonly polling: Polling | undefined;
  readonly createdAt: Date;
  /**
   * OFF: its changes are not captured. DEGRADED: they are, but some without their key, their topic, or not in every
   * partition, or may yet be lost.
   */
  readonly state: "OK" | "DEGRADED" | "OFF";
  /** What is wrong with its capture, with what to do; empty when all is well. */
  readonly problems: readonly SourceProblem[];
}

/** One thing that is wrong with a source's capture, and what to do about it. */
export interface SourceProblem {
  readonly kind:
    | "TABLE_GONE"
    | "TABLE_REPLACED"
    | "TRIGGER_MISSING"
    | "TRIGGER_OFF"
    | "TRUNCATE_UNSEEN"
    | "COLUMN_GONE"
    | "KEY_NULLABLE"
    | "TABLE_UNLOGGED"
    | PollingProblem["kind"];
  readonly message: string;
  readonly action: string;
}

/**
 * Makes every committed change of a table an event; for a table that is watched already, changes how.
 *
 * Rejects with INVALID_REQUEST (no such table, a kind that is refused, wrong columns, a topic that is taken, no rights) or
 * DATABASE_UNAVAILABLE (the lock was not to be had: names the pids in the way).
 */
export async function watchTable(
  database: pg.ClientBase,
  request: WatchRequest,
  options: LockOptions = {},
): Promise<Source> {
  return await begin(
    database,
    request,
    "select from millrace.watch($1::oid::regclass, $2, $3::text[], $4::text[], $5::text[], $6, $7, $8, $9)",
    [request.beforeValues ?? null, request.captureTruncate ?? null, request.capture ?? null, request.reset ?? false],
    options,
  );
}

/** What to poll and how. Defaults are those of `millrace.poll`. */
export interface PollRequest extends Omit<WatchRequest, TriggerSettings> {
  /** Rises with every change: a number, or a time of change. */
  readonly column: string;
  /** True, or not null, in rows that are deleted softly. Default: deletions go unseen. */
  readonly deletedColumn?: string;
  /** Time between looks, in milliseconds. Default 1,000. */
  readonly everyMs?: number;
  /** How long before it writes anything a transaction may draw the column's value, in milliseconds. Default 60,000. */
  readonly overlapMs?: number;
}

/** Has servers look at a table from time to time. Needs SELECT on it, nothing else. Rejects as `watchTable` does. */
export async function pollTable(
  database: pg.ClientBase,
  request: PollRequest,
  options: LockOptions = {},
): Promise<Source> {
  return await begin(
    database,
    request,
    `select from millrace.poll($1::oid::regclass, $6, $2, $3::text[], $4::text[], $5::text[], $7,
      $8::pg_catalog.interval, $9::pg_catalog.interval)`,
    [
      request.column,
      request.deletedColumn ?? null,
      `${request.everyMs ?? 1000} ms`,
      `${request.overlapMs ?? 60_000} ms`,
    ],
    options,
  );
}

/** What the driver hands on of a notice. */
type Notice = { readonly [part in "severity" | "message" | "hint"]?: string | undefined };

async function begin(
  database: pg.ClientBase,
  request: Omit<WatchRequest, TriggerSettings>,
  statement: string,
  further: readonly Literal[],
  options: LockOptions,
): Promise<Source> {
  const oid = await tableOid(database, request.table);
  const { topic = null, keyColumns = null, include = null, exclude = null } = request;
  const parameters = [oid, topic, keyColumns, include, exclude, ...further];
  // Within a statement that goes without parameters it would end the text, and with it the connection.
  if (parameters.flat().some((value) => String(value).includes("\0")))
    throw noSuchName("name with the character U+0000");
  const warn = ({ severity, message, hint }: Notice): void => {
    if (severity === "WARNING" && message !== undefined) options.onWarning?.(sentence(message), hint ?? "");
  };
  database.on("notice", warn);
  try {
    await withLock(options, `watch ${request.table}`, () => change(database, statement, parameters));
  } finally {
    database.off("notice", warn);
  }
  const source = (await listSources(database)).find((candidate) => candidate.oid === oid);
  if (source === undefined) throw notWatched(request.table);
  return source;
}

/**
 * Ends the capture of a table; what is written stays. Also of a table that is gone, by the name it was watched as.
 *
 * Rejects with SOURCE_NOT_FOUND when it is not watched, and else as `watchTable` does.
 */
export async function unwatchTable(database: pg.ClientBase, table: string, options: LockOptions = {}): Promise<void> {
  const sources = await listSources(database);
  const gone = sources.find((source) => source.table === undefined && source.watchedAs === table);
  const oid = gone?.oid ?? (await tableOid(database, table));
  const polled = sources.some((source) => source.oid === oid && source.capture === "poll");
  const end = polled ? "millrace.unpoll" : "millrace.unwatch";
  const { rows } = await withLock(options, `unwatch ${table}`, () =>
    change<{ released: boolean }>(database, `select ${end}($1::oid::regclass) as released`, [oid]),
  );
  if (rows[0]?.released !== true) throw notWatched(table);
}

/** All watched tables by name, each with what is wrong with its capture. A client must not be in a transaction. */
export async function listSources(database: pg.ClientBase | pg.Pool): Promise<readonly Source[]> {
  try {
    if (!(database instanceof pg.Pool)) return await look(database, () => readSources(database));
    const unending = new AbortController().signal;
    return await withLease(database, unending, ({ client }) => look(client, () => readSources(client)));
  } catch (error) {
    throw queryError(error, "list the watched tables");
  }
}

/** The same within a transaction that looks. Rejects with what the driver says. */
export async function readSources(client: pg.ClientBase): Promise<readonly Source[]> {
  return (await rowsOf(client, listedSources)).map(sourceFromRow);
}

type ListedSource = InferResult<typeof listedSources>[number];

function sourceFromRow(row: ListedSource): Source {
  const {
    table,
    replaced,
    includedColumns,
    withoutTrigger,
    switchedOff,
    truncateUnseen,
    goneColumns,
    nullableKeys,
    unlogged,
    polling,
    ...same
  } = row;
  const problems = [...problemsOf(row)];
  const untriggered = table !== null && (withoutTrigger.includes(table) || switchedOff.includes(table));
  const off = table === null || (polling === null ? untriggered : polling.failure !== null);
  return {
    ...same,
    polling: polling ?? undefined,
    table: table ?? undefined,
    includedColumns: includedColumns ?? undefined,
    state: off ? "OFF" : problems.length > 0 ? "DEGRADED" : "OK",
    problems,
  };
}

function* problemsOf(row: ListedSource): Generator<SourceProblem> {
  if (row.table === null && row.replaced) {
    yield {
      kind: "TABLE_REPLACED",
      message: `The table ${row.watchedAs} is not the one that was watched (oid ${row.oid}): its changes are not captured.`,
      action: `In a restored dump, start a server or begin the epoch: it finds the table again by its name. Else run \`millrace unwatch ${row.watchedAs}\`, then \`millrace watch ${row.watchedAs}\` with its options, and take a new snapshot: changes were missed.`,
    };
    return;
  }
  if (row.table === null) {
    yield {
      kind: "TABLE_GONE",
      message: `The table ${row.watchedAs} (oid ${row.oid}) is gone.`,
      action: `Run \`millrace unwatch ${row.watchedAs}\`.`,
    };
    return;
  }
  if (row.polling !== null) {
    yield* pollingProblems(row.table, row.polling);
    return;
  }
  const again = `Run \`millrace watch ${row.table}\` again, and take a new snapshot: changes were missed.`;
  for (const table of row.withoutTrigger) {
    yield { kind: "TRIGGER_MISSING", message: `Changes of ${table} are not captured: no trigger.`, action: again };
  }
  for (const table of row.switchedOff) {
    yield {
      kind: "TRIGGER_OFF",
      message: `The capture trigger of ${table} is not ENABLE ALWAYS: some or all changes are not captured.`,
      action: again,
    };
  }
  for (const table of row.truncateUnseen) {
    yield {
      kind: "TRUNCATE_UNSEEN",
      message: `TRUNCATE of ${table} is not captured.`,
      action: `Run \`millrace watch ${row.table}\` again; take a new snapshot if it was truncated.`,
    };
  }
  if (row.goneColumns.length > 0) {
    yield {
      kind: "COLUMN_GONE",
      message: `${row.table} has no column ${row.goneColumns.join(", ")} any more: its events carry millrace-drift.`,
      action: `Run \`millrace watch ${row.table}\` again with the columns that it has now (--key, --topic, --exclude), or with --reset.`,
    };
  }
  if (row.nullableKeys.length > 0) {
    yield {
      kind: "KEY_NULLABLE",
      message: `Key column ${row.nullableKeys.join(", ")} of ${row.table} may be null: events of such rows have no key.`,
      action: `Make it NOT NULL, or run \`millrace watch ${row.table}\` again with another key.`,
    };
  }
  for (const table of row.unlogged) {
    yield {
      kind: "TABLE_UNLOGGED",
      message: `${table} is unlogged: a crash of Postgres empties it, and no event tells.`,
      action: `Run \`alter table ${table} set logged\`; after a crash take a new snapshot.`,
    };
  }
}

async function tableOid(database: pg.ClientBase, table: string): Promise<number> {
  try {
    const { rows } = await database.query<{ oid: number | null }>("select to_regclass($1)::oid as oid", [table]);
    const oid = rows[0]?.oid;
    if (typeof oid === "number") return oid;
  } catch (error) {
    // A name that is not one (42601, 42602, 22021), or another database's (0A000).
    if (!/^(42|0A|22021)/.test(sqlStateOf(error) ?? "")) throw queryError(error, `look up ${table}`);
  }
  throw noSuchName(`table ${table} that this role can see`);
}

function noSuchName(what: string): FeedError {
  return new FeedError(
    "INVALID_REQUEST",
    `There is no ${what}.`,
    'Name it with its schema, quoted as in SQL: shop.orders, shop."Order Items".',
  );
}

/**
 * One statement in a transaction that writes and is READ COMMITTED, whatever the role's defaults. In one message: a process
 * that freezes between two would keep the table locked against its writers.
 */
async function change<R extends pg.QueryResultRow>(
  database: pg.ClientBase,
  statement: string,
  parameters: readonly Literal[],
): Promise<pg.QueryResult<R>> {
  try {
    const results: unknown = await database.query(
      `begin isolation level read committed read write; ${withLiterals(statement, parameters)}; commit`,
    );
    const [, answer] = results as readonly pg.QueryResult<R>[];
    if (answer === undefined) throw new FeedError("INTERNAL", "The statement gave no answer.", "Report this.");
    return answer;
  } catch (error) {
    // When that fails too, the connection is gone, and the first error says why.
    await database.query("rollback").catch(() => undefined);
    throw error;
  }
}

/** Tries again while others hold the lock: writers must not queue behind this for more than a second at a time. */
async function withLock<T>(options: LockOptions, doing: string, run: () => Promise<T>): Promise<T> {
  const attempts = options.lockAttempts ?? 5;
  for (let attempt = 1; ; attempt += 1) {
    options.signal?.throwIfAborted();
    try {
      return await run();
    } catch (error) {
      const state = sqlStateOf(error);
      const passing = state === sqlState.lockNotAvailable || state === sqlState.deadlockDetected;
      if (!passing || attempt >= attempts) throw requestError(error, doing, attempt);
      options.onWait?.(error instanceof Error ? sentence(error.message) : "");
    }
    await delay(Math.min(100 * 2 ** attempt, 3000) * (0.5 + Math.random() / 2), undefined, { signal: options.signal });
  }
}

/** The functions of the schema say what is wrong and, as the hint, what to do. */
function requestError(error: unknown, doing: string, attempt: number): unknown {
  if (!(error instanceof pg.DatabaseError)) return queryError(error, doing);
  if (error.code === sqlState.lockNotAvailable) {
    const tries = attempt === 1 ? "" : `, ${attempt} times`;
    return new FeedError(
      "DATABASE_UNAVAILABLE",
      sentence(`${error.message}${tries}`),
      error.hint ?? "Wait for that transaction or end it, then try again.",
      { cause: error },
    );
  }
  if (error.code === sqlState.insufficientPrivilege && error.hint === undefined) {
    return new FeedError(
      "INVALID_REQUEST",
      sentence(error.message),
      "Run `select millrace.allow('<role>', 'watcher')` as the owner of Millrace's schema or a superuser.",
      { cause: error },
    );
  }
  if (error.hint !== undefined)
    return new FeedError("INVALID_REQUEST", sentence(error.message), error.hint, { cause: error });
  return queryError(error, doing);
}

function notWatched(table: string): FeedError {
  return new FeedError(
    "SOURCE_NOT_FOUND",
    `The table ${table} is not watched.`,
    "See `millrace sources` for those that are.",
  );
}
