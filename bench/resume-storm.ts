// A server is killed with ten thousand streams on it, comes back five seconds later, and all of them resume at once: how long
// until every one is live, what the database is asked for, and how long commits wait for their tick meanwhile, beside the
// same server without a storm. Then the same with positions below what the server holds in memory: pages of the table,
// shared.
import { fork } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import type pg from "pg";
import { startServerProcess } from "../test/support/server-process.ts";
import { Bed, conditions } from "./bed.ts";
import { benchOptions, type Measurement, percentile, report } from "./report.ts";
import { type Answer, type Order, topic } from "./resume-client.ts";

const { seconds } = benchOptions(10);
const streams = Number(process.env.BENCH_STREAMS ?? 10_000);
const connections = 20;
const rate = 100;
/** Of so many events the streams want one: a client that took all of them would be measured, and not the server. */
const fewIn = 100;
const behindMs = 5_000;
const history = 20_000;
const insert = `
  insert into millrace.outbox (topic, key, operation, after)
  select case i % ${fewIn} when 0 then '${topic}' else 'bench.many' end, i::text, 'M',
    json_build_object('id', i, 'padding', repeat('x', 200))`;

await using bed = await Bed.open({ shared_preload_libraries: "pg_stat_statements" });
const connection = await bed.connection();
await connection.query("create extension pg_stat_statements");
await fillHistory(connection);
const config = { databaseUrl: bed.url, maxStreams: streams + 10, drainMs: 0 };
const first = await startServerProcess(config);
const writer = startWriter(await bed.connection());
const client = fork(fileURLToPath(new URL("./resume-client.ts", import.meta.url)));
const measurements: Measurement[] = [];
try {
  await ask({ kind: "start", port: first.port, streams, connections }, "open");
  await delay(1_000);
  const quiet = await settleTimes(seconds * 1_000);
  await first.kill9();
  await delay(behindMs);
  await storm("resume 5 s behind, from memory", config, quiet);
  await storm("resume 3,000 to 8,000 versions behind, from the table", { ...config, logBytes: "1MiB" }, quiet, {
    from: 8_000,
    to: 3_000,
  });
} finally {
  client.send({ kind: "end" } satisfies Order);
  writer.stop();
  await writer.ended;
}
report(
  "resume-storm",
  measurements,
  `${streams} streams on ${connections} connections, each for one event in ${fewIn} of ${rate}/s; ${conditions}`,
);

/** Kills nothing: starts a server, lets all streams go for it, and measures until the last one is live. */
async function storm(
  what: string,
  settings: Readonly<Record<string, unknown>>,
  quiet: readonly number[],
  behind?: { readonly from: number; readonly to: number },
): Promise<void> {
  await using server = await startServerProcess(settings);
  const begunMs = Date.now();
  await connection.query("select pg_stat_statements_reset()");
  const head = await headVersion();
  const marker = await writer.mark();
  const beganAt = await databaseTime();
  const [idleCpu, clientIdleCpu] = [await cpuSeconds(server.pid), await cpuSeconds(client.pid)];
  const firstVersions = behind && { from: head - behind.from, to: head - behind.to };
  const live = await ask(
    { kind: "resume", port: server.port, marker, ...(firstVersions && { firstVersions }) },
    "live",
  );
  const [serverCpu, clientCpu] = [
    (await cpuSeconds(server.pid)) - idleCpu,
    (await cpuSeconds(client.pid)) - clientIdleCpu,
  ];
  const during = await settleTimesBetween(beganAt, await databaseTime());
  const { pages, questions } = await whatWasAsked();
  const liveMs = live.kind === "live" ? live.atMs - begunMs : Number.NaN;
  const half = live.kind === "live" ? live.halfAtMs - begunMs : Number.NaN;
  const line = (name: string, value: number, unit: string, more: Partial<Measurement> = {}) =>
    measurements.push({ what: `${what}: ${name}`, value, unit, ...more });
  line("all live", liveMs / 1_000, "s", { target: "<= 10 s", met: liveMs <= 10_000 });
  line("half of them live", half / 1_000, "s");
  // On a machine that does nothing else the longer of these is about the time that it takes.
  line("CPU time of the server", serverCpu, "s");
  line("CPU time of the client", clientCpu, "s");
  line("events delivered meanwhile", live.kind === "live" ? live.events : Number.NaN, "");
  line("pages read from the table", pages, "");
  line("other questions, without the tick's", questions, "");
  for (const share of [0.5, 0.99]) {
    line(`insert to tick, p${share * 100}`, percentile(during, share), "ms", {
      baseline: { what: "streams live, nobody comes", value: percentile(quiet, share) },
    });
  }
  await server.kill9();
}

