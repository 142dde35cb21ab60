import { type Client, createClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import pg from "pg";
import { expect, test } from "vitest";
import { FeedService } from "../../../gen/millrace/v1/feed_service_pb.js";
import { SubscriptionService } from "../../../gen/millrace/v1/subscription_service_pb.js";
import { resolveConfig } from "../../../src/server/config.ts";
import { startServer } from "../../../src/server/server.ts";
import { createCluster } from "../../support/cluster.ts";
import { eventually } from "../../support/deadline.ts";

const ACTIVE = 100;
const MANY = 10_000;
const EVENTS = 50;

/** Consumers of the first so many subscriptions, each of which acknowledges every event by itself. */
class Consumers {
  readonly #feed: Client<typeof FeedService>;
  readonly #service: Client<typeof SubscriptionService>;
  readonly #stop = new AbortController();
  readonly #running: Promise<unknown>;
  opened = 0;
  acknowledged = 0;

  constructor(feed: Client<typeof FeedService>, service: Client<typeof SubscriptionService>) {
    this.#feed = feed;
    this.#service = service;
    this.#running = Promise.all(Array.from({ length: ACTIVE }, (_, at) => this.#consume(`s-${at}`)));
  }

  async #consume(subscriptionId: string): Promise<void> {
    const { signal } = this.#stop;
    let generation = 0n;
    try {
      const start = { case: "subscriptionId" as const, value: subscriptionId };
      for await (const { frame } of this.#feed.subscribe({ start }, { signal })) {
        if (frame.case === "opened") {
          generation = frame.value.lease?.generation ?? 0n;
          this.opened += 1;
        } else if (frame.case === "events") {
          await this.#service.acknowledge({ subscriptionId, generation, cursor: frame.value.cursor });
          this.acknowledged += frame.value.events.length;
        }
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }
}

/** How often statements about subscriptions were executed, and how often the feed looked for new events. */
async function calls(client: pg.Client): Promise<{ readonly subscriptions: number; readonly ticks: number }> {
  const { rows } = await client.query<{ query: string; calls: string }>(
    "select query, sum(calls) as calls from pg_stat_statements where query not like '%pg_stat_statements%' group by query",
  );
  const sum = (pattern: RegExp) =>
    rows.reduce((total, { query, calls: count }) => total + (pattern.test(query) ? Number(count) : 0), 0);
  return { subscriptions: sum(/subscription/), ticks: sum(/millrace\.tick\(/) };
}

test("what subscriptions ask the database grows neither with those that nobody reads nor with acknowledgements", {
  timeout: 180_000,
}, async () => {
  await using cluster = await createCluster({
    settings: { shared_preload_libraries: "pg_stat_statements", "pg_stat_statements.track": "top" },
  });
  const databaseUrl = await cluster.createDatabase();
  const client = new pg.Client({ connectionString: databaseUrl });
  await client.connect();
  const server = await startServer(resolveConfig({ flags: { databaseUrl, port: 0, logLevel: "silent" } }));
  const sessionManager = new Http2SessionManager(server.url);
  const transport = createGrpcTransport({ baseUrl: server.url, sessionManager });
  const service = createClient(SubscriptionService, transport);
  try {
    await client.query("create extension pg_stat_statements");
    for (let at = 0; at < ACTIVE; at += 1) {
      await service.createSubscription({ subscriptionId: `s-${at}`, selectors: [{ topics: ["notes"] }] });
    }
    const consumers = new Consumers(createClient(FeedService, transport), service);
    await eventually(async () => consumers.opened === ACTIVE);

    /** While there is nothing to deliver, for so many looks of the feed; then while there is. */
    const measure = async () => {
      const before = await calls(client);
      const idle = await eventually(async () => {
        const now = await calls(client);
        return now.ticks >= before.ticks + 30 && now.subscriptions - before.subscriptions;
      });
      const until = consumers.acknowledged + EVENTS * ACTIVE;
      const from = await calls(client);
      for (let event = 0; event < EVENTS; event += 1) await client.query("select millrace.emit('notes', 'k', '{}')");
      await eventually(async () => consumers.acknowledged >= until);
      return { idle, flowing: (await calls(client)).subscriptions - from.subscriptions };
    };

    const few = await measure();
    await client.query(
      `insert into millrace.subscription (id, definition, is_group, topics, owner, labels, epoch, version, place, cursor)
       select 'idle-' || n, definition, is_group, topics, owner, labels, epoch, version, place, cursor
       from millrace.subscription, generate_series(1, $1) n where id = 's-0'`,
      [MANY - ACTIVE],
    );
    const many = await measure();
    const { total } = await service.listSubscriptions({ pageSize: 1 });
    expect(Number(total)).toBe(MANY);
    // One for each that is consumed would be a hundred at every look.
    for (const { idle, flowing } of [few, many]) {
      expect(idle).toBeLessThan(ACTIVE / 4);
      expect(flowing).toBeLessThan((EVENTS * ACTIVE) / 10);
    }
    await consumers.stop();
  } finally {
    sessionManager.abort();
    await server.stop(0);
    await client.end();
  }
});
