import { type Client, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport } from "@connectrpc/connect-node";
import { describe, expect, it, vi } from "vitest";
import { ErrorCode, ErrorDetailSchema } from "../../../gen/millrace/v1/error_pb.js";
import { FeedService } from "../../../gen/millrace/v1/feed_service_pb.js";
import { CaptureOrder, SourceService, SourceState } from "../../../gen/millrace/v1/source_service_pb.js";
import { resolveConfig } from "../../../src/server/config.ts";
import { type RunningServer, startServer } from "../../../src/server/server.ts";
import { createCluster, sharedCluster, type TestCluster } from "../../support/cluster.ts";
import { WatchedDatabase } from "../capture/watched-database.ts";
import { grpcClient, Subscriber } from "../server/client.ts";

interface Stage extends AsyncDisposable {
  readonly database: WatchedDatabase;
  readonly server: RunningServer;
  readonly sources: Client<typeof SourceService>;
}

/** A migrated database, and a server on it; as another role when given. */
async function stage(
  cluster: TestCluster,
  { role = "", flags = {}, setUp = [] as readonly string[] } = {},
): Promise<Stage> {
  const database = await WatchedDatabase.create(cluster);
  await database.run(...setUp);
  const name = new URL(database.url).pathname.slice(1);
  const databaseUrl = role === "" ? database.url : cluster.url(name, role);
  const server = await startServer(resolveConfig({ flags: { databaseUrl, port: 0, logLevel: "silent", ...flags } }));
  return {
    database,
    server,
    sources: createClient(SourceService, createGrpcTransport({ baseUrl: server.url })),
    async [Symbol.asyncDispose]() {
      await server.stop(0);
      await database[Symbol.asyncDispose]();
    },
  };
}

async function refusalOf(call: Promise<unknown>): Promise<{ code: string; message: string; action: string }> {
  const error: unknown = await call.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  const detail = error instanceof ConnectError ? error.findDetails(ErrorDetailSchema)[0] : undefined;
  if (detail === undefined) throw error ?? new Error("the call was expected to fail");
  return { code: ErrorCode[detail.code] ?? "", message: String(error), action: detail.action };
}

