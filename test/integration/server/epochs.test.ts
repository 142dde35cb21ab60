import { pino } from "pino";
import { describe, expect, it, vi } from "vitest";
import { FeedState, StreamState } from "../../../gen/millrace/v1/feed_service_pb.js";
import { resolveConfig } from "../../../src/server/config.ts";
import { type RunningServer, startServer } from "../../../src/server/server.ts";
import { createCluster, debian15Available } from "../../support/cluster.ts";
import { coldCopy, dump, query, standby, templateCopy } from "../../support/restores.ts";
import { type FeedClient, grpcClient, refusalFrom, resubscribe, Subscriber } from "./client.ts";

const PATIENCE = { timeout: 30_000 };

interface Running extends AsyncDisposable {
  readonly server: RunningServer;
  readonly client: FeedClient;
  readonly logged: readonly Readonly<Record<string, unknown>>[];
}

async function serve(databaseUrl: string, flags = {}): Promise<Running> {
  const logged: Record<string, unknown>[] = [];
  const log = pino({ level: "debug" }, { write: (line: string) => logged.push(JSON.parse(line)) });
  const server = await startServer(resolveConfig({ flags: { databaseUrl, port: 0, ...flags } }), { log });
  return { server, client: grpcClient(server.url), logged, [Symbol.asyncDispose]: () => server.stop(1_000) };
}

/** Publishes one event, as often as the server says that it will soon be able to; its version. */
async function publish(client: FeedClient, key: string): Promise<bigint> {
  for (;;) {
    try {
      const { version } = await client.publish({ events: [{ topic: "notes", key }] });
      return version ?? 0n;
    } catch (error) {
      if (refusalFrom(error).code !== "DATABASE_UNAVAILABLE") throw error;
    }
  }
}

async function publishAll(client: FeedClient, ...keys: readonly string[]): Promise<void> {
  for (const key of keys) await publish(client, key);
}

const oldest = { start: { case: "oldest", value: {} } } as const;
const following = (cursor: string | undefined) => ({ start: { case: "afterCursor", value: cursor ?? "" } }) as const;

describe("a disk that is rolled back under a running server", () => {
  it("G6 G8 G10 ends every stream with the fork, without a write, and the feed goes on by itself", async () => {
    await using cluster = await createCluster();
    const url = await cluster.createDatabase("shop");
    await using running = await serve(url);
    const { client, server } = running;
    await using reader = new Subscriber(client, oldest);
    await publishAll(client, "a", "b", "c");
    await reader.reaches(3n);
    const before = reader.epoch;
    const rollBack = await coldCopy(cluster);
    await publishAll(client, "d", "e");
    await reader.reaches(5n);
    await rollBack();

    expect(await reader.refusal()).toMatchObject({ code: "EPOCH_CHANGED", forkVersion: 3n });
    expect(reader.versions).toEqual([1n, 2n, 3n, 4n, 5n]);
    const { epoch } = await client.getStatus({});
    expect((await reader.refusal()).epoch).toBe(epoch);
    expect(epoch).not.toBe(before);
    expect(
      await query(url, "select parent::text, fork_version::int, reason from millrace.epoch where id = $1", [epoch]),
    ).toEqual([[before, 3, "rolled_back"]]);
    await publishAll(client, "f", "g", "h");
    await using lost = await resubscribe(client, following(reader.cursors.get(5n)));
    expect(await lost.refusal()).toMatchObject({ code: "EPOCH_CHANGED", forkVersion: 3n, epoch });
    await using kept = await resubscribe(client, following(reader.cursors.get(3n)));
    await kept.reaches(6n);
    expect([kept.epoch, kept.keys]).toEqual([epoch, ["f", "g", "h"]]);
    await using all = await resubscribe(client, { ...oldest });
    await all.reaches(6n);
    expect(all.keys).toEqual(["a", "b", "c", "f", "g", "h"]);
    expect((await fetch(`${server.url}/readyz`)).status).toBe(200);
    const said = running.logged.find(({ reason }) => reason === "rolled_back");
    expect(said).toMatchObject({ level: 40, epoch, parent: before, forkVersion: 3 });
  });

  it("G8 is found by the fingerprint when no server that had read it was left", async () => {
    await using cluster = await createCluster();
    const url = await cluster.createDatabase("shop");
    const first = await serve(url);
    await using reader = new Subscriber(first.client, oldest);
    await publishAll(first.client, "a");
    await reader.reaches(1n);
    const rollBack = await coldCopy(cluster);
    await publishAll(first.client, "b", "c");
    await reader.reaches(3n);
    await first[Symbol.asyncDispose]();
    await rollBack();
    await using second = await serve(url);
    await using beyond = await resubscribe(second.client, following(reader.cursors.get(3n)));
    expect(await beyond.refusal()).toMatchObject({ code: "CURSOR_INVALID" });
    await publishAll(second.client, "d", "e");
    for (const version of [2n, 3n]) {
      await using another = await resubscribe(second.client, following(reader.cursors.get(version)));
      expect(await another.refusal()).toMatchObject({ code: "CURSOR_INVALID" });
    }
    await using kept = await resubscribe(second.client, following(reader.cursors.get(1n)));
    await kept.reaches(3n);
    expect(kept.keys).toEqual(["d", "e"]);
  });
});

