// A million settled events by polling, with one poller and with sixteen, beside a stream over the same events; and a thousand
// polls that wait for one event.
import { readFileSync } from "node:fs";
import { type ClientHttp2Session, connect } from "node:http2";
import { create, toBinary } from "@bufbuild/protobuf";
import { PollRequestSchema } from "../gen/millrace/v1/feed_service_pb.js";
import { Bed, conditions } from "./bed.ts";
import { benchOptions, report } from "./report.ts";
import { subscribe } from "./wire-client.ts";
import { readEvents, readFrame, readPage, type WirePage } from "./wire-reader.ts";

const { seconds } = benchOptions(20);
const count = Math.round(Math.min(1_000_000, seconds * 50_000));
const turns = 3;
const many = 16;
const waiting = 1_000;

await using bed = await Bed.open();
await fill();
const server = await bed.server();
const best = { one: 0, many: 0, stream: 0, lastMs: Number.POSITIVE_INFINITY, cpuMs: Number.POSITIVE_INFINITY };
for (let turn = 0; turn < turns; turn += 1) {
  best.stream = Math.max(best.stream, await rate(readStream, count));
  best.one = Math.max(best.one, await rate(() => pollThrough(1), count));
  best.many = Math.max(best.many, await rate(() => pollThrough(many), count * many));
}
for (let turn = 0; turn < turns; turn += 1) {
  const { lastMs, cpuMs } = await wake();
  best.lastMs = Math.min(best.lastMs, lastMs);
  best.cpuMs = Math.min(best.cpuMs, cpuMs);
}
const stream = { what: "Subscribe, one stream", value: best.stream };
report(
  "poll",
  [
    {
      what: "polling through history, one poller, 1,000 events a page",
      value: best.one,
      unit: "events/s",
      baseline: stream,
    },
    { what: "the same in pages", value: best.one / 1_000, unit: "pages/s" },
    { what: `the same, ${many} pollers, all together`, value: best.many, unit: "events/s", baseline: stream },
    { what: "the same in pages", value: best.many / 1_000, unit: "pages/s" },
    {
      what: `${waiting} polls that wait, from the commit of one event to the last answer`,
      value: best.lastMs,
      unit: "ms",
    },
    { what: "the same in the server's CPU", value: best.cpuMs, unit: "ms" },
  ],
  `${count} events of 250 B, best of ${turns} turns of each; Connect by POST, binary; ${conditions}`,
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

async function rate(drain: () => Promise<number>, expected: number): Promise<number> {
  const begun = performance.now();
  const events = await drain();
  if (events !== expected) throw new Error(`${events} events instead of ${expected}`);
  return events / ((performance.now() - begun) / 1000);
}

async function pollThrough(pollers: number): Promise<number> {
  const session = connect(`http://127.0.0.1:${server.port}`, { settings: { initialWindowSize: 4 * 1024 * 1024 } });
  session.on("connect", () => session.setLocalWindowSize(16 * 1024 * 1024));
  const events = await Promise.all(Array.from({ length: pollers }, () => pollToTheEnd(session)));
  session.close();
  return events.reduce((sum, some) => sum + some, 0);
}

async function pollToTheEnd(session: ClientHttp2Session): Promise<number> {
  let events = 0;
  for (let cursor = ""; ; ) {
    const page = await poll(session, cursor);
    events += page.events;
    if (!page.hasMore) return events;
    ({ cursor } = page);
  }
}

/** A unary call of Connect over HTTP/2. An empty cursor is the first version. */
function poll(session: ClientHttp2Session, cursor: string, timeoutSeconds = 0): Promise<WirePage> {
  const message = create(PollRequestSchema, {
    start: cursor === "" ? { case: "afterVersion", value: 0n } : { case: "afterCursor", value: cursor },
    timeout: { seconds: BigInt(timeoutSeconds) },
  });
  return new Promise((resolve, reject) => {
    const call = session.request({
      ":method": "POST",
      ":path": "/millrace.v1.FeedService/Poll",
      "content-type": "application/proto",
    });
    const chunks: Buffer[] = [];
    let status = 0;
    call.on("response", (headers) => {
      status = Number(headers[":status"]);
    });
    call.on("data", (chunk: Buffer) => chunks.push(chunk));
    call.on("error", reject);
    call.on("end", () => {
      const body = Buffer.concat(chunks);
      if (status === 200) resolve(readPage(body));
      else reject(new Error(`HTTP ${status}: ${body.toString()}`));
    });
    call.end(toBinary(PollRequestSchema, message));
  });
}

function readStream(): Promise<number> {
  return new Promise((resolve, reject) => {
    let events = 0;
    const follow = subscribe(server.port, { start: { case: "oldest", value: {} } }, (message) => {
      const frame = readFrame(message);
      if (frame.kind === 2) events += readEvents(frame.body, undefined);
      if (events < count) return;
      follow.cancel();
      resolve(events);
    });
    follow.ended.catch(reject);
  });
}

/** Ten connections of a hundred polls each. */
async function wake(): Promise<{ readonly lastMs: number; readonly cpuMs: number }> {
  const writer = await bed.connection();
  const sessions = Array.from({ length: 10 }, () => connect(`http://127.0.0.1:${server.port}`));
  const [first] = sessions;
  if (first === undefined) throw new Error("no session");
  let page = await poll(first, "");
  while (page.hasMore) page = await poll(first, page.cursor);
  const answers = Array.from({ length: waiting }, (_, at) => poll(sessions[at % 10] ?? first, page.cursor, 60));
  await untilWaiting(waiting);
  const cpuBefore = cpuMs(server.pid);
  await writer.query("select millrace.emit('bench', 'last', json_build_object('padding', repeat('x', 200)))");
  const begun = performance.now();
  const pages = await Promise.all(answers);
  const lastMs = performance.now() - begun;
  if (pages.some(({ events }) => events !== 1)) throw new Error("a poll missed the event");
  for (const session of sessions) session.close();
  return { lastMs, cpuMs: cpuMs(server.pid) - cpuBefore };
}

async function untilWaiting(polls: number): Promise<void> {
  for (;;) {
    const metrics = await (await fetch(`http://127.0.0.1:${server.port}/metrics`)).text();
    if (Number(/^millrace_polls_waiting (\d+)$/m.exec(metrics)?.[1]) >= polls) return;
  }
}

/** User and system, in ticks of a hundredth of a second. */
function cpuMs(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8")
    .replace(/^.*\) /, "")
    .split(" ");
  return (Number(fields[11]) + Number(fields[12])) * 10;
}
