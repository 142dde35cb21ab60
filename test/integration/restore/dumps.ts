import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { query } from "../../support/restores.ts";

const run = promisify(execFile);
const programs = "/usr/lib/postgresql/15/bin";

/** Dumps a database as a script. */
export async function dumpOf(url: string, ...options: readonly string[]): Promise<string> {
  const { stdout } = await run(`${programs}/pg_dump`, [...options, url], { maxBuffer: 2 ** 26 });
  return stdout;
}

/** Runs a script as psql does, each statement in a transaction of its own. */
export async function restoreInto(url: string, script: string): Promise<void> {
  const restoring = run(`${programs}/psql`, ["--quiet", "--no-psqlrc", "--set=ON_ERROR_STOP=1", url], {
    maxBuffer: 2 ** 26,
  });
  // When psql gives up, its own words say why.
  restoring.child.stdin?.on("error", () => undefined).end(script);
  await restoring;
}

/** Takes everything out of a database that the tests have put there. */
export async function empty(url: string): Promise<void> {
  await query(url, "drop schema millrace cascade");
  await query(url, "drop schema public cascade");
  await query(url, "create schema public");
}