function ask(order: Order, kind: Answer["kind"]): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const onMessage = (answer: Answer) => {
      if (answer.kind !== kind && answer.kind !== "failed") return;
      client.off("message", onMessage);
      if (answer.kind === "failed") reject(new Error(answer.reason));
      else resolve(answer);
    };
    client.on("message", onMessage);
    void once(client, "exit").then(() => reject(new Error("the client has ended")));
    client.send(order);
  });
}

/** User and system time of a process so far; NaN where there is no /proc. */
async function cpuSeconds(pid: number | undefined): Promise<number> {
  const text = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

/** In ticks of 100 events, one in twenty of which the streams want. */
async function fillHistory(session: pg.Client): Promise<void> {
  for (let from = 0; from < history; from += 100) {
    await session.query(`${insert} from generate_series(${from + 1}, ${from + 100}) i`);
    await session.query(
      "begin isolation level read committed; set local synchronous_commit = on; select millrace.tick(); commit",
    );
  }
  await session.query("vacuum analyze millrace.outbox");
  await session.query("vacuum analyze millrace.tick");
}

/** Paced by the clock. `mark` writes an event for every stream and answers its payload. */
function startWriter(session: pg.Client) {
  let marks = 0;
  let going = true;
  let wanted: { readonly text: string; readonly done: () => void } | undefined;
  const write = async () => {
    const begun = performance.now();
    for (let n = 0; going; n += 1) {
      const early = begun + (n * 1_000) / rate - performance.now();
      if (early > 0) await delay(early);
      await session.query(`${insert} from generate_series(${n}, ${n}) i`);
      const mark = wanted;
      if (mark === undefined) continue;
      wanted = undefined;
      await session.query("insert into millrace.outbox (topic, operation, after) values ($1, 'M', $2)", [
        topic,
        mark.text,
      ]);
      mark.done();
    }
  };
  return {
    ended: write(),
    mark: async () => {
      marks += 1;
      const text = JSON.stringify({ marker: marks });
      await new Promise<void>((done) => {
        wanted = { text, done };
      });
      return text;
    },
    stop: () => {
      going = false;
    },
  };
}

async function settleTimes(forMs: number): Promise<readonly number[]> {
  const from = await databaseTime();
  await delay(forMs);
  return await settleTimesBetween(from, await databaseTime());
}

/** From the insert of each event to its tick, in milliseconds by the database's clock. */
async function settleTimesBetween(from: string, to: string): Promise<readonly number[]> {
  const rows = await bed.sql<{ readonly ms: number }>(
    `select extract(epoch from t.time - o.occurred_at)::float8 * 1000 as ms
     from millrace.outbox o, lateral (
       select * from millrace.tick t where t.min_seq <= o.seq and t.max_seq >= o.seq order by t.tick desc limit 1) t
     where o.occurred_at between $1::timestamptz and $2::timestamptz`,
    [from, to],
  );
  return rows.map(({ ms }) => ms);
}

async function databaseTime(): Promise<string> {
  const [row] = await bed.sql<{ readonly now: string }>("select clock_timestamp()::text as now");
  return row?.now ?? "";
}

async function headVersion(): Promise<number> {
  const [row] = await bed.sql<{ readonly head: string }>(
    "select (first_version + count - 1)::text as head from millrace.tick order by tick desc limit 1",
  );
  return Number(row?.head);
}

/** A page is one COPY; a question is what looks for ticks or bounds. */
async function whatWasAsked(): Promise<{ readonly pages: number; readonly questions: number }> {
  const [row] = await bed.sql<{ readonly pages: string; readonly questions: string }>(`
    select coalesce(sum(calls) filter (where query ~* '^\\s*copy'), 0)::text as pages,
      coalesce(sum(calls) filter (where query ~* 'millrace\\.assert_epoch' and query ~* 'concat_ws|oldest'), 0)::text as questions
    from pg_stat_statements`);
  return { pages: Number(row?.pages), questions: Number(row?.questions) };
}
