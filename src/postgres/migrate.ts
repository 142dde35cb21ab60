import { readFile } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { FeedError } from "../core/errors.ts";
import type { Work } from "../core/watchdog/watched-part.ts";
import { rowsOf } from "./catalog.ts";
import { clientConfig, leaveClient } from "./database.ts";
import { connectionError, sentence, sqlState, sqlStateOf } from "./database-error.ts";
import { look } from "./look.ts";
import { type Migration, shippedMigrations } from "./migration-files.ts";
import { appliedMigrations, migrationsReadable, schemaOwner } from "./statements/lookups.ts";
import type { WatchedSessions } from "./watch/watched-sessions.ts";

export type { Migration } from "./migration-files.ts";

/** How to migrate. */
export interface MigrateOptions {
  /** `false` only checks, and rejects when migrations are pending. Default true. */
  readonly apply?: boolean;
  /** How often to try for a lock that others hold, 1 s each, with a growing pause between. Default 10. */
  readonly lockAttempts?: number;
  /** Told each time a lock was not to be had: a sentence that names the pids in the way. */
  readonly onWait?: (sentence: string) => void;
  readonly signal?: AbortSignal;
  /** Who watches the connection. Default: nobody does. */
  readonly watch?: WatchedSessions;
}

/** What `migrate` did. */
export interface MigrationResult {
  /** What this call applied, in order; empty when the database was up to date. */
  readonly applied: readonly Pick<Migration, "number" | "name">[];
  /** The schema's number afterwards. */
  readonly version: number;
}

/** Who migrates holds this: the pg_namespace catalog's oid, so as to stay out of applications' keys, and a number. */
const migrationLock = "2615, 7213";

/**
 * One round trip. Nothing that the role or the database presets may change what the migrations mean or cut them off. But
 * writers queue behind their locks: a process that freezes between two migrations is given up after 3 s.
 */
const beginMigration = `
  begin isolation level read committed read write;
  set local search_path = pg_catalog, pg_temp;
  set local lock_timeout = '1s';
  set local statement_timeout = 0;
  set local idle_in_transaction_session_timeout = '3s';
  set local synchronous_commit = on;
  set local standard_conforming_strings = on;
  set local client_min_messages = warning;
  set local default_tablespace = '';
  select set_config(name, '0', true) from pg_settings where name = 'transaction_timeout'`;

/**
 * The one lock that may have to wait for a writer's transaction, before any other is held. Writers take locks on several
 * tables, in whatever order they call and write: were one of them waited for while another is held, writers would be killed
 * by deadlocks. Whoever has got past this one already is given 50 ms, less than it takes to look for a deadlock; then
 * everything is let go and tried again.
 */
const keepWritersOut = `
  lock table only millrace.outbox in access exclusive mode;
  set local lock_timeout = '50ms'`;

/**
 * Brings the schema `millrace` to the version that this Millrace knows, in one transaction: all of it or nothing. Safe from
 * any number of processes at once and through a transaction-mode pooler. Does nothing, and needs no rights but to read,
 * when the database is up to date.
 *
 * Rejects with INVALID_REQUEST when trying again cannot help: a server older than Postgres 13, a newer schema, a migration
 * that changed after it ran, a role without rights, pending migrations with `apply: false`. With DATABASE_UNAVAILABLE
 * when the database does not answer or others hold locks for too long.
 */
export async function migrate(
  database: string | pg.ClientConfig,
  options: MigrateOptions = {},
): Promise<MigrationResult> {
  const shipped = await shippedMigrations();
  const attempts = options.lockAttempts ?? 10;
  for (let attempt = 1; ; attempt += 1) {
    options.signal?.throwIfAborted();
    const outcome = await withClient(database, (client) => tryMigrate(client, shipped, options.apply ?? true), options);
    if (typeof outcome !== "string") return outcome;
    const told = `Could not lock what the migration changes: ${outcome}.`;
    if (attempt >= attempts) {
      throw new FeedError("DATABASE_UNAVAILABLE", told, "End that session or wait for it, then migrate again.");
    }
    options.onWait?.(told);
    await delay(Math.min(100 * 2 ** attempt, 5000) * (0.5 + Math.random() / 2), undefined, { signal: options.signal });
  }
}

