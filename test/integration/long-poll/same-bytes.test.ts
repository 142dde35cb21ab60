import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import pg from "pg";
import { expect, test, vi } from "vitest";
import {
  FeedService,
  PollRequestSchema,
  type PollResponse,
  PollResponseSchema,
} from "../../../gen/millrace/v1/feed_service_pb.js";
import { resolveConfig } from "../../../src/server/config.ts";
import { type RunningServer, startServer } from "../../../src/server/server.ts";
import { freshDatabase } from "../../support/cluster.ts";
import { createRandom } from "../../support/workload/random.ts";

type Request = MessageInitShape<typeof PollRequestSchema>;

const patience = { timeout: 60_000, interval: 20 };

/** The bytes that went over the wire, and what they say. */
interface Page {
  readonly bytes: string;
  readonly page: PollResponse;
}

async function poll({ url }: RunningServer, request: Request): Promise<Page> {
  const response = await fetch(`${url}/millrace.v1.FeedService/Poll`, {
    method: "POST",
    headers: { "content-type": "application/proto" },
    body: toBinary(PollRequestSchema, create(PollRequestSchema, request)),
  });
  expect(response.status).toBe(200);
  const bytes = Buffer.from(await response.arrayBuffer());
  return { bytes: bytes.toString("base64"), page: fromBinary(PollResponseSchema, bytes) };
}

async function waitingOn({ url }: RunningServer): Promise<number> {
  const metrics = await (await fetch(`${url}/metrics`)).text();
  return Number(/^millrace_polls_waiting (\d+)$/m.exec(metrics)?.[1]);
}

async function allPages(server: RunningServer, request: Request): Promise<readonly Page[]> {
  const pages: Page[] = [];
  for (let start: Request["start"] = { case: "afterVersion", value: 0n }; ; ) {
    const next = await poll(server, { ...request, start });
    pages.push(next);
    if (!next.page.hasMore) return pages;
    start = { case: "afterCursor", value: next.page.cursor };
  }
}

test("G8 pages are the same bytes from memory, from the table and after a restart", { timeout: 120_000 }, async () => {
  const databaseUrl = await freshDatabase();
  const serve = (more: object) =>
    startServer(resolveConfig({ flags: { databaseUrl, port: 0, logLevel: "silent", ...more } }));
  const inMemory = await serve({});
  const client = new pg.Client({ connectionString: databaseUrl });
  await client.connect();
  const stop = new AsyncDisposableStack();
  stop.defer(() => client.end());
  stop.defer(() => inMemory.stop(0));
  try {
    const random = createRandom(20_261_121);
    let events = 0;
    // Transactions of one event and of hundreds, small and large, of three topics; ticks hold one of them or several.
    for (let at = 0; at < 200; at += 1) {
      const count = random.below(20) === 0 ? 1 + random.below(700) : 1 + random.below(5);
      await client.query(
        `select millrace.emit((array['a', 'b.x', 'c'])[1 + (g * 7 + $2) % 3], g::text, json_build_object('n', repeat('x', $3)))
         from generate_series(1, $1) g`,
        [count, at, random.below(10) === 0 ? Math.ceil(20_000 / count) : random.below(600)],
      );
      events += count;
    }
    await vi.waitUntil(() => inMemory.feed.status().head >= events, patience);
    const small = await serve({ logBytes: 1_048_576, warmBytes: 0, historyCacheBytes: 1_048_576 });
    stop.defer(() => small.stop(0));
    const pages = new Map<Request, readonly Page[]>();
    for (const selectors of [[], [{ topics: ["a"] }], [{ topics: ["b.>"], keys: ["1", "2"] }]]) {
      for (const limits of [{}, { maxEvents: 40 }, { maxEvents: 100, maxBytes: 8_192 }, { maxBytes: 65_536 }]) {
        const request = { selectors, ...limits };
        pages.set(request, await allPages(inMemory, request));
      }
    }
    const everything = [...pages.values()][0]?.flatMap(({ page }) => page.events.map(({ version }) => Number(version)));
    expect(everything).toEqual(Array.from({ length: events }, (_, at) => at + 1));
    expect(small.feed.stats().history.reads).toBe(0);
    for (const [request, expected] of pages) {
      expect((await allPages(small, request)).map(({ bytes }) => bytes)).toEqual(expected.map(({ bytes }) => bytes));
    }
    expect(small.feed.stats().history.reads).toBeGreaterThan(0);

    // Later, with more behind them, on a server that has just begun: each full page again.
    await client.query("select millrace.emit('a', 'late')");
    const restarted = await serve({ logBytes: 1_048_576, warmBytes: 0 });
    stop.defer(() => restarted.stop(0));
    for (const [request, expected] of pages) {
      for (const [index, { bytes, page }] of expected.slice(0, -1).entries()) {
        const value = expected[index - 1]?.page.cursor;
        const start = value === undefined ? ({ case: "afterVersion", value: 0n } as const) : undefined;
        const again = await poll(restarted, {
          ...request,
          start: start ?? { case: "afterCursor", value: value ?? "" },
        });
        expect(again.bytes).toBe(bytes);
        expect(page.headVersion).toBeUndefined();
      }
    }

    // And those who wait with one cursor, wherever they do.
    await vi.waitUntil(() => inMemory.feed.status().head > events, patience);
    const start = { case: "afterVersion", value: BigInt(events + 1) } as const;
    const waiters = [inMemory, inMemory, small, restarted];
    const waiting = waiters.map((server) => poll(server, { start, timeout: { seconds: 60n } }));
    await vi.waitUntil(async () => {
      const counts = await Promise.all([inMemory, small, restarted].map(waitingOn));
      return counts.join() === "2,1,1";
    }, patience);
    await Promise.all([1, 2, 3].map((n) => client.query("select millrace.emit('a', $1)", [String(n)])));
    const answers = await Promise.all(waiting);
    expect(new Set(answers.map(({ bytes }) => bytes)).size).toBe(1);
    expect(answers[0]?.page).toMatchObject({ hasMore: false, complete: true });
    expect(answers[0]?.page.events.length).toBeGreaterThan(0);
  } finally {
    await stop.disposeAsync();
  }
});