describe("a database that another takes the place of", () => {
  it("G6 G8 G10 is followed by every replica: one begins the epoch, the other finds it", async () => {
    await using cluster = await createCluster();
    const url = await cluster.createDatabase("shop");
    await using first = await serve(url);
    await using second = await serve(url);
    await using here = new Subscriber(first.client, oldest);
    await using there = new Subscriber(second.client, oldest);
    await publishAll(first.client, "a", "b");
    await Promise.all([here.reaches(2n), there.reaches(2n)]);
    const restore = await templateCopy(cluster, "shop");
    await publishAll(second.client, "c");
    await Promise.all([here.reaches(3n), there.reaches(3n)]);
    await restore();
    const refusals = await Promise.all([here.refusal(), there.refusal()]);
    expect(refusals).toMatchObject([0, 1].map(() => ({ code: "EPOCH_CHANGED", forkVersion: 2n })));
    const epochs = await query(
      url,
      "select id::text, reason, fork_version::int from millrace.epoch order by first_tick",
    );
    expect(epochs.slice(1)).toEqual([[refusals[0]?.epoch, "copied", 2]]);
    expect(refusals[1]?.epoch).toBe(refusals[0]?.epoch);
    await publishAll(first.client, "d");
    await using fromOther = await resubscribe(second.client, following(here.cursors.get(2n)));
    await fromOther.reaches(3n);
    expect(fromOther.keys).toEqual(["d"]);
    await using lost = await resubscribe(first.client, following(there.cursors.get(3n)));
    expect(await lost.refusal()).toMatchObject({ code: "EPOCH_CHANGED", forkVersion: 2n });
    const token = `${here.epoch}:3`;
    await using barrier = await resubscribe(first.client, { ...oldest, afterTransaction: token });
    expect(await barrier.refusal()).toMatchObject({ code: "EPOCH_CHANGED" });
  });

  it("G10 is waited for, aloud, when epochs are to be begun by hand; a start is refused", async () => {
    await using cluster = await createCluster();
    const url = await cluster.createDatabase("shop");
    await using running = await serve(url, { newEpoch: "refuse" });
    const { client, server } = running;
    await using reader = new Subscriber(client, oldest);
    await publishAll(client, "a");
    await reader.reaches(1n);
    const restore = await templateCopy(cluster, "shop");
    await restore();
    expect(await reader.refusal()).toMatchObject({ code: "EPOCH_CHANGED", forkVersion: undefined });
    const problem = async () => (await client.getStatus({})).problems[0];
    await vi.waitUntil(async () => (await problem())?.action.includes("begin_epoch()"), PATIENCE);
    expect((await client.getStatus({})).state).toBe(FeedState.STALE);
    const ready = await fetch(`${server.url}/readyz`);
    expect([ready.status, await ready.text()]).toEqual([503, expect.stringContaining("--new-epoch auto")]);
    await expect(serve(url, { newEpoch: "refuse" })).rejects.toMatchObject({
      code: "INVALID_REQUEST",
      action: expect.stringContaining("--new-epoch auto"),
    });
    await query(url, "select millrace.begin_epoch()");
    await vi.waitUntil(async () => (await client.getStatus({})).state === FeedState.LIVE, PATIENCE);
    await using kept = await resubscribe(client, following(reader.cursors.get(1n)));
    await publishAll(client, "b");
    await kept.reaches(2n);
    expect(kept.keys).toEqual(["b"]);
  });
});

