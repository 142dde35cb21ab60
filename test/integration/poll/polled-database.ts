import type pg from "pg";
import { type PollLimits, pollTransaction } from "../../../src/postgres/poll/statements.ts";
import { outline, type WatchedDatabase } from "../capture/watched-database.ts";

const limits: PollLimits = { maxRows: 2000, maxBytes: 8 * 1024 * 1024, statementTimeoutMs: 30_000 };

/** One batch of the only polled table, whether it is due or not; `undefined` when another session is at it. */
export async function pollBatch(
  database: WatchedDatabase,
  client: pg.Client = database.client,
  own: Partial<PollLimits> = {},
): Promise<{ readonly told: number; readonly more: boolean } | undefined> {
  const id = await database.value<number>("select source_id from millrace.poll");
  const epoch = await database.value<string>("select millrace.assert_epoch()");
  await database.run("update millrace.poll set next_at = clock_timestamp() where next_at > clock_timestamp()");
  try {
    const results: unknown = await client.query(pollTransaction(id, epoch, { ...limits, ...own }));
    const answers = results as readonly pg.QueryResult<{ told: number | null; more: boolean }>[];
    const row = answers.find(({ command }) => command === "SELECT")?.rows[0];
    return row === undefined || row.told === null ? undefined : { told: row.told, more: row.more };
  } catch (error) {
    await client.query("rollback");
    throw error;
  }
}

/** A whole look: all of its batches. What it told, as `operation topic key`. */
export async function look(database: WatchedDatabase, own: Partial<PollLimits> = {}): Promise<readonly string[]> {
  const before = (await database.written()).length;
  while ((await pollBatch(database, database.client, own))?.more === true);
  return outline((await database.written()).slice(before));
}