test("G7 a snapshot that began on a stream goes on by polls, and ends as the table is", {
  timeout: 60_000,
}, async () => {
  const databaseUrl = await freshDatabase();
  const server = await startServer(resolveConfig({ flags: { databaseUrl, port: 0, logLevel: "silent" } }));
  const client = new pg.Client({ connectionString: databaseUrl });
  await client.connect();
  try {
    await client.query("create table item (id int primary key, n int not null)");
    await client.query("select millrace.watch('item')");
    await client.query("insert into item select g, 0 from generate_series(1, 500) g");
    const feed = createClient(FeedService, createGrpcTransport({ baseUrl: server.url }));
    const held = new Map<string, string>();
    const take = (events: PollResponse["events"]) => {
      for (const { key = "", after } of events) {
        if (after === undefined) held.delete(key);
        else held.set(key, after.form.value ?? "");
      }
    };
    const cut = new AbortController();
    let cursor = "";
    const request = { start: { case: "snapshot", value: {} }, delivery: { batch: { maxEvents: 100 } } } as const;
    for await (const { frame } of feed.subscribe(request, { signal: cut.signal })) {
      if (frame.case !== "events") continue;
      take(frame.value.events);
      cursor = frame.value.cursor;
      break;
    }
    cut.abort();
    expect(held.size).toBe(100);
    // Meanwhile rows change on both sides of the place where it was cut.
    await client.query("update item set n = 1 where id % 10 = 0");
    await client.query("delete from item where id % 50 = 1");
    const flags: boolean[] = [];
    for (let more = true; more; ) {
      const page = await feed.poll({ start: { case: "afterCursor", value: cursor }, maxEvents: 150 });
      expect(page.events.length).toBeLessThanOrEqual(150);
      take(page.events);
      flags.push(page.complete);
      ({ cursor, hasMore: more } = page);
    }
    expect(flags.length).toBeGreaterThan(2);
    expect(flags.slice(0, -2)).not.toContain(true);
    expect(flags.at(-1)).toBe(true);
    const { rows } = await client.query<{ id: number; n: number }>("select id, n from item");
    const table = rows.map(({ id, n }) => [String(id), n] as const);
    expect(new Map([...held].map(([key, json]) => [key, JSON.parse(json).n]))).toEqual(new Map(table));
  } finally {
    await server.stop(0);
    await client.end();
  }
});
