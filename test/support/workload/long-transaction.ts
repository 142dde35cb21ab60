import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import type { ChangeLog } from "./change-log.ts";
import { RowChanges } from "./changes.ts";
import { privateKeys } from "./shop.ts";
import { prove } from "./transactions.ts";

/** How long the long transaction stays open: until both hold. */
export interface LongTransaction {
  readonly holdMs: number;
  /** Commits of others while it is open. */
  readonly holdCommits: number;
}

/** Writes early and commits late: its rows have seqs far below those that are settled by then. */
export async function runLongTransaction(
  url: string,
  writer: number,
  log: ChangeLog,
  options: LongTransaction,
  stopping: AbortSignal,
): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  client.on("error", () => {});
  const attempt = log.begin(writer, 1);
  try {
    await client.connect();
    const changes = new RowChanges(writer).on(client);
    await client.query("begin");
    const key = privateKeys + (writer % 100);
    attempt.changes.push(...(await changes.emit(5)), ...(await changes.insert("orders", key)));
    await Promise.all([
      log.untilCommitted(log.committed + options.holdCommits),
      delay(options.holdMs, undefined, { signal: stopping }).catch(() => {}),
    ]);
    attempt.changes.push(...(await changes.update("orders", [key])), ...(await changes.emit(5)));
    await prove(client, attempt);
    await client.query("commit");
    log.acknowledge(attempt);
  } catch {
    // The database went away: `truth` tells what became of it.
  } finally {
    await client.end().catch(() => {});
  }
}