describe("SourceService", () => {
  it("refuses names that Postgres cannot store, before they reach it", async () => {
    await using on = await stage(await sharedCluster(), { setUp: ["create table orders (id int primary key, v int)"] });
    const { sources } = on;
    const bad = "v\0; drop table orders";
    for (const call of [
      () => sources.watchSource({ table: bad }),
      () => sources.unwatchSource({ table: bad }),
      () => sources.watchSource({ table: "orders", key: { names: [bad] } }),
      () => sources.watchSource({ table: "orders", include: { names: ["id", bad] } }),
      () => sources.watchSource({ table: "orders", exclude: { names: [bad] } }),
      () => sources.watchSource({ table: "orders", polling: { column: bad } }),
      () => sources.watchSource({ table: "orders", polling: { column: "v", deletedColumn: bad } }),
      () => sources.watchSource({ table: "orders", topic: "orders.{\0}" }),
    ]) {
      expect(await refusalOf(call())).toMatchObject({ code: "INVALID_REQUEST" });
    }
    expect((await sources.listSources({})).sources).toEqual([]);
  });

  it("watches a table, changes what is given and nothing else, lists it, and ends it", async () => {
    await using on = await stage(await sharedCluster(), {
      setUp: ["create table orders (id int primary key, region text not null, secret text, note text)"],
    });
    const { sources } = on;
    expect((await sources.listSources({})).sources).toEqual([]);
    const first = await sources.watchSource({
      table: "orders",
      topic: "shop.{region}",
      key: { names: ["region", "id"] },
      exclude: { names: ["secret"] },
      beforeValues: false,
      order: CaptureOrder.STRICT,
    });
    expect(first.source).toMatchObject({
      table: "public.orders",
      topic: "shop.{region}",
      key: ["region", "id"],
      exclude: ["secret"],
      beforeValues: false,
      truncate: true,
      order: CaptureOrder.STRICT,
      state: SourceState.OK,
      problems: [],
    });
    await sources.watchSource({ table: "public.orders", exclude: { names: [] } });
    const [changed] = (await sources.listSources({})).sources;
    expect(changed).toMatchObject({ topic: "shop.{region}", exclude: [], beforeValues: false });
    await sources.watchSource({ table: "orders", reset: true });
    const [reset] = (await sources.listSources({})).sources;
    expect(reset).toMatchObject({ topic: "orders", key: ["id"], beforeValues: true, order: CaptureOrder.DEFAULT });
    await sources.unwatchSource({ table: "orders" });
    expect((await sources.listSources({})).sources).toEqual([]);
    expect(await refusalOf(sources.unwatchSource({ table: "orders" }))).toMatchObject({ code: "SOURCE_NOT_FOUND" });
  });

  it("watches by polling, and refuses to mix that with what is for triggers", async () => {
    await using on = await stage(await sharedCluster(), {
      setUp: ["create table t (id int primary key, updated_at timestamptz not null, deleted_at timestamptz)"],
    });
    const polling = { column: "updated_at", deletedColumn: "deleted_at", every: { seconds: 0n, nanos: 5e8 } };
    const { source } = await on.sources.watchSource({ table: "t", polling });
    expect(source?.polling).toMatchObject(polling);
    expect(source?.polling?.overlap).toMatchObject({ seconds: 60n });
    const mixed = await refusalOf(on.sources.watchSource({ table: "t", polling, beforeValues: true }));
    expect(mixed).toMatchObject({ code: "INVALID_REQUEST" });
    expect(mixed.message).toContain("before_values");
    await on.sources.unwatchSource({ table: "t" });
    expect((await on.sources.listSources({})).sources).toEqual([]);
  });

  it("says of a table what is wrong with its capture", async () => {
    await using on = await stage(await sharedCluster(), { setUp: ["create table t (id int primary key)"] });
    await on.sources.watchSource({ table: "t" });
    await on.database.run('alter table t disable trigger "!millrace_row"');
    const [source] = (await on.sources.listSources({})).sources;
    expect(source?.state).toBe(SourceState.OFF);
    expect(source?.problems).toMatchObject([{ code: "TRIGGER_OFF" }]);
  });

  it("refuses what cannot be watched with the database's own sentence", async () => {
    await using on = await stage(await sharedCluster(), {
      setUp: ["create view v as select 1 as id", "create table keyless (v text)"],
    });
    const view = await refusalOf(on.sources.watchSource({ table: "v" }));
    expect(view).toMatchObject({ code: "INVALID_REQUEST" });
    expect(view.message).toContain("a view");
    expect(await refusalOf(on.sources.watchSource({ table: "keyless" }))).toMatchObject({ code: "INVALID_REQUEST" });
    expect(await refusalOf(on.sources.watchSource({ table: "nowhere" }))).toMatchObject({ code: "INVALID_REQUEST" });
    expect(await refusalOf(on.sources.watchSource({ table: "a;b" }))).toMatchObject({ code: "INVALID_REQUEST" });
    expect(await refusalOf(on.sources.watchSource({ table: "" }))).toMatchObject({ code: "INVALID_REQUEST" });
  });

  it("tells a server whose role lacks the rights who has them", async () => {
    await using cluster = await createCluster();
    await using on = await stage(cluster, {
      role: "mill",
      flags: { migrate: false },
      setUp: [
        "create role mill login",
        "select millrace.allow('mill', 'server')",
        "create role keeper login",
        "create table orders (id int primary key)",
        "alter table orders owner to keeper",
      ],
    });
    const first = await refusalOf(on.sources.watchSource({ table: "orders" }));
    expect(first).toMatchObject({ code: "TOPIC_FORBIDDEN" });
    expect(first.action).toContain("millrace.allow('<role>', 'watcher')");
    await on.database.run("select millrace.allow('mill', 'watcher')");
    const second = await refusalOf(on.sources.watchSource({ table: "orders" }));
    expect(second).toMatchObject({ code: "TOPIC_FORBIDDEN" });
    expect(second.action).toContain("millrace watch orders");
    expect(second.action).toContain("keeper");
    await on.database.run("grant keeper to mill");
    expect((await on.sources.watchSource({ table: "orders" })).source).toMatchObject({ topic: "orders" });
  });

  it("names the session that keeps the table locked, and makes nobody wait who gives up", async () => {
    await using on = await stage(await sharedCluster(), { setUp: ["create table t (id int primary key)"] });
    const blocker = await on.database.session();
    await blocker.query("begin; insert into t values (1)");
    const pid = (await blocker.query<{ pid: number }>("select pg_backend_pid() as pid")).rows[0]?.pid;
    const call = new AbortController();
    const abandoned = on.sources.watchSource({ table: "t" }, { signal: call.signal }).catch(() => "gone");
    await vi.waitUntil(
      () =>
        on.database.value<boolean>(
          "exists (select from pg_locks l where not l.granted and l.relation = 't'::regclass)",
        ),
      { timeout: 10_000 },
    );
    call.abort();
    expect(await abandoned).toBe("gone");
    const refused = await refusalOf(on.sources.watchSource({ table: "t" }));
    expect(refused).toMatchObject({ code: "DATABASE_UNAVAILABLE" });
    expect(refused.message).toContain(String(pid));
    await blocker.query("commit");
    expect((await on.sources.watchSource({ table: "t" })).source).toMatchObject({ state: SourceState.OK });
  });

  it("G1 loses nothing of other tables while tables are watched, changed and unwatched under writers and streams", async () => {
    await using on = await stage(await sharedCluster(), {
      setUp: ["create table steady (id int primary key)", "create table moving (id int primary key, note text)"],
    });
    const { sources, database } = on;
    await sources.watchSource({ table: "steady" });
    await using subscriber = new Subscriber(grpcClient(on.server.url), { selectors: [{ topics: ["steady"] }] });
    await vi.waitUntil(() => subscriber.epoch !== "");
    const writing = new AbortController();
    let written = 0;
    const writer = await database.session();
    const write = async (): Promise<void> => {
      while (!writing.signal.aborted) {
        written += 1;
        await writer.query("insert into steady values ($1)", [written]);
        await writer.query("insert into moving values ($1)", [written]);
      }
    };
    const done = write();
    for (let round = 0; round < 5; round += 1) {
      await sources.watchSource({ table: "moving" });
      await sources.watchSource({ table: "moving", topic: `moving.r${round}`, exclude: { names: ["note"] } });
      await sources.unwatchSource({ table: "moving" });
    }
    writing.abort();
    await done;
    await vi.waitUntil(() => subscriber.keys.length >= written || subscriber.error !== undefined, { timeout: 30_000 });
    expect(subscriber.error).toBeUndefined();
    expect(subscriber.keys).toEqual(Array.from({ length: written }, (_, at) => String(at + 1)));
  });

  it("is off where more than this machine can call, unless it is switched on, and says so", async () => {
    const cluster = await sharedCluster();
    await using off = await stage(cluster, { flags: { host: "0.0.0.0", insecure: true } });
    const url = `http://127.0.0.1:${off.server.port}`;
    const refused = createClient(SourceService, createConnectTransport({ baseUrl: url, httpVersion: "1.1" }));
    for (const call of [
      refused.listSources({}),
      refused.watchSource({ table: "t" }),
      refused.unwatchSource({ table: "t" }),
    ]) {
      const refusal = await refusalOf(call);
      expect(refusal).toMatchObject({ code: "TOPIC_FORBIDDEN" });
      expect(refusal.action).toContain("--sources-api on");
    }
    await using on = await stage(cluster, { flags: { host: "0.0.0.0", insecure: true, sourcesApi: "on" } });
    const allowed = createConnectTransport({ baseUrl: `http://127.0.0.1:${on.server.port}`, httpVersion: "1.1" });
    expect((await createClient(SourceService, allowed).listSources({})).sources).toEqual([]);
    expect((await createClient(FeedService, allowed).getStatus({})).state).toBeGreaterThan(0);
  });

  it("answers a plain GET to the list", async () => {
    await using on = await stage(await sharedCluster());
    const query = "connect=v1&encoding=json&message=%7B%7D";
    const answer = await fetch(`${on.server.url}/millrace.v1.SourceService/ListSources?${query}`);
    expect(await answer.json()).toEqual({});
  });
});
