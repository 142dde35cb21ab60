import pg from "pg";
import type { SnapshotPlace } from "../../../src/core/ports.ts";
import { openSnapshot } from "../../../src/postgres/snapshot/snapshot.ts";
import { until } from "../../support/deadline.ts";

/**
 * Reads a whole snapshot as slowly as can be: a batch, and the next ones only when the database transaction is over, so that
 * every copy comes to the bounds of its spool. Tells what it read and what memory that took. Run by `slow-client.test.ts`.
 */
const [, , url, epoch = "", directory] = process.argv;
const pool = new pg.Pool({ connectionString: url, max: 3 });
const watcher = new pg.Client({ connectionString: url });
await watcher.connect();
const bounds = { memoryBytes: 4 * 2 ** 20, cutBytes: 32 * 2 ** 20, directory };
const most = { rss: 0, heap: 0, buffers: 0 };
const begun = sample();
let place: SnapshotPlace | undefined;
let rows = 0;
let snapshots = 0;
let disorder = 0;
let batches = 0;
for (let cut = true; cut; ) {
  const request = { wantsSource: () => true, after: place };
  const reader = await openSnapshot(pool, epoch, request, bounds, new AbortController().signal);
  if (snapshots > 0 && !reader.resumed) throw new Error("begun anew");
  snapshots += 1;
  let first = true;
  for await (const { part, events } of reader.rows()) {
    if (first) await until("the transaction is over", isOver);
    first = false;
    for (const { key } of events) {
      rows += 1;
      if (Number(key) !== rows) disorder += 1;
    }
    if (events.length > 0) place = { shape: reader.shape, sources: part, key: events.at(-1)?.key, rows };
    batches += 1;
    if (batches % 40 === 0) sample();
  }
  cut = reader.cut;
  await reader.close();
}
await watcher.end();
await pool.end();
process.stdout.write(JSON.stringify({ rows, snapshots, disorder, begun, most }));

async function isOver(): Promise<boolean> {
  const open = await watcher.query(
    `select from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()
     and backend_type = 'client backend' and xact_start is not null and query like '%copy (%'`,
  );
  return open.rowCount === 0;
}

function sample(): { readonly rss: number; readonly heap: number; readonly buffers: number } {
  // What is held, and not what is yet to be collected.
  globalThis.gc?.();
  const { rss, heapUsed, arrayBuffers } = process.memoryUsage();
  most.rss = Math.max(most.rss, rss);
  most.heap = Math.max(most.heap, heapUsed);
  most.buffers = Math.max(most.buffers, arrayBuffers);
  return { rss, heap: heapUsed, buffers: arrayBuffers };
}