describe.runIf(debian15Available())("a failover behind one address", () => {
  it("G6 G8 G10 waits while a standby answers, and goes on in the epoch that its promotion begins", async () => {
    await using cluster = await createCluster({ binaries: "debian-15" });
    const url = await cluster.createDatabase("shop");
    await using running = await serve(url);
    const { client } = running;
    await using reader = new Subscriber(client, oldest);
    await publishAll(client, "a", "b");
    await reader.reaches(2n);
    const failOver = await standby(cluster);
    await publishAll(client, "c");
    await reader.reaches(3n);
    await failOver();
    await reader.says(StreamState.STALE);
    await vi.waitUntil(
      async () => (await client.getStatus({})).problems[0]?.action.includes("at the primary"),
      PATIENCE,
    );
    expect(reader.error).toBeUndefined();
    await query(url, "select pg_promote()");
    const refusal = await reader.refusal();
    expect(refusal).toMatchObject({ code: "EPOCH_CHANGED", forkVersion: 2n });
    expect(await query(url, "select reason from millrace.epoch where id = $1", [refusal.epoch])).toEqual([
      ["promoted"],
    ]);
    await publishAll(client, "d");
    await using kept = await resubscribe(client, following(reader.cursors.get(2n)));
    await kept.reaches(3n);
    expect([kept.epoch, kept.keys]).toEqual([refusal.epoch, ["d"]]);
    await using lost = await resubscribe(client, following(reader.cursors.get(3n)));
    expect(await lost.refusal()).toMatchObject({ code: "EPOCH_CHANGED", forkVersion: 2n });
  });
});

describe.runIf(debian15Available())("a dump that is restored under a running server", () => {
  it("G1 G8 G10 is left alone until it is whole, and its tables are captured from then on", async () => {
    await using cluster = await createCluster({ binaries: "debian-15" });
    const url = await cluster.createDatabase("shop");
    await using running = await serve(url);
    const { client } = running;
    await query(url, "create table orders (id text primary key)");
    await query(url, "select millrace.watch('orders')");
    const order = (id: string) => query(url, "insert into orders values ($1)", [id]);
    await using reader = new Subscriber(client, oldest);
    await order("a");
    await order("b");
    await reader.reaches(2n);
    const restore = await dump(cluster, "shop");
    await order("c");
    await reader.reaches(3n);
    await query(cluster.url(), "drop database shop with (force)");
    await query(cluster.url(), "create database shop template template0");
    const said = async () => (await client.getStatus({})).problems.map(({ message }) => message).join(" ");
    await vi.waitUntil(async () => (await said()).includes("does not exist"), PATIENCE);
    expect(await query(url, "select to_regnamespace('millrace') is null")).toEqual([[true]]);
    await restore("pre-data");
    await restore("data");
    await vi.waitUntil(async () => (await said()).includes("being restored"), PATIENCE);
    expect(await query(url, "select count(*)::int from millrace.epoch")).toEqual([[1]]);
    await restore("post-data");
    await vi.waitUntil(async () => (await client.getStatus({})).state === FeedState.LIVE, PATIENCE);
    const { epoch } = await client.getStatus({});
    const begun = "select reason, fork_version::int, unsettled::int from millrace.epoch where id = $1";
    expect(await query(url, begun, [epoch])).toEqual([["restored", 2, 0]]);
    await order("d");
    await using kept = await resubscribe(client, following(reader.cursors.get(2n)));
    await kept.reaches(3n);
    await using all = await resubscribe(client, { ...oldest });
    await all.reaches(3n);
    expect([kept.keys, all.keys]).toEqual([["d"], ["a", "b", "d"]]);
    await using lost = await resubscribe(client, following(reader.cursors.get(3n)));
    expect(await lost.refusal()).toMatchObject({ code: "EPOCH_CHANGED", forkVersion: 2n });
  });
});
