import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import pg from "pg";
import { pino } from "pino";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { decodeCursor } from "../../src/core/cursor.ts";
import { type ConfigInput, resolveConfig } from "../../src/server/config.ts";
import { postgresFeedOpener } from "../../src/server/postgres-feed.ts";
import { type RunningServer, startServer } from "../../src/server/server.ts";
import { type BrowserPage, findChromium, openBrowserPage } from "../support/chromium.ts";
import { freshDatabase } from "../support/cluster.ts";
import { startCuttingProxy } from "../support/cutting-proxy.ts";
import { eventually } from "../support/deadline.ts";
import { PlainEventSource } from "../support/event-source.ts";
import { createRandom, seedOfRun } from "../support/workload/random.ts";

/** What was seen of one stream. */
interface PageStream {
  readonly changes: readonly (readonly [version: number, id: number, cursor: string])[];
  readonly opened: number;
  readonly closings: readonly string[];
  readonly failures: readonly string[];
  readonly state: number;
}

/** What follows streams as a page does. */
interface Follower extends AsyncDisposable {
  follow(url: string): Promise<unknown>;
  look(): Promise<PageStream>;
  close(): Promise<unknown>;
}

const CLOSED = 2;
const script = `
  globalThis.follow = (url) => {
    const seen = { changes: [], opened: 0, closings: [], failures: [], state: 0 };
    const source = new EventSource(url);
    source.addEventListener("opened", () => { seen.opened += 1; });
    source.addEventListener("change", (event) => {
      const { version, after } = JSON.parse(event.data);
      seen.changes.push([version, after.id, event.lastEventId]);
    });
    source.addEventListener("closing", (event) => seen.closings.push(JSON.parse(event.data).reason));
    source.addEventListener("error", (event) => { if (event.data) seen.failures.push(JSON.parse(event.data).code); });
    globalThis.seen = seen;
    globalThis.source = source;
  };
  globalThis.look = () => ({ ...globalThis.seen, state: globalThis.source.readyState });
`;

