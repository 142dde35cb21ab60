// A backlog of a million events consumed by a group of four, by one subscription and by a bare stream, in turn; the same again,
// delivered anew. Then 100 subscriptions that are consumed, alone and beside 9,900 that are not.
import { Bed, conditions } from "./bed.ts";
import { Consumer, cpuMs, residentMiB, subscriptionsOf } from "./consumers.ts";
import { benchOptions, type Measurement, percentile, report } from "./report.ts";
import { subscribe } from "./wire-client.ts";
import { readEvents, readFrame } from "./wire-reader.ts";

const { seconds } = benchOptions(20);
const backlog = Math.round(Math.min(1_000_000, seconds * 50_000));
const turns = 3;
const every = 1_000;
const members = 4;
const active = 100;
const many = 10_000;

await using bed = await Bed.open({
  shared_preload_libraries: "pg_stat_statements",
  "pg_stat_statements.track": "top",
});
await bed.sql("create extension pg_stat_statements");
await fill();
const server = await bed.server();
const subscriptions = subscriptionsOf(server.port);

interface Cost {
  readonly rate: number;
  readonly cpuUs: number;
  readonly statements: number;
  readonly transactions: number;
}

const lines: Measurement[] = [];
await consumeBacklog();
await holdMany();
report(
  "subscriptions",
  lines,
  `${backlog} events of 250 B on 10,000 keys, best of ${turns} turns of each, acknowledged every ${every} without waiting; ${conditions}`,
);

async function consumeBacklog(): Promise<void> {
  let [bare, one, silent, again, group]: (Cost | undefined)[] = [];
  for (let turn = 0; turn < turns; turn += 1) {
    bare = better(bare, await measure(readBare));
    await create(`one-${turn}`);
    one = better(one, await measure((onEvents) => consume(`one-${turn}`, 1, every, onEvents)));
    await create(`again-${turn}`);
    silent = better(silent, await measure((onEvents) => consume(`again-${turn}`, 1, 0, onEvents)));
    again = better(again, await measure((onEvents) => consume(`again-${turn}`, 1, every, onEvents)));
    await create(`group-${turn}`, { maxInFlight: 20_000 });
    group = better(group, await measure((onEvents) => consume(`group-${turn}`, members, every, onEvents)));
  }
  if (bare === undefined) return;
  for (const [what, cost] of [
    ["one subscription", one],
    ["the same, nothing acknowledged", silent],
    ["that one, delivered for the second time", again],
    [`a group of ${members}`, group],
  ] as const) {
    if (cost === undefined) continue;
    const beside = (value: number) => ({ baseline: { what: "a bare Subscribe", value } });
    lines.push(
      { what: `backlog by ${what}`, value: cost.rate, unit: "events/s", ...beside(bare.rate) },
      { what: "the server's CPU for an event", value: cost.cpuUs, unit: "us", ...beside(bare.cpuUs) },
      { what: "statements for 1,000 events", value: cost.statements, unit: "", ...beside(bare.statements) },
      { what: "transactions for 1,000 events", value: cost.transactions, unit: "", ...beside(bare.transactions) },
    );
  }
}

function better(a: Cost | undefined, b: Cost): Cost {
  return a === undefined || b.rate > a.rate ? b : a;
}

async function create(subscriptionId: string, group?: { readonly maxInFlight: number }): Promise<void> {
  await subscriptions.createSubscription({
    subscriptionId,
    start: { case: "afterVersion", value: 0n },
    ...(group !== undefined && { group }),
  });
}

/** Until all of the backlog has come. */
async function measure(drain: (onEvents: (count: number) => void) => () => Promise<void>): Promise<Cost> {
  const before = { ...(await database()), cpu: cpuMs(server.pid) };
  const all = Promise.withResolvers<void>();
  let events = 0;
  const begun = performance.now();
  const end = drain((count) => {
    events += count;
    if (events >= backlog) all.resolve();
  });
  await all.promise;
  const took = (performance.now() - begun) / 1000;
  await end();
  if (events !== backlog) throw new Error(`${events} events instead of ${backlog}`);
  const after = await database();
  return {
    rate: backlog / took,
    cpuUs: ((cpuMs(server.pid) - before.cpu) * 1000) / backlog,
    statements: ((after.statements - before.statements) * 1000) / backlog,
    transactions: ((after.transactions - before.transactions) * 1000) / backlog,
  };
}

function readBare(onEvents: (count: number) => void): () => Promise<void> {
  const stream = subscribe(server.port, { start: { case: "oldest", value: {} } }, (message) => {
    const { kind, body } = readFrame(message);
    if (kind === 2) onEvents(readEvents(body, undefined));
  });
  return async () => stream.cancel();
}

function consume(subscriptionId: string, count: number, acknowledgeEvery: number, onEvents: (count: number) => void) {
  const consumers = Array.from({ length: count }, () => {
    const isMember = count > 1;
    return new Consumer({
      ...{ port: server.port, subscriptions, subscriptionId, isMember, acknowledgeEvery, onEvents },
      onFailure: fail,
    });
  });
  return async () => void (await Promise.all(consumers.map((consumer) => consumer.end())));
}

