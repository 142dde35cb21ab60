import { createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import pg from "pg";
import { expect, test, vi } from "vitest";
import { FeedService, type PollResponse } from "../../../gen/millrace/v1/feed_service_pb.js";
import { resolveConfig } from "../../../src/server/config.ts";
import { startServer } from "../../../src/server/server.ts";
import { createCluster } from "../../support/cluster.ts";

const POLLS = 1_000;
const patience = { timeout: 60_000, interval: 20 };

/** How often each statement was executed, by its text. */
type Calls = ReadonlyMap<string, number>;

class Statements {
  readonly #client: pg.Client;

  constructor(client: pg.Client) {
    this.#client = client;
  }

  async calls(): Promise<Calls> {
    const { rows } = await this.#client.query<{ query: string; calls: string }>(
      "select query, sum(calls) as calls from pg_stat_statements where query not like '%pg_stat_statements%' group by query",
    );
    return new Map(rows.map(({ query, calls }) => [query, Number(calls)]));
  }

  /** What was executed from before the work until after it, and until the feed has ticked so often. */
  async during(work: () => Promise<unknown>, ticks = 0): Promise<Calls> {
    const before = await this.calls();
    await work();
    const from = ticksIn(await this.calls());
    await vi.waitUntil(async () => ticksIn(await this.calls()) >= from + ticks, patience);
    const after = await this.calls();
    return new Map(
      [...after].flatMap(([query, calls]): [string, number][] => {
        const more = calls - (before.get(query) ?? 0);
        return more > 0 ? [[query, more]] : [];
      }),
    );
  }
}

const ticksIn = (calls: Calls) =>
  [...calls].reduce((total, [query, count]) => total + (/millrace\.tick\(/.test(query) ? count : 0), 0);
/** What was executed beside ticks, each of which takes ten statements of the protocol, whoever listens. */
const beside = (calls: Calls) => [...calls.values()].reduce((total, count) => total + count, 0) - 10 * ticksIn(calls);
/** The server looks after itself meanwhile: storage, retention, subscriptions. One query for each poll would be a thousand. */
const HOUSEKEEPING = 300;

test("G9 a thousand polls that wait, and are answered, ask the database nothing", { timeout: 180_000 }, async () => {
  await using cluster = await createCluster({
    settings: { shared_preload_libraries: "pg_stat_statements", "pg_stat_statements.track": "top" },
  });
  const databaseUrl = await cluster.createDatabase();
  const client = new pg.Client({ connectionString: databaseUrl });
  await client.connect();
  const flags = { databaseUrl, port: 0, logLevel: "silent", logBytes: 1_048_576 };
  const server = await startServer(resolveConfig({ flags }));
  try {
    await client.query("create extension pg_stat_statements");
    const statements = new Statements(client);
    const feed = createClient(FeedService, createConnectTransport({ baseUrl: server.url, httpVersion: "2" }));
    const emit = (count: number) =>
      client.query(
        "select millrace.emit('notes', g::text, json_build_object('n', repeat('x', 1000))) from generate_series(1, $1) g",
        [count],
      );
    const reaches = (head: number) => vi.waitUntil(() => server.feed.status().head >= head, patience);
    await emit(5_000);
    await reaches(5_000);
    const { cursor } = await feed.poll({ start: { case: "now", value: {} } });
    const waitAfter = (count: number): readonly Promise<PollResponse>[] =>
      Array.from({ length: count }, () =>
        feed.poll({ start: { case: "afterCursor", value: cursor }, timeout: { seconds: 60n } }),
      );

    // What the server does by itself, and what the one who writes does.
    const idle = await statements.during(async () => {
      await emit(1);
      await reaches(5_001);
    }, 30);
    const start = await feed.poll({ start: { case: "afterCursor", value: cursor } });
    expect(start.events).toHaveLength(1);

    let waiting: readonly Promise<PollResponse>[] = [];
    const waited = await statements.during(async () => {
      await Promise.all(waitAfter(POLLS));
    }, 30);
    // All of them were behind by one event, which is in memory: answered at once.
    expect(beside(idle)).toBeLessThan(HOUSEKEEPING);
    expect(beside(waited)).toBeLessThan(HOUSEKEEPING);

    const head = { start: { case: "afterCursor", value: start.cursor }, timeout: { seconds: 60n } } as const;
    const parked = await statements.during(async () => {
      waiting = Array.from({ length: POLLS }, () => feed.poll(head));
      await vi.waitUntil(() => server.feed.status().streams === POLLS, patience);
    }, 30);
    expect(server.feed.status().streams).toBe(POLLS);
    expect(beside(parked)).toBeLessThan(HOUSEKEEPING);

    const woken = await statements.during(async () => {
      await emit(1);
      const pages = await Promise.all(waiting);
      expect(new Set(pages.map(({ cursor: next, events }) => `${next} ${events.length}`)).size).toBe(1);
      expect(pages[0]?.events).toHaveLength(1);
    });
    expect(beside(woken)).toBeLessThan(HOUSEKEEPING);

    // The measurement sees queries where there are some: whoever begins behind what is in memory asks for each page.
    const behind = await statements.during(async () => {
      for (let at = 0; at < 500; at += 1) {
        await feed.poll({ start: { case: "afterVersion", value: BigInt(at) }, maxEvents: 1 });
      }
    });
    expect(beside(behind)).toBeGreaterThanOrEqual(500);
  } finally {
    await server.stop(0);
    await client.end();
  }
});
