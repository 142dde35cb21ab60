// A snapshot of a large table to a gRPC client, beside COPY of the table to a client that drops it; and the server's
// memory while it goes.
import { readFile } from "node:fs/promises";
import { Writable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { to as copyTo } from "pg-copy-streams";
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
await bed.sql("select millrace.watch('things')");
const server = await bed.server();

const idle = await residentBytes(server.pid);
let peak = idle;
const copied = await rate(copyToClient);
const watching = setInterval(() => void residentBytes(server.pid).then((bytes) => (peak = Math.max(peak, bytes))), 100);
const sent = await rate(() => readSnapshot(server.port));
clearInterval(watching);

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
  ],
  conditions,
);

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
    const stream = subscribe(port, { start: { case: "snapshot", value: {} } }, (message) => {
      const frame = readFrame(message);
      if (frame.kind === 2) rows += readEvents(frame.body, undefined);
      if (frame.kind !== 6) return;
      stream.cancel();
      resolve(rows);
    });
    stream.ended.catch(reject);
  });
}

async function residentBytes(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, "utf8").catch(() => "");
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1] ?? 0) * 1024;
}
