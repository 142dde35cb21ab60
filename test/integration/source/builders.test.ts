import { mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { describe, expect, it, vi } from "vitest";
import { type Event, EventSchema, Operation } from "../../../gen/millrace/v1/event_pb.js";
import { SubscribeRequestSchema, type SubscribeResponse } from "../../../gen/millrace/v1/feed_service_pb.js";
import { resolveConfig } from "../../../src/server/config.ts";
import { readConfigFile } from "../../../src/server/config-file/read-config.ts";
import { type RunningServer, startServer } from "../../../src/server/server.ts";
import { sharedCluster } from "../../support/cluster.ts";
import { WatchedDatabase } from "../capture/watched-database.ts";
import { grpcClient } from "../server/client.ts";

const PATIENCE = { timeout: 30_000 };

const setUp = [
  "create table orders (id bigint primary key, region text not null, total numeric not null, secret text)",
  "create table plain (id int primary key)",
];

/** Routes by region, hides internal ones, tells no secret, fails for odd totals. */
const BUILD = `
  build: ({ operation, before, after, key }) => {
    const row = after ?? before;
    if (row.region === "internal") return undefined;
    if (row.total < 0) throw new Error("a total below nothing: " + row.total);
    const shown = (image) => image === undefined ? undefined : { id: image.id, total: image.total };
    return {
      topic: "sales." + row.region,
      key: "order-" + key,
      payload: operation === "DELETE" ? shown(before) : shown(after),
      before: operation === "UPDATE" ? shown(before) : undefined,
      headers: { kind: operation.toLowerCase() },
    };
  }`;
const config = (source: string) =>
  `export default { sources: { "public.orders": { ${source} }, "public.plain": {} } };`;

class Stage implements AsyncDisposable {
  readonly database: WatchedDatabase;
  readonly directory: string;
  server: RunningServer;

  private constructor(database: WatchedDatabase, directory: string, server: RunningServer) {
    this.database = database;
    this.directory = directory;
    this.server = server;
  }

  static async open(source: string): Promise<Stage> {
    const database = await WatchedDatabase.create(await sharedCluster());
    await database.run(...setUp);
    const directory = await mkdtemp(join(tmpdir(), "millrace-builders-"));
    await write(directory, source);
    return new Stage(database, directory, await start(database, directory));
  }

  async write(source: string): Promise<void> {
    await write(this.directory, source);
  }

  async restart(): Promise<void> {
    await this.server.stop(0);
    this.server = await start(this.database, this.directory);
  }

  async page(path: string): Promise<string> {
    return await (await fetch(`${this.server.url}${path}`)).text();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.server.stop(0);
    await this.database[Symbol.asyncDispose]();
    await rm(this.directory, { recursive: true, force: true });
  }
}

async function write(directory: string, source: string): Promise<void> {
  const path = join(directory, "millrace.config.mjs");
  await writeFile(`${path}.new`, config(source));
  await rename(`${path}.new`, path);
}

async function start(database: WatchedDatabase, directory: string): Promise<RunningServer> {
  const configFile = await readConfigFile(join(directory, "millrace.config.mjs"));
  const flags = { databaseUrl: database.url, port: 0, logLevel: "silent" };
  return await startServer(resolveConfig({ flags, file: configFile.options }), { configFile });
}

/** A stream's events as the wire has them, until a checkpoint at this version; or what it ended with. */
async function eventsUntil(
  server: RunningServer,
  version: bigint,
  start: MessageInitShape<typeof SubscribeRequestSchema>["start"],
  topics: readonly string[] = [],
): Promise<{ events: Event[]; frames: SubscribeResponse[] }> {
  const call = new AbortController();
  const frames: SubscribeResponse[] = [];
  const request = create(SubscribeRequestSchema, {
    ...(start === undefined ? {} : { start }),
    selectors: topics.length === 0 ? [] : [{ topics: [...topics] }],
    delivery: { checkpointInterval: { nanos: 100_000_000 } },
  });
  try {
    for await (const response of grpcClient(server.url).subscribe(request, { signal: call.signal })) {
      frames.push(response);
      const { frame } = response;
      // A checkpoint of a snapshot is no boundary.
      if (frame.case === "checkpoint" && frame.value.version >= version && frame.value.state !== 4) break;
    }
  } finally {
    call.abort();
  }
  return { events: frames.flatMap(({ frame }) => (frame.case === "events" ? frame.value.events : [])), frames };
}

const oldest = { case: "oldest", value: {} } as const;
const snapshot = { case: "snapshot", value: {} } as const;
const bytesOf = (events: readonly Event[]) =>
  events.map((event) => Buffer.from(toBinary(EventSchema, event)).toString("hex"));
const outline = (events: readonly Event[]) =>
  events.map(({ version, topic, key, after, before }) => {
    const text = (payload: typeof after) => (payload?.form.case === "json" ? payload.form.value : "-");
    return `${version} ${topic} ${key} ${text(before)} ${text(after)}`;
  });

describe("a builder in the configuration", () => {
  it("G3 G6 makes the same bytes live, from history, and after a restart", async () => {
    await using on = await Stage.open(BUILD);
    const live = eventsUntil(on.server, 8n, undefined);
    await vi.waitUntil(() => on.server.feed.status().streams === 1, PATIENCE);
    await on.database.run(
      "insert into orders values (9007199254740993, 'eu', 12.50, 'hush')",
      "insert into orders values (2, 'internal', 1, 'hush')",
      "insert into plain values (1)",
      "update orders set total = 13 where region = 'eu'",
      "insert into orders values (3, 'us', -1, 'hush')",
      "delete from orders where region = 'eu'",
      "truncate orders",
      "insert into plain values (2)",
    );
    const { events } = await live;
    expect(outline(events)).toEqual([
      '1 sales.eu order-9007199254740993 - {"id":9007199254740993,"total":12.5}',
      '3 plain 1 - {"id":1}',
      '4 sales.eu order-9007199254740993 {"id":9007199254740993,"total":12.5} {"id":9007199254740993,"total":13}',
      '5 millrace.dead_letter.orders 3 - {"id":3,"region":"us","total":-1,"secret":"hush"}',
      '6 sales.eu order-9007199254740993 {"id":9007199254740993,"total":13} -',
      "7 orders undefined - -",
      '8 plain 2 - {"id":2}',
    ]);
    expect(events.map(({ headers }) => headers)).toEqual([
      { kind: "insert" },
      {},
      { kind: "update" },
      { "millrace-error": "a total below nothing: -1", "millrace-source": "public.orders", "millrace-topic": "orders" },
      { kind: "delete" },
      {},
      {},
    ]);
    expect(bytesOf((await eventsUntil(on.server, 8n, oldest)).events)).toEqual(bytesOf(events));
    await on.restart();
    expect(bytesOf((await eventsUntil(on.server, 8n, oldest)).events)).toEqual(bytesOf(events));
    expect(await on.page("/readyz")).toContain("BUILDER_FAILS: The builder of public.orders has failed");
    expect(await on.page("/metrics")).toMatch(/millrace_builder_events_total\{[^}]*outcome="failed"[^}]*\} [1-9]/);
  });

  it("G7 makes of a snapshot's rows what it makes of their changes", async () => {
    await using on = await Stage.open(BUILD);
    await on.database.run(
      "insert into orders select n, case when n % 5 = 0 then 'internal' else 'r' || n % 3 end, n, 'hush' from generate_series(1, 40) n",
    );
    const { events, frames } = await eventsUntil(on.server, 40n, snapshot, ["sales.*"]);
    const rows = events.filter(({ operation }) => operation === Operation.SNAPSHOT);
    const streamed = (await eventsUntil(on.server, 40n, oldest, ["sales.*"])).events;
    const shape = (event: Event) => outline([event])[0]?.replace(/^\d+ /, "");
    expect(rows.map(shape).toSorted()).toEqual(streamed.map(shape).toSorted());
    expect(rows).toHaveLength(32);
    const complete = frames.find(({ frame }) => frame.case === "snapshotComplete")?.frame;
    expect(complete?.case === "snapshotComplete" ? complete.value.rows : undefined).toBe(32n);
  });

  it("that is changed ends the streams once; what comes after a reconnect is built by the new one, also old events", async () => {
    await using on = await Stage.open('build: ({ after }) => ({ topic: "first", payload: after })');
    await on.database.run("insert into orders values (1, 'eu', 1)");
    expect((await eventsUntil(on.server, 1n, oldest)).events.map(({ topic }) => topic)).toEqual(["first"]);
    const open = eventsUntil(on.server, 1_000n, oldest).then(
      () => "it came to its end",
      (error: unknown) => String(error),
    );
    await vi.waitUntil(() => on.server.feed.status().streams === 1, PATIENCE);
    await on.write('build: ({ after }) => ({ topic: "second", payload: after })');
    expect(await open).toContain("Reconnect with the last cursor");
    expect((await eventsUntil(on.server, 1n, oldest)).events.map(({ topic }) => topic)).toEqual(["second"]);
    // A broken one changes nothing.
    await on.write("build: 12");
    await vi.waitFor(async () => expect(await on.page("/readyz")).toContain("CONFIG_INVALID"), PATIENCE);
    await on.database.run("insert into orders values (2, 'eu', 1)");
    expect((await eventsUntil(on.server, 2n, oldest)).events.map(({ topic }) => topic)).toEqual(["second", "second"]);
  });

  it("goes with its table when its topic is changed while writers write", async () => {
    await using on = await Stage.open('build: () => ({ topic: "built" })');
    let writing = true;
    let written = 0;
    const writer = await on.database.session();
    const done = (async () => {
      while (writing) {
        written += 1;
        await writer.query("insert into orders values ($1, 'eu', 1)", [written]);
      }
    })();
    for (const topic of ["a", "b.{region}", "orders"]) {
      await on.database.run(`select millrace.watch('orders', topic => '${topic}')`);
      const { head } = on.server.feed.status();
      await vi.waitUntil(() => on.server.feed.status().head > head + 5, PATIENCE);
    }
    writing = false;
    await done;
    await vi.waitUntil(() => on.server.feed.status().head >= written, PATIENCE);
    const { events } = await eventsUntil(on.server, BigInt(written), undefined, ["a", "b.>", "orders"]);
    expect(events).toEqual([]);
  });
});