/** The migrations that `migrate` would apply, in order. Changes nothing; rejects as `migrate` does. */
export async function pendingMigrations(database: string | pg.ClientConfig): Promise<readonly Migration[]> {
  const shipped = await shippedMigrations();
  return withClient(database, async (client) => pending(shipped, await migrationsOf(client)));
}

/** The number of the last migration that this database has; 0 when it has none. */
export async function schemaVersion(client: pg.ClientBase): Promise<number> {
  return newestOf(await migrationsOf(client));
}

/** Rejects a server that lacks what the schema needs (xid8 and its snapshots came with 13). */
export function assertServerVersion(serverVersion: string, number: number): void {
  if (number >= 130_000) return;
  throw new FeedError(
    "INVALID_REQUEST",
    `This is Postgres ${serverVersion}; Millrace needs 13 or later.`,
    "Upgrade the server, or name another one in DATABASE_URL.",
  );
}

/** The signal ends it also when the database answers nothing. */
async function withClient<T>(
  database: string | pg.ClientConfig,
  use: (client: pg.Client) => Promise<T>,
  { signal, watch }: Pick<MigrateOptions, "signal" | "watch"> = {},
): Promise<T> {
  const name = { application_name: watch?.applicationName ?? "millrace migrate" };
  const client = new pg.Client(
    typeof database === "string" ? { ...clientConfig({ url: database }), ...name } : { ...name, ...database },
  );
  // A connection that breaks between two queries would otherwise end the process; the next query reports it.
  client.on("error", () => undefined);
  // No `end()`: a connection that is being made would never tell that it has failed.
  const abort = () => client.connection.stream.destroy();
  signal?.addEventListener("abort", abort, { once: true });
  let work: Work | undefined;
  try {
    await client.connect().catch((error: unknown) => {
      throw connectionError(error, client);
    });
    work = watch?.begin(client, abort);
    return await use(client);
  } catch (error) {
    throw signal?.aborted === true ? signal.reason : error;
  } finally {
    signal?.removeEventListener("abort", abort);
    work?.end("done");
    await leaveClient(client);
  }
}

/** A string says who holds a lock in the way. */
async function tryMigrate(
  client: pg.Client,
  shipped: readonly Migration[],
  apply: boolean,
): Promise<MigrationResult | string> {
  const server = await client.query<{ text: string; number: number }>(
    "select current_setting('server_version') as text, current_setting('server_version_num')::int as number",
  );
  for (const { text, number } of server.rows) assertServerVersion(text, number);
  const applied = await migrationsOf(client);
  if (pending(shipped, applied).length === 0) return result([], shipped);
  if (!apply) throw notMigrated(newestOf(applied), newestOf(shipped));
  try {
    await client.query(beginMigration);
    await client.query(`select pg_advisory_xact_lock(${migrationLock})`);
    const todo = await applyPending(client, shipped);
    await client.query("commit");
    return result(todo, shipped);
  } catch (error) {
    await client.query("rollback").catch(() => undefined);
    if (sqlStateOf(error) === sqlState.lockNotAvailable) return lockHolders(client);
    throw migrationError(error);
  }
}

async function applyPending(client: pg.Client, shipped: readonly Migration[]): Promise<readonly Migration[]> {
  // Read again: another process may have migrated while this one waited for the lock.
  const applied = await migrationsOf(client);
  const todo = pending(shipped, applied);
  if (todo.length === 0) return todo;
  if (applied.length === 0) {
    await client.query(await prepareSchema());
  } else {
    await becomeOwner(client);
    await client.query(keepWritersOut);
  }
  for (const migration of todo) {
    await runMigration(client, migration);
    await client.query("insert into millrace.migration (number, name, sha256) values ($1, $2, $3)", [
      migration.number,
      migration.name,
      migration.sha256,
    ]);
  }
  // What a new migration added is granted to those who were allowed before.
  await client.query("select millrace.allow_again()");
  return todo;
}

async function runMigration(client: pg.Client, migration: Migration): Promise<void> {
  try {
    await client.query(migration.sql);
  } catch (error) {
    if (sqlStateOf(error) === sqlState.lockNotAvailable) throw error;
    throw new FeedError(
      "INTERNAL",
      sentence(`migration ${migration.name} failed: ${error instanceof Error ? error.message : String(error)}`),
      "Nothing was changed. Please report it together with the Postgres version.",
      { cause: error },
    );
  }
}

async function prepareSchema(): Promise<string> {
  return readFile(new URL("./statements/prepare_schema.sql", import.meta.url), "utf8");
}