async function servePage(): Promise<{ readonly url: string } & AsyncDisposable> {
  const server = createServer((_request, response) => {
    response.setHeader("Content-Type", "text/html");
    response.end(`<!doctype html><title>follows</title><script>${script}</script>`);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}

/** By the HTML standard, in this process. */
async function plainFollower(): Promise<Follower> {
  let source: PlainEventSource | undefined;
  const close = async () => source?.[Symbol.dispose]();
  return {
    async follow(url) {
      source = new PlainEventSource(url, { origin: "http://localhost:5173" });
    },
    async look() {
      const of = (event: string) => source?.of(event) ?? [];
      return {
        changes: of("change").map(({ data, lastEventId }) => {
          const { version, after } = JSON.parse(data);
          return [version, after.id, lastEventId] as const;
        }),
        opened: of("opened").length,
        closings: of("closing").map(({ data }) => JSON.parse(data).reason),
        failures: of("error").map(({ data }) => JSON.parse(data).code),
        state: source?.readyState ?? 0,
      };
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}

async function openPage(executable: string): Promise<BrowserPage> {
  const everything = new AsyncDisposableStack();
  const page = everything.use(await openBrowserPage(executable));
  const served = everything.use(await servePage());
  await page.open(served.url);
  await eventually(() => page.evaluate<boolean>("typeof globalThis.follow === 'function'"));
  return { ...page, [Symbol.asyncDispose]: () => everything.disposeAsync() };
}

async function browserFollower(executable: string): Promise<Follower> {
  const page = await openPage(executable);
  return {
    follow: (url) => page.evaluate(`globalThis.follow(${JSON.stringify(url)})`),
    look: () => page.evaluate<PageStream>("globalThis.look()"),
    close: () => page.evaluate("globalThis.source?.close()"),
    [Symbol.asyncDispose]: () => page[Symbol.asyncDispose](),
  };
}

// Where there is no browser, the standard alone stands for it.
const chromium = findChromium();
const followers = [
  { name: "a client by the HTML standard", table: "orders", open: plainFollower },
  ...(chromium === undefined ? [] : [{ name: "Chromium", table: "parcels", open: () => browserFollower(chromium) }]),
];

let databaseUrl: string;
let client: pg.Client;
beforeAll(async () => {
  databaseUrl = await freshDatabase({ migrated: true });
  client = new pg.Client(databaseUrl);
  await client.connect();
  for (const { table } of followers) {
    await client.query(`create table ${table} (id int generated always as identity primary key, note text)`);
    await client.query("select millrace.watch($1::text::regclass)", [table]);
  }
});
afterAll(() => client.end());

function configOf(more: Partial<ConfigInput> = {}) {
  return resolveConfig({ flags: { databaseUrl, port: 0, logLevel: "silent", ...more } });
}

describe.each(followers)("EventSource of $name", ({ table, open }) => {
  let follower: Follower;
  beforeAll(async () => {
    follower = await open();
  });
  afterAll(() => follower[Symbol.asyncDispose]());

  it("G1 G3 G8 has every event once and in order, through connections that are cut and servers that end", async () => {
    const seed = seedOfRun();
    const random = createRandom(seed);
    let server: RunningServer = await startServer(configOf());
    // Behind the head of the answer: Chromium takes one that was cut for a whole one, of the wrong type, and gives up.
    await using proxy = await startCuttingProxy(server.url, () => 600 + random.below(8_000));
    await follower.follow(`${proxy.url}/v1/events?topic=${table}&from=oldest&retry=20ms&heartbeat=500ms`);
    const insert = `insert into ${table} (note) select repeat('ä', $2) from generate_series(1, $1)`;
    for (let at = 1; at <= 150; at += 1) {
      await client.query(insert, [1 + random.below(5), random.below(300)]);
      if (at % 50 === 0) {
        const next = await startServer(configOf());
        proxy.target = next.url;
        await server.stop();
        server = next;
      }
    }
    const { rows } = await client.query<{ count: number }>(`select count(*)::int from ${table}`);
    const count = rows[0]?.count ?? 0;
    await eventually(async () => (await follower.look()).changes.length >= count);
    const seen = await follower.look();
    await follower.close();
    await server.stop();
    const told = `seed ${seed}`;
    expect(
      seen.changes.map(([, id]) => id),
      told,
    ).toEqual(Array.from({ length: count }, (_, at) => at + 1));
    const versions = seen.changes.map(([version]) => version);
    expect(versions, told).toEqual([...new Set(versions)].toSorted((a, b) => a - b));
    // Each id is the cursor of its event, or of the end of the tick behind it.
    for (const [version, , cursor] of seen.changes) {
      expect(decodeCursor(cursor).version, told).toBeGreaterThanOrEqual(version);
    }
    expect(proxy.cuts, told).toBeGreaterThan(5);
    // It came back by itself, with the last id that it had.
    const ids = proxy.requests.map((request) => /^last-event-id: (\S+)/im.exec(request)?.[1]);
    const resumed = ids.filter((id) => id !== undefined).map((id) => decodeCursor(id).version);
    expect(resumed.length, told).toBeGreaterThan(5);
    expect(resumed, told).toEqual(resumed.toSorted((a, b) => a - b));
  });

  it("gives up on what cannot mend itself, and comes again where a server ends or is only starting", async () => {
    const server = await startServer(configOf());
    await follower.follow(`${server.url}/v1/events?from=rubbish`);
    await eventually(async () => (await follower.look()).state === CLOSED);
    await follower.follow(`${server.url}/v1/events?topic=${table}&from=now&retry=20ms`);
    await eventually(async () => (await follower.look()).opened === 1);
    const { port } = server;
    await server.stop();
    // Its port is open while it waits for its database.
    const { promise: ready, resolve: goOn } = Promise.withResolvers<void>();
    const config = configOf({ port });
    const observer = { advanced: () => undefined, failed: () => undefined };
    const openFeed = postgresFeedOpener(config, pino({ level: "silent" }), observer);
    const starting = startServer(config, {
      openFeed: async (...args) => {
        await ready;
        return await openFeed(...args);
      },
    });
    await eventually(async () => (await follower.look()).failures.includes("DATABASE_UNAVAILABLE"));
    goOn();
    const next = await starting;
    await eventually(async () => (await follower.look()).opened >= 2);
    await client.query(`insert into ${table} (note) values ('after')`);
    await eventually(async () => (await follower.look()).changes.length === 1);
    expect((await follower.look()).closings).toEqual(["DRAINING"]);
    await follower.close();
    await next.stop();
  });
});

describe.each(chromium === undefined ? [] : [chromium])("a page in %s", (executable) => {
  it("reads lines of JSON by fetch, as they come", async () => {
    await using page = await openPage(executable);
    const server = await startServer(configOf());
    await client.query("insert into orders (note) values ('one'), ('two')");
    const url = JSON.stringify(`${server.url}/v1/events?topic=orders&from=oldest&max_events=2&format=ndjson`);
    const lines = await page.evaluate<string[]>(`(async () => {
      const response = await fetch(${url});
      let text = "";
      for await (const part of response.body.pipeThrough(new TextDecoderStream())) text += part;
      return text.trimEnd().split("\\n");
    })()`);
    const told = lines.map((line) => JSON.parse(line));
    expect(told.map(({ frame, topic }) => frame ?? topic)).toEqual(["opened", "orders", "orders", "closing"]);
    await server.stop();
  });
});
