// From the commit to the client that has the event, at 1,000 events/s in as many transactions, beside what a bare
// LISTEN/NOTIFY client needs at the same rate. The clock starts twice: when COMMIT is sent, which counts the disk in, and
// when it is acknowledged.
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

interface Samples {
  readonly sinceSent: number[];
  readonly sinceAcknowledged: number[];
}
const millrace: Samples = { sinceSent: [], sinceAcknowledged: [] };
const notify: Samples = { sinceSent: [], sinceAcknowledged: [] };
let id = 0;
// In turns, so that a noisy minute is noisy for both.
for (let turn = 0; turn < 4; turn += 1) {
  await measure("millrace", "select millrace.emit('bench', null, $2::json), $1::int", millrace);
  await measure(
    "notify",
    "with t as (insert into plain values ($1::int, $2::json)) select pg_notify('bare', $1::int::text)",
    notify,
  );
}

report(
  "latency",
  [
    line("acknowledged COMMIT to client, p50", "sinceAcknowledged", 0.5, 3),
    line("acknowledged COMMIT to client, p99", "sinceAcknowledged", 0.99, 8),
    line("sent COMMIT to client, p50", "sinceSent", 0.5),
    line("sent COMMIT to client, p99", "sinceSent", 0.99),
  ],
  `${rate} transactions/s of one event of 220 B over ${writers} connections, 4 turns of ${seconds / 4} s each; ${conditions}`,
);

function line(what: string, since: keyof Samples, share: number, reach?: number) {
  const value = percentile(millrace[since], share);
  return {
    what,
    value,
    unit: "ms",
    baseline: { what: "bare LISTEN/NOTIFY", value: percentile(notify[since], share) },
    ...(reach === undefined ? {} : { target: `<= ${reach} ms`, met: value <= reach }),
  };
}

async function measure(mode: "millrace" | "notify", statement: string, samples: Samples): Promise<void> {
  const worker = new Worker(new URL("./latency-client.ts", import.meta.url), {
    workerData: { mode, port: server.port, url: bed.url },
  });
  await once(worker, "message");
  const sent = new Map<number, Times>();
  await Promise.all(connections.map((connection, index) => write(connection, index, statement, sent)));
  await delay(500);
  worker.postMessage("done");
  const [arrivals]: [number, number][][] = await once(worker, "message");
  await worker.terminate();
  if (arrivals?.length !== sent.size) throw new Error(`${mode}: ${sent.size} sent, ${arrivals?.length} arrived`);
  // The first second warms up plans and caches.
  for (const [message, at] of arrivals.slice(rate)) {
    const times = sent.get(message);
    samples.sinceSent.push(at - (times?.sent ?? Number.NaN));
    samples.sinceAcknowledged.push(at - (times?.acknowledged ?? Number.NaN));
  }
}

interface Times {
  readonly sent: number;
  acknowledged: number;
}

/** Paced by the clock, not by answers: a slow commit does not make the next one late. */
async function write(connection: pg.Client, index: number, statement: string, sent: Map<number, Times>): Promise<void> {
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
    const times = { sent: now(), acknowledged: 0 };
    sent.set(own, times);
    await connection.query("commit");
    times.acknowledged = now();
  }
}

/** By the clock that all threads share. */
function now(): number {
  return performance.timeOrigin + performance.now();
}
