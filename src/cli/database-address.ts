import { resolve } from "node:path";
import { type Command, Option } from "commander";
import pg from "pg";
import { findRunning } from "../embedded/embedded-postgres.ts";
import { createPool } from "../postgres/database.ts";
import { connectionError } from "../postgres/database-error.ts";
import { usageFailure } from "./failure.ts";
import type { Terminal } from "./terminal.ts";

/** Where the embedded Postgres lives unless told otherwise, below the current directory. */
export const defaultDataDirectory = ".millrace";

/** The options that say which database a command works on. */
export interface DatabaseOptions {
  readonly databaseUrl?: string;
  /** The same in short. */
  readonly database?: string;
  readonly dataDir?: string;
}

/** Adds them to a command. */
export function withDatabaseOptions(command: Command): Command {
  return command
    .option("--database-url <url>", "Postgres (default: $DATABASE_URL, else the embedded one that runs here)")
    .addOption(new Option("--database <url>").hideHelp())
    .option("--data-dir <directory>", `of the embedded Postgres (default: ${defaultDataDirectory})`);
}

/** The options in the order in which they count: flag, DATABASE_URL. `undefined` leaves the embedded Postgres. */
export function givenDatabase(options: DatabaseOptions, terminal: Terminal): string | undefined {
  return options.databaseUrl ?? options.database ?? (terminal.environment.DATABASE_URL || undefined);
}

/** The data directory, absolute. */
export function dataDirectory(option: string | undefined, terminal: Terminal): string {
  return resolve(terminal.directory, option ?? (terminal.environment.MILLRACE_DATA_DIR || defaultDataDirectory));
}

/** The database to work on. A usage failure when none is named and no embedded one runs. */
export async function databaseUrl(options: DatabaseOptions, terminal: Terminal): Promise<string> {
  const given = givenDatabase(options, terminal);
  if (given !== undefined) {
    if (/^postgres(ql)?:$/.test(URL.parse(given)?.protocol ?? "")) return given;
    throw usageFailure("the database is not given as a URL.", "Write postgres://user:password@host:5432/database.");
  }
  const directory = dataDirectory(options.dataDir, terminal);
  const running = await findRunning(directory);
  if (running !== undefined) return running.url;
  throw usageFailure(
    `no database is named, and no embedded Postgres runs in ${directory}.`,
    "Give --database-url or DATABASE_URL, or start the embedded one: `millrace start`.",
  );
}

/** Lends a connection to that database, and closes it. Failures to connect say what to do. */
export async function withDatabase<T>(
  options: DatabaseOptions,
  terminal: Terminal,
  use: (client: pg.Client) => Promise<T>,
): Promise<T> {
  const client = new pg.Client({
    connectionString: await databaseUrl(options, terminal),
    application_name: "millrace cli",
    connectionTimeoutMillis: 10_000,
  });
  // The query at hand reports a connection that breaks.
  client.on("error", () => undefined);
  try {
    await client.connect();
  } catch (error) {
    await client.end().catch(() => undefined);
    throw connectionError(error, client);
  }
  try {
    return await use(client);
  } finally {
    await client.end();
  }
}

/** Lends a pool of two connections to that database, and ends it. Fails to connect as `withDatabase` does. */
export async function withDatabasePool<T>(
  options: DatabaseOptions,
  terminal: Terminal,
  use: (pool: pg.Pool) => Promise<T>,
): Promise<T> {
  await withDatabase(options, terminal, () => Promise.resolve());
  const pool = createPool({ url: await databaseUrl(options, terminal), max: 2, idleMs: 1000 });
  try {
    return await use(pool);
  } finally {
    await pool.end();
  }
}

/** A database URL that may be shown: without its password. */
export function withoutPassword(url: string): string {
  const parsed = URL.parse(url);
  if (parsed === null) return "postgres://…";
  if (parsed.password !== "") parsed.password = "***";
  parsed.search = "";
  return parsed.href;
}