describe("an initial state in the configuration", () => {
  it("is what a snapshot of its source holds, as of the snapshot's version, through the builder too", async () => {
    const state = `initialState: (sql) => sql\`select id, region, total * 2 as doubled from public.orders where region <> \${"us"}\``;
    await using on = await Stage.open(state);
    await on.database.run(
      "insert into orders select n, case n when 3 then 'us' else 'eu' end, n, 'hush' from generate_series(1, 4) n",
    );
    const plain = (await eventsUntil(on.server, 4n, snapshot, ["orders"])).events;
    expect(outline(plain).toSorted()).toEqual([
      '4 orders 1 - {"id":1,"region":"eu","doubled":2}',
      '4 orders 2 - {"id":2,"region":"eu","doubled":4}',
      '4 orders 4 - {"id":4,"region":"eu","doubled":8}',
    ]);
    await on.write(
      `${state}, build: ({ after, operation }) => ({ topic: "t." + operation.toLowerCase(), payload: after?.doubled })`,
    );
    await vi.waitFor(async () => {
      const built = (await eventsUntil(on.server, 4n, snapshot, ["t.*"])).events;
      expect(outline(built).toSorted()).toEqual(["4 t.snapshot 1 - 2", "4 t.snapshot 2 - 4", "4 t.snapshot 4 - 8"]);
    }, PATIENCE);
  });

  it("takes texts with comments, and templates of topics", async () => {
    await using on = await Stage.open(
      'topic: "o.{region}", initialState: "select id, region from public.orders; -- all of them"',
    );
    const commented = on.page("/livez");
    await on.database.run("insert into orders values (1, 'eu', 1), (2, 'us', 1)");
    await commented;
    // A comment hides the semicolon: the database objects, to whoever asks for this source.
    await expect(eventsUntil(on.server, 2n, snapshot, ["o.>"])).rejects.toThrow("initial state of public.orders");
    await on.write('topic: "o.{region}", initialState: "select id, region from public.orders -- all of them"');
    await vi.waitFor(async () => {
      const { events } = await eventsUntil(on.server, 2n, snapshot, ["o.>"]);
      expect(outline(events).toSorted()).toEqual([
        '2 o.eu 1 - {"id":1,"region":"eu"}',
        '2 o.us 2 - {"id":2,"region":"us"}',
      ]);
    }, PATIENCE);
  });

  it.each([
    ["a table that is not there", "select id from public.nowhere", "nowhere"],
    ["a name without its schema", "select id from orders", "orders"],
    ["rows without their key", "select total from public.orders", "has a row without its key, id"],
    ["what writes", "with w as (insert into public.plain values (77) returning id) select id from w", "initial state"],
    ["a division by zero", "select id, 1 / (id - id) as x from public.orders", "division by zero"],
  ])("with %s fails that snapshot with a sentence, and nothing else", async (_what, query, sentence) => {
    await using on = await Stage.open(`initialState: ${JSON.stringify(query)}`);
    await on.database.run("insert into orders values (1, 'eu', 1)", "insert into plain values (1)");
    const refused = eventsUntil(on.server, 2n, snapshot, ["orders"]);
    await expect(refused).rejects.toThrow("initial state of public.orders");
    await expect(refused).rejects.toThrow(sentence);
    const others = (await eventsUntil(on.server, 2n, snapshot, ["plain"])).events;
    expect(outline(others)).toEqual(['2 plain 1 - {"id":1}']);
    expect((await eventsUntil(on.server, 2n, oldest)).events).toHaveLength(2);
    expect(await on.database.value<number>("select count(*)::int from plain")).toBe(1);
  });
});
