// A cold cursor: how fast a million settled events come out of the table, into this process as pages, and to a gRPC client,
// beside COPY of the same rows, to a file on the server and to a client that throws them away.
import { join } from "node:path";
import { Writable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { to as copyTo } from "pg-copy-streams";
import { createPostgresStore } from "../src/postgres/store.ts";
import { Bed, conditions } from "./bed.ts";
import { benchOptions, report } from "./report.ts";
import { subscribe } from "./wire-client.ts";
import { readEvents, readFrame } from "./wire-reader.ts";

const { seconds } = benchOptions(20);
const count = Math.round(Math.min(1_000_000, seconds * 50_000));
const turns = 3;
const columns = "xid, seq, topic, key, operation, before, after, headers, occurred_at";
const source = `copy (select ${columns} from millrace.outbox order by seq)`;

await using bed = await Bed.open();
await fill();
const server = await bed.server();
const best = { pages: 0, client: 0, copyClient: 0, copyFile: 0 };
for (let turn = 0; turn < turns; turn += 1) {
  best.copyFile = Math.max(best.copyFile, await rate(copyToFile));
  best.copyClient = Math.max(best.copyClient, await rate(copyToClient));
  best.pages = Math.max(best.pages, await rate(readPages));
  best.client = Math.max(best.client, await rate(() => readStream(server.port)));
}

report(
  "history",
  [
    {
      what: "from a cold cursor into this process, as pages",
      value: best.pages,
      unit: "events/s",
      baseline: { what: "COPY to a client that drops it", value: best.copyClient },
      target: ">= 800 k/s",
      met: best.pages >= 800_000,
    },
    {
      what: "from a cold cursor to a gRPC client",
      value: best.client,
      unit: "events/s",
      baseline: { what: "COPY to a file on the server", value: best.copyFile },
      target: ">= 300 k/s",
      met: best.client >= 300_000,
    },
  ],
  `${count} events of 250 B, best of ${turns} turns of each; ${conditions}`,
);

/** In ticks of up to 20,000, as steady traffic would have left them. */
async function fill(): Promise<void> {
  const connection = await bed.connection();
  for (let from = 1; from <= count; from += 20_000) {
    await connection.query(
      `insert into millrace.outbox (topic, key, operation, after)
       select 'bench', i::text, 'M', json_build_object('id', i, 'padding', repeat('x', 200))
       from generate_series($1::int, $2::int) i`,
      [from, Math.min(count, from + 19_999)],
    );
    await connection.query(
      "begin isolation level read committed; set local synchronous_commit = on; select millrace.tick(); commit",
    );
  }
  await connection.query("vacuum analyze millrace.outbox");
}

async function rate(drain: () => Promise<number>): Promise<number> {
  const begun = performance.now();
  const events = await drain();
  if (events !== count) throw new Error(`${events} events instead of ${count}`);
  return events / ((performance.now() - begun) / 1000);
}

async function copyToFile(): Promise<number> {
  await bed.sql(`${source} to '${join(bed.cluster.dataDir, "bench.copy")}'`);
  return count;
}

async function copyToClient(): Promise<number> {
  const connection = await bed.connection();
  let rows = 0;
  const stream = connection.query(copyTo(`${source} to stdout`));
  await pipeline(stream, new Writable({ write: (_chunk, _encoding, done) => done() }));
  rows = stream.rowCount;
  return rows;
}

async function readPages(): Promise<number> {
  const signal = new AbortController().signal;
  const store = createPostgresStore({ url: bed.url });
  await store.start(signal);
  let version = 0;
  for (;;) {
    const page = await store.readAfter(version, signal);
    if (page === undefined) break;
    version += page.events.length;
  }
  await store.stop();
  return version;
}

function readStream(port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    let events = 0;
    const stream = subscribe(port, { start: { case: "oldest", value: {} } }, (message) => {
      const frame = readFrame(message);
      if (frame.kind === 2) events += readEvents(frame.body, undefined);
      if (events < count) return;
      stream.cancel();
      resolve(events);
    });
    stream.ended.catch(reject);
  });
}
