// From the COMMIT that a writer sends to the client that has the event, at 1,000 events/s in as many transactions, beside
// what a bare LISTEN/NOTIFY client needs for a message of the same size at the same rate.
import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import type pg from "pg";
import { Bed, conditions } from "./bed.ts";
import { benchOptions, percentile, report } from "./report.ts";

const rate = 1000;
const writers = 8;
const { seconds } = benchOptions(20);

await using bed = await Bed.open();
await bed.sql("create table plain (id int primary key, payload json)");
const server = await bed.server();
const connections = await Promise.all(Array.from({ length: writers }, () => bed.connection()));
const payload = (id: number) => JSON.stringify({ id, padding: "x".repeat(200) });

const millrace: number[] = [];
const notify: number[] = [];
let id = 0;
// In turns, so that a noisy minute is noisy for both.
for (let turn = 0; turn < 4; turn += 1) {
  millrace.push(...(await measure("millrace", "select millrace.emit('bench', null, $2::json), $1::int")));
  notify.push(
    ...(await measure(
      "notify",
      "with t as (insert into plain values ($1::int, $2::json)) select pg_notify('bare', $1::int::text)",
    )),
  );
}

report(
  "latency",
  [line("p50", 0.5, 3), line("p99", 0.99, 8), line("p99.9", 0.999, undefined)],
  `${rate} transactions/s of one event of 220 B over ${writers} connections, 4 turns of ${seconds / 4} s each; from sending COMMIT to arrival, less nothing; ${conditions}`,
);

function line(name: string, share: number, reach: number | undefined) {
  const value = percentile(millrace, share);
  return {
    what: `COMMIT to client, ${name}`,
    value,
    unit: "ms",
    baseline: { what: "bare LISTEN/NOTIFY", value: percentile(notify, share) },
    ...(reach === undefined ? {} : { target: `<= ${reach} ms`, met: value <= reach }),
  };
}

async function measure(mode: "millrace" | "notify", statement: string): Promise<readonly number[]> {
  const worker = new Worker(new URL("./latency-client.ts", import.meta.url), {
    workerData: { mode, port: server.port, url: bed.url },
  });
  await once(worker, "message");
  const sent = new Map<number, number>();
  await Promise.all(connections.map((connection, index) => write(connection, index, statement, sent)));
  await delay(500);
  worker.postMessage("done");
  const [arrivals]: [number, number][][] = await once(worker, "message");
  await once(worker, "exit");
  const latencies = (arrivals ?? []).map(([message, at]) => at - (sent.get(message) ?? Number.NaN));
  if (latencies.length !== sent.size) throw new Error(`${mode}: ${sent.size} sent, ${latencies.length} arrived`);
  // The first second warms up plans and caches.
  return latencies.slice(rate);
}

/** Paced by the clock, not by answers: a slow commit does not make the next one late. */
async function write(
  connection: pg.Client,
  index: number,
  statement: string,
  sent: Map<number, number>,
): Promise<void> {
  const begun = performance.now();
  const period = (1000 / rate) * writers;
  const offset = (period / writers) * index;
  for (let n = 0; n * period < (seconds / 4) * 1000; n += 1) {
    const early = begun + offset + n * period - performance.now();
    if (early > 0) await delay(early);
    id += 1;
    const own = id;
    await connection.query("begin");
    await connection.query({ name: statement.slice(0, 40), text: statement, values: [own, payload(own)] });
    sent.set(own, performance.timeOrigin + performance.now());
    await connection.query("commit");
  }
}