async function becomeOwner(client: pg.Client): Promise<void> {
  for (const { owner, me } of await rowsOf(client, schemaOwner)) {
    try {
      await client.query(`set local role ${pg.escapeIdentifier(owner)}`);
    } catch (error) {
      if (sqlStateOf(error) !== sqlState.insufficientPrivilege) throw error;
      throw new FeedError(
        "INVALID_REQUEST",
        `Schema "millrace" belongs to role "${owner}", which role "${me}" may not become.`,
        `Run \`millrace migrate\` as a superuser, or \`grant ${identifier(owner)} to ${identifier(me)}\` first.`,
        { cause: error },
      );
    }
  }
}

/** As one would write it: quoted only where it must be. */
function identifier(name: string): string {
  return /^[a-z_][a-z0-9_]*$/.test(name) ? name : pg.escapeIdentifier(name);
}

type Applied = Pick<Migration, "number" | "name" | "sha256">;

async function migrationsOf(client: pg.ClientBase): Promise<readonly Applied[]> {
  const [found] = await rowsOf(client, migrationsReadable);
  if (found === undefined) return [];
  if (!found.readable) {
    const role = pg.escapeLiteral(identifier(found.me));
    throw new FeedError(
      "INVALID_REQUEST",
      `Role "${found.me}" may not read the schema "millrace".`,
      `Run \`select millrace.allow(${role}, 'server')\` as the schema's owner or a superuser.`,
    );
  }
  return rowsOf(client, appliedMigrations);
}

function pending(shipped: readonly Migration[], applied: readonly Applied[]): readonly Migration[] {
  const newest = newestOf(applied);
  if (newest > newestOf(shipped)) throw newerSchema(newest, newestOf(shipped));
  const byNumber = new Map(applied.map((migration) => [migration.number, migration]));
  for (const migration of shipped) {
    const ran = byNumber.get(migration.number);
    if (ran !== undefined && ran.sha256 !== migration.sha256) throw changedMigration(migration, ran.name);
  }
  return shipped.filter((migration) => !byNumber.has(migration.number));
}

function newestOf(migrations: readonly Pick<Migration, "number">[]): number {
  return migrations.at(-1)?.number ?? 0;
}

function result(applied: readonly Migration[], shipped: readonly Migration[]): MigrationResult {
  return { applied: applied.map(({ number, name }) => ({ number, name })), version: newestOf(shipped) };
}

async function lockHolders(client: pg.Client): Promise<string> {
  const { rows } = await look(client, () =>
    client.query<{ pid: number | null }>(
      `select distinct pid from pg_catalog.pg_locks
     where granted and pid is distinct from pg_backend_pid()
       and database = (select oid from pg_catalog.pg_database where datname = current_database())
       and (locktype = 'advisory' and (classid, objid) = (${migrationLock})
         or relation in (select c.oid from pg_catalog.pg_class c
                         join pg_catalog.pg_namespace n on n.oid = c.relnamespace where n.nspname = 'millrace'))
     order by pid`,
    ),
  );
  const names = rows.map(({ pid }) => (pid === null ? "a prepared transaction" : `pid ${pid}`));
  return names.length === 0 ? "whoever held it has just let go" : `held by ${names.join(", ")}`;
}

function migrationError(error: unknown): unknown {
  if (error instanceof pg.DatabaseError && error.hint !== undefined) {
    return new FeedError("INVALID_REQUEST", sentence(error.message), error.hint, { cause: error });
  }
  return error;
}

function newerSchema(found: number, known: number): FeedError {
  return new FeedError(
    "INVALID_REQUEST",
    `This database was migrated by a newer Millrace (schema ${found}, this one knows ${known}).`,
    "Upgrade this Millrace, or use another database.",
  );
}

function notMigrated(found: number, known: number): FeedError {
  return new FeedError(
    "INVALID_REQUEST",
    found === 0
      ? "This database has no Millrace schema yet."
      : `This database has schema ${found}, this Millrace needs ${known}.`,
    "Run `millrace migrate` as a role that may create the schema.",
  );
}

function changedMigration(migration: Migration, ranAs: string): FeedError {
  return new FeedError(
    "INVALID_REQUEST",
    `Migration ${migration.number} differs from the one that this database ran (${ranAs}).`,
    "Use the Millrace that migrated this database. One that may be thrown away, like the .millrace directory of a trial, can be deleted and made anew.",
  );
}