/** In ticks of up to 20,000, as steady traffic would have left them. */
async function fill(): Promise<void> {
  const connection = await bed.connection();
  for (let from = 1; from <= backlog; from += 20_000) {
    await connection.query(
      `insert into millrace.outbox (topic, key, operation, after)
       select 'bench', (i % 10000)::text, 'M', json_build_object('id', i, 'padding', repeat('x', 200))
       from generate_series($1::int, $2::int) i`,
      [from, Math.min(backlog, from + 19_999)],
    );
    await connection.query(
      "begin isolation level read committed; set local synchronous_commit = on; select millrace.tick(); commit",
    );
  }
  await connection.query("vacuum analyze millrace.outbox");
}

/** So far. */
async function database(): Promise<{ readonly statements: number; readonly transactions: number }> {
  const [row] = await bed.sql<{ statements: string; transactions: string }>(
    `select (select sum(calls) from pg_stat_statements) as statements,
       (select xact_commit + xact_rollback from pg_stat_database where datname = current_database()) as transactions`,
  );
  return { statements: Number(row?.statements), transactions: Number(row?.transactions) };
}

interface Held {
  readonly idle: number;
  readonly flowing: number;
  readonly residentMiB: number;
  readonly cpuShare: number;
  readonly list: number;
  readonly get: number;
  readonly readyz: number;
  readonly metrics: number;
}

async function holdMany(): Promise<void> {
  await createMany(0, active);
  let events = 0;
  const consumers = Array.from({ length: active }, (_, at) => {
    const subscriptionId = `many-${at}`;
    const onEvents = (count: number) => {
      events += count;
    };
    return new Consumer({
      port: server.port,
      subscriptions,
      subscriptionId,
      acknowledgeEvery: 1,
      onEvents,
      onFailure: fail,
    });
  });
  const few = await held();
  await createMany(active, many);
  const all = await held();
  if (events === 0) throw new Error("nothing came");
  await Promise.all(consumers.map((consumer) => consumer.end()));
  const line = (what: string, key: keyof Held, unit: string): Measurement => ({
    what,
    value: all[key],
    unit,
    baseline: { what: `${active} subscriptions in all`, value: few[key] },
  });
  lines.push(
    line(`${many} subscriptions, ${active} of them consumed, nothing to deliver`, "idle", "statements/s"),
    line("the same, 1,000 events/s, each acknowledged", "flowing", "statements/s"),
    line("the server's core meanwhile", "cpuShare", ""),
    line("the server's memory", "residentMiB", "MiB"),
    line("ListSubscriptions, 100 of them, p50", "list", "ms"),
    line("GetSubscription, p50", "get", "ms"),
    line("/readyz, p50", "readyz", "ms"),
    line("/metrics, p50", "metrics", "ms"),
  );
}

async function createMany(from: number, to: number): Promise<void> {
  for (let at = from; at < to; at += 50) {
    await Promise.all(
      Array.from({ length: Math.min(50, to - at) }, (_, n) =>
        subscriptions.createSubscription({
          subscriptionId: `many-${at + n}`,
          selectors: [{ topics: [`many.${at + n}`] }],
          owner: `owner-${(at + n) % 10}`,
          labels: { shard: String((at + n) % 7) },
        }),
      ),
    );
  }
}

async function held(): Promise<Held> {
  const seen = { residentMiB: residentMiB(server.pid), idle: await statementsPerSecond() };
  const asked = {
    list: await latency(() => subscriptions.listSubscriptions({ pageSize: 100 })),
    get: await latency(() => subscriptions.getSubscription({ subscriptionId: "many-7" })),
    readyz: await latency(() => fetch(`http://127.0.0.1:${server.port}/readyz`).then((answer) => answer.text())),
    metrics: await latency(() => fetch(`http://127.0.0.1:${server.port}/metrics`).then((answer) => answer.text())),
  };
  const stop = new AbortController();
  const flow = emitSteadily(stop.signal);
  const cpu = cpuMs(server.pid);
  const begun = performance.now();
  const flowing = await statementsPerSecond();
  const cpuShare = (cpuMs(server.pid) - cpu) / (performance.now() - begun);
  stop.abort();
  await flow;
  return { ...seen, flowing, cpuShare, ...asked };
}

async function statementsPerSecond(): Promise<number> {
  const before = await database();
  const begun = performance.now();
  await pause((seconds / 4) * 1000);
  const took = (performance.now() - begun) / 1000;
  return ((await database()).statements - before.statements) / took;
}

/** Ten each ten milliseconds, on the topics of those that are consumed. */
async function emitSteadily(signal: AbortSignal): Promise<void> {
  const writer = await bed.connection();
  const begun = performance.now();
  for (let turn = 0; !signal.aborted; turn += 1) {
    await writer.query(
      `select millrace.emit('many.' || ($1 * 10 + n) % ${active}, n::text, json_build_object('padding', repeat('x', 200)))
       from generate_series(1, 10) n`,
      [turn],
    );
    await pause(Math.max(0, begun + turn * 10 - performance.now()));
  }
}

async function latency(ask: () => Promise<unknown>): Promise<number> {
  const samples: number[] = [];
  for (let turn = 0; turn < 50; turn += 1) {
    const begun = performance.now();
    await ask();
    samples.push(performance.now() - begun);
  }
  return percentile(samples, 0.5);
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

function fail(error: unknown): void {
  process.stderr.write(`${String(error)}\n`);
  process.exit(1);
}
