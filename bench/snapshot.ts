// A snapshot of a large table to a gRPC client, beside COPY of the table to a client that drops it; and the server's
// memory while it goes. Then the reader of snapshots alone: in one go, left and gone on with ten times, and through an index
// whose order is not the table's.
import { readFile } from "node:fs/promises";
import { Writable } from "node:stream";
import { pipeline } from "node:stream/promises";
import pg from "pg";
import { to as copyTo } from "pg-copy-streams";
import type { SnapshotPlace } from "../src/core/ports.ts";
import { openSnapshot } from "../src/postgres/snapshot/snapshot.ts";
import { Bed, conditions } from "./bed.ts";
import { benchOptions, report } from "./report.ts";
import { subscribe } from "./wire-client.ts";
import { readEvents, readFrame } from "./wire-reader.ts";

const { seconds } = benchOptions(20);
const count = Math.round(Math.min(1_000_000, seconds * 50_000));

await using bed = await Bed.open();
await bed.sql(
  `create table things as select i as id, 'thing ' || i as name, i * 1.5 as price, now() as made, repeat('x', 60) as padding
   from generate_series(1, ${count}) i`,
);
await bed.sql("alter table things add primary key (id)");
await bed.sql("vacuum analyze things");
await bed.sql("create table scattered as select md5(id::text)::uuid as id, name, price, made, padding from things");
await bed.sql("alter table scattered add primary key (id)");
await bed.sql("vacuum analyze scattered");
await bed.sql("select millrace.watch('things'), millrace.watch('scattered')");
const server = await bed.server();

const idle = await residentBytes(server.pid);
let peak = idle;
const copied = await rate(copyToClient);
const watching = setInterval(() => void residentBytes(server.pid).then((bytes) => (peak = Math.max(peak, bytes))), 100);
const sent = await rate(() => readSnapshot(server.port));
clearInterval(watching);
const pool = new pg.Pool({ connectionString: bed.url, max: 3 });
const [{ id: epoch } = { id: "" }] = await bed.sql<{ id: string }>("select id from millrace.epoch");
const whole = await rate(() => readParts("things", count));
const cut = await rate(() => readParts("things", Math.ceil(count / 10)));
const scattered = await rate(() => readParts("scattered", count));
await pool.end();

report(
  "snapshot",
  [
    {
      what: `snapshot of ${count} rows to a gRPC client`,
      value: sent,
      unit: "rows/s",
      baseline: { what: "COPY (select to_json(row)) to a client that drops it", value: copied },
      target: ">= 200 k/s",
      met: sent >= 200_000,
    },
    {
      what: "the server's memory at its peak",
      value: peak / 2 ** 20,
      unit: "MiB",
      baseline: { what: "idle", value: idle / 2 ** 20 },
    },
    { what: "its reader alone, in one go", value: whole, unit: "rows/s" },
    {
      what: "the same, left and gone on with ten times",
      value: cut,
      unit: "rows/s",
      baseline: { what: "in one go", value: whole },
    },
    {
      what: "the same, rows in no order of their key",
      value: scattered,
      unit: "rows/s",
      baseline: { what: "in the order of their key", value: whole },
    },
  ],
  conditions,
);

/** Reads a topic's snapshot, and each time after so many rows goes on with another. */
async function readParts(topic: string, rowsEach: number): Promise<number> {
  let place: SnapshotPlace | undefined;
  let rows = 0;
  while (rows < count) {
    const request = { wantsSource: (name: string) => name === topic, after: place };
    const reader = await openSnapshot(pool, epoch, request, {}, new AbortController().signal);
    const end = Math.min(count, rows + rowsEach);
    for await (const { events } of reader.rows()) {
      const some = events.slice(0, end - rows);
      rows += some.length;
      place = { shape: reader.shape, sources: 0, key: some.at(-1)?.key, rows };
      if (rows >= end) break;
    }
    await reader.close();
  }
  return rows;
}

async function rate(drain: () => Promise<number>): Promise<number> {
  const begun = performance.now();
  const rows = await drain();
  if (rows !== count) throw new Error(`${rows} rows instead of ${count}`);
  return rows / ((performance.now() - begun) / 1000);
}

async function copyToClient(): Promise<number> {
  const connection = await bed.connection();
  const stream = connection.query(copyTo("copy (select id::text, to_json(t) from things t order by id) to stdout"));
  await pipeline(stream, new Writable({ write: (_chunk, _encoding, done) => done() }));
  return stream.rowCount;
}

function readSnapshot(port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    let rows = 0;
    const stream = subscribe(
      port,
      { start: { case: "snapshot", value: {} }, selectors: [{ topics: ["things"] }] },
      (message) => {
        const frame = readFrame(message);
        if (frame.kind === 2) rows += readEvents(frame.body, undefined);
        if (frame.kind !== 6) return;
        stream.cancel();
        resolve(rows);
      },
    );
    stream.ended.catch(reject);
  });
}

async function residentBytes(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, "utf8").catch(() => "");
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1] ?? 0) * 1024;
}
