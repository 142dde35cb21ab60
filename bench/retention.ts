// What keeping the outbox costs those beside it: from the commit to the client, and what a writer waits for, at 1,000
// events/s, while some partition is made, left behind and dropped all the time, beside the same with nothing to forget. In
// turns on one server. Partitions hold 2,000 events here and 10 s are kept, so that it happens thousands of times as often
// as it does in a week.
import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import type pg from "pg";
import { createKeeper } from "../src/postgres/retention/keeper.ts";
import { Bed, conditions } from "./bed.ts";
import { benchOptions, percentile, report } from "./report.ts";

const rate = 1000;
const writers = 8;
const width = 2000;
const turns = 6;
const { seconds } = benchOptions(60);

await using bed = await Bed.open();
const server = await bed.server();
const connections = await Promise.all(Array.from({ length: writers }, () => bed.connection()));
const admin = await bed.connection();
await admin.query("alter table millrace.retention drop constraint retention_keep_age_check");

interface Samples {
  readonly toClient: number[];
  readonly toWriter: number[];
}
const beside: Samples = { toClient: [], toWriter: [] };
const alone: Samples = { toClient: [], toWriter: [] };
let id = 0;
let dropped = 0;
let refused = 0;
for (let turn = 0; turn < turns; turn += 1) {
  await admin.query("update millrace.retention set keep_age = '10 years'");
  await measure(alone);
  await narrowPartitions();
  await admin.query("update millrace.retention set keep_age = '2 seconds'");
  const keeper = createKeeper({
    url: bed.url,
    intervalMs: 250,
    onRound: (upkeep) => {
      dropped += upkeep.dropped.length;
      refused += upkeep.waitsFor === undefined ? 0 : 1;
    },
  });
  await keeper.start(new AbortController().signal);
  await measure(beside);
  await keeper.stop();
}

report(
  "retention",
  [
    line("acknowledged COMMIT to client, p50", "toClient", 0.5),
    line("acknowledged COMMIT to client, p99", "toClient", 0.99),
    line("a writer's transaction, p50", "toWriter", 0.5),
    line("a writer's transaction, p99", "toWriter", 0.99),
    line("a writer's transaction, the longest", "toWriter", 1),
    { what: "partitions dropped meanwhile", value: dropped, unit: "" },
    { what: "rounds in which a lock was not to be had in 0.2 s", value: refused, unit: "" },
  ],
  `${rate} transactions/s of one event of 220 B over ${writers} connections, ${turns} turns of ${seconds / turns / 2} s each; ${conditions}`,
);

function line(what: string, which: keyof Samples, share: number) {
  return {
    what,
    value: percentile(beside[which], share),
    unit: "ms",
    baseline: { what: "nothing to forget", value: percentile(alone[which], share) },
  };
}

/** Enough of them for a turn, behind those that the server has made ahead; and the sequence at their beginning. */
async function narrowPartitions(): Promise<void> {
  const count = Math.ceil((rate * seconds) / turns / 2 / width) + 4;
  await admin.query(`do $$
    declare
      first bigint := (select max(upper_seq) from millrace.partitions());
    begin
      execute format('set local role %I', (select nspowner::regrole from pg_namespace where nspname = 'millrace'));
      for part in 0..${count} loop
        perform millrace.create_partition(first + part * ${width}, first + (part + 1) * ${width});
      end loop;
      perform setval('millrace.outbox_seq', first, false);
    end $$`);
}

async function measure(samples: Samples): Promise<void> {
  const worker = new Worker(new URL("./latency-client.ts", import.meta.url), {
    workerData: { mode: "millrace", port: server.port, url: bed.url },
  });
  await once(worker, "message");
  const acknowledged = new Map<number, { readonly at: number; readonly tookMs: number }>();
  await Promise.all(connections.map((connection, index) => write(connection, index, acknowledged)));
  await delay(500);
  worker.postMessage("done");
  const [arrivals]: [number, number][][] = await once(worker, "message");
  await worker.terminate();
  if (arrivals?.length !== acknowledged.size) throw new Error(`${acknowledged.size} sent, ${arrivals?.length} arrived`);
  // The first second warms up plans and caches.
  for (const [message, at] of arrivals.slice(rate)) {
    const own = acknowledged.get(message);
    samples.toClient.push(at - (own?.at ?? Number.NaN));
    samples.toWriter.push(own?.tookMs ?? Number.NaN);
  }
}

/** Paced by the clock, not by answers: a slow commit does not make the next one late. */
async function write(
  connection: pg.Client,
  index: number,
  acknowledged: Map<number, { readonly at: number; readonly tookMs: number }>,
): Promise<void> {
  const begun = performance.now();
  const period = (1000 / rate) * writers;
  for (let n = 0; n * period < (seconds / turns / 2) * 1000; n += 1) {
    const early = begun + (period / writers) * index + n * period - performance.now();
    if (early > 0) await delay(early);
    id += 1;
    const own = id;
    const began = performance.now();
    await connection.query({
      name: "emit",
      text: "select millrace.emit('bench', null, $2::json), $1::int",
      values: [own, JSON.stringify({ id: own, padding: "x".repeat(200) })],
    });
    acknowledged.set(own, { at: performance.timeOrigin + performance.now(), tookMs: performance.now() - began });
  }
}
