import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { createPool } from "../../../src/postgres/database.ts";
import { createPoller } from "../../../src/postgres/poll/poller.ts";
import { createKeeper } from "../../../src/postgres/retention/keeper.ts";
import { listSources } from "../../../src/postgres/sources.ts";
import { createCluster, type TestCluster } from "../../support/cluster.ts";
import { never, PATIENCE, Stage } from "./stage.ts";

let cluster: TestCluster;
beforeAll(async () => {
  // Nudges come only where transactions cannot be prepared.
  cluster = await createCluster({ settings: { max_prepared_transactions: "0" } });
});
afterAll(() => cluster[Symbol.asyncDispose]());

const sessionsOf = (part: string) =>
  `select pid, state from pg_stat_activity where datname = current_database() and application_name like 'millrace ${part} %'`;

const waiters = `
  select a.application_name as name from pg_locks l join pg_stat_activity a using (pid)
  where l.locktype = 'advisory' and l.mode = 'ExclusiveLock' and l.granted and a.datname = current_database()`;

const becomeWaiter = "select pg_try_advisory_lock('millrace.outbox'::regclass::oid::int, 1) as held";

describe("the connection that listens", () => {
  test("G1 G11 that is half open delays nobody, is made anew, and leaves no waiter behind that writers would nudge", async () => {
    await using stage = await Stage.open(cluster);
    const writer = await stage.session();
    const { feed, restarted, said } = await stage.feed();
    const follower = stage.follow(feed);
    await vi.waitUntil(async () => (await writer.query(waiters)).rowCount === 1, PATIENCE);
    const [{ pid } = { pid: 0 }] = (await writer.query<{ pid: number }>(sessionsOf("waiter"))).rows;
    expect(stage.proxy.freeze("millrace waiter")).toBe(1);
    await stage.commit(writer, "while it believes to listen");
    await follower.has(1);
    await restarted("waiter");
    await vi.waitUntil(async () => {
      const { rows } = await writer.query<{ pid: number }>(sessionsOf("waiter"));
      return rows.length === 1 && rows[0]?.pid !== pid;
    }, PATIENCE);
    await vi.waitUntil(async () => (await writer.query(waiters)).rowCount === 1, PATIENCE);
    await stage.commit(writer, "after");
    await follower.has(2);
    expect(follower.isExactlyUpTo(2)).toBe(true);
    expect(said).toContain("The connection that listens works again.");
  });

  test("that does not listen, although it lives and answers, is made anew", async () => {
    await using stage = await Stage.open(cluster);
    const writer = await stage.session();
    stage.proxy.translateOnce("millrace waiter", "listen millrace_wake", "notify millrace_wake");
    const { feed, restarted, said } = await stage.feed();
    await restarted("waiter");
    expect(said.join()).toContain("without a sign of life; it does not listen");
    await vi.waitUntil(() => said.includes("The connection that listens works again."), PATIENCE);
    const follower = stage.follow(feed);
    await stage.commit(writer, "after");
    await follower.has(1);
  });

  test("G11 of a process that is frozen has the waiter's lock taken from it by another server", async () => {
    await using stage = await Stage.open(cluster);
    const frozen = await stage.session("millrace waiter 00000000");
    expect((await frozen.query(becomeWaiter)).rows[0]?.held).toBe(true);
    const person = await stage.session("psql");
    const { restarted, said } = await stage.feed({ watch: { waiterSilentMs: 500 } });
    await restarted("waiter");
    expect(said.join()).toContain('"millrace waiter 00000000" has the waiter\'s lock and says nothing');
    await vi.waitUntil(async () => {
      const { rows } = await person.query<{ name: string }>(waiters);
      return rows.length === 1 && rows[0]?.name !== "millrace waiter 00000000";
    }, PATIENCE);
  });

  test("a waiter that says something now and then is left alone, and so is one that is not Millrace's", async () => {
    await using stage = await Stage.open(cluster);
    const person = await stage.session("psql");
    expect((await person.query(becomeWaiter)).rows[0]?.held).toBe(true);
    const { restarts, watch } = await stage.feed({ watch: { waiterSilentMs: 500 } });
    const since = performance.now();
    await vi.waitUntil(() => performance.now() - since > 2_000, PATIENCE);
    await watch.sessions.endSilentWaiter(500);
    expect(restarts).toEqual([]);
    expect((await person.query<{ name: string }>(waiters)).rows).toEqual([{ name: "psql" }]);
  });
});

describe("a reader of history", () => {
  test("G1 G3 whose network swallows the rest of a page is restarted, and its stream gets every version once", async () => {
    await using stage = await Stage.open(cluster);
    const writer = await stage.session();
    const keys = Array.from({ length: 5_000 }, (_, at) => `k${at}`);
    await stage.commit(writer, ...keys);
    // In the middle of the first page.
    stage.proxy.freezeNext("millrace history", 50_000, 1);
    const { feed, restarted, said } = await stage.feed({ feed: { limits: { warmBytes: 0, logMaxBytes: 100_000 } } });
    await vi.waitUntil(() => feed.status().head === keys.length, PATIENCE);
    const follower = stage.follow(feed);
    await restarted("history");
    expect(stage.proxy.frozen).toBe(1);
    await follower.has(keys.length);
    expect(follower.isExactlyUpTo(keys.length)).toBe(true);
    expect(follower.keys).toEqual(keys);
    expect(said.join()).toMatch(
      /A reader of history waited .* to read a page .* seen from another connection, session \d+ /,
    );
    // Its session would hold back vacuum, and the outbox's partitions.
    await vi.waitUntil(async () => {
      const { rows } = await writer.query<{ state: string }>(sessionsOf("history"));
      return rows.every(({ state }) => state === "idle");
    }, PATIENCE);
  });

  test("that waits for a lock is slow and not stuck", async () => {
    await using stage = await Stage.open(cluster);
    const writer = await stage.session();
    await stage.commit(writer, "a", "b");
    const { feed, restarts } = await stage.feed({ feed: { limits: { warmBytes: 0 } } });
    await vi.waitUntil(() => feed.status().head === 2, PATIENCE);
    const one = await stage.feed({ feed: { limits: { warmBytes: 0 } } });
    await writer.query("begin; lock table only millrace.outbox in access exclusive mode");
    const follower = stage.follow(one.feed);
    const since = performance.now();
    await vi.waitUntil(() => performance.now() - since > 2_000, PATIENCE);
    await writer.query("commit");
    await follower.has(2);
    expect(follower.isExactlyUpTo(2)).toBe(true);
    expect([...restarts, ...one.restarts].filter((part) => part === "history")).toEqual([]);
  });
});

describe("other work", () => {
  test("a publication that is not answered fails, and the next one succeeds", async () => {
    await using stage = await Stage.open(cluster);
    const { store, restarted } = await stage.feed();
    const events = [{ topic: "notes", key: "k", operation: "MESSAGE", payload: "{}", headers: {} }] as const;
    const request = { events, idempotencyKey: "", principal: "" };
    await store.publish(request, never);
    stage.proxy.freeze("millrace service");
    await expect(store.publish(request, never)).rejects.toMatchObject({ code: "DATABASE_UNAVAILABLE" });
    await restarted("service");
    expect(await store.publish(request, never)).toMatchObject({ duplicate: false });
  });

  test("G7 a snapshot whose network swallows is given up long before its deadline, and another succeeds", async () => {
    await using stage = await Stage.open(cluster);
    const writer = await stage.session();
    await writer.query("create table bulky (id int primary key, filling text)");
    await writer.query("insert into bulky select i, repeat('x', 1000) from generate_series(1, 3000) i");
    await writer.query("select millrace.watch('bulky', topic => 'bulky')");
    const { store, restarted } = await stage.feed({ store: { snapshots: { deadlineMs: 60_000, cutAfterMs: 60_000 } } });
    stage.proxy.freezeNext("millrace snapshot", 500_000, 1);
    const request = { wantsSource: () => true };
    const count = async () => {
      const snapshot = await store.snapshot(request, never);
      let rows = 0;
      try {
        for await (const { events } of snapshot.rows()) rows += events.length;
      } finally {
        await snapshot.close();
      }
      return rows;
    };
    await expect(count()).rejects.toMatchObject({ code: "DATABASE_UNAVAILABLE" });
    await restarted("snapshot");
    expect(await count()).toBe(3_000);
  });

  test("a snapshot that nobody reads is not stuck", async () => {
    await using stage = await Stage.open(cluster);
    const writer = await stage.session();
    await writer.query("create table bulky (id int primary key, filling text)");
    await writer.query("insert into bulky select i, repeat('x', 1000) from generate_series(1, 3000) i");
    await writer.query("select millrace.watch('bulky', topic => 'bulky')");
    const { store, restarts } = await stage.feed();
    const snapshot = await store.snapshot({ wantsSource: () => true }, never);
    const since = performance.now();
    await vi.waitUntil(() => performance.now() - since > 2_000, PATIENCE);
    let rows = 0;
    for await (const { events } of snapshot.rows()) rows += events.length;
    await snapshot.close();
    expect(rows).toBe(3_000);
    expect(restarts).toEqual([]);
  });

  test("the keeper of the outbox, the poller and the look for problems go on after a network that swallows", async () => {
    await using stage = await Stage.open(cluster);
    const writer = await stage.session();
    await writer.query(
      "create table invoices (id int primary key, updated_at timestamptz not null default clock_timestamp())",
    );
    await writer.query("select millrace.poll('invoices', 'updated_at', topic => 'invoices', every => '100 ms')");
    const { feed, store, watch, restarted } = await stage.feed();
    const follower = stage.follow(feed);
    const { url } = stage.proxy;
    await using background = new AsyncDisposableStack();
    let rounds = 0;
    const keeper = createKeeper({
      url,
      intervalMs: 200,
      onRound: () => (rounds += 1),
      watch: watch.sessions.sessions("retention"),
    });
    const poller = createPoller({ url, epoch: store.epoch, lanes: 1, watch: watch.sessions.sessions("polling") });
    const pool = createPool({ url, max: 1, idleMs: 60_000, watch: watch.sessions.sessions("monitor") });
    background.defer(() => pool.end());
    for (const service of [keeper, poller]) {
      background.defer(() => service.stop());
      await service.start(never);
    }
    await writer.query("insert into invoices values (1)");
    await follower.has(1);
    await vi.waitUntil(() => rounds > 0, PATIENCE);
    await listSources(pool);
    stage.proxy.freeze("millrace retention");
    stage.proxy.freeze("millrace polling");
    stage.proxy.freeze("millrace monitor");
    await writer.query("insert into invoices values (2)");
    await expect(listSources(pool)).rejects.toBeDefined();
    await Promise.all([restarted("retention"), restarted("polling"), restarted("monitor")]);
    expect(await listSources(pool)).toHaveLength(1);
    await follower.has(2);
    expect(follower.keys).toEqual(["1", "2"]);
    const before = rounds;
    await vi.waitUntil(() => rounds > before, PATIENCE);
  });

  test("a process that did nothing for a while says so, and restarts nothing", async () => {
    await using stage = await Stage.open(cluster);
    const writer = await stage.session();
    const { feed, watch, restarts } = await stage.feed();
    const follower = stage.follow(feed);
    await stage.commit(writer, "before");
    await follower.has(1);
    for (const since = performance.now(); performance.now() - since < 2_500; ) {
      // Nothing else runs meanwhile.
    }
    await vi.waitUntil(() => watch.problems().some(({ code }) => code === "EVENT_LOOP_BLOCKED"), PATIENCE);
    await stage.commit(writer, "after");
    await follower.has(2);
    expect(follower.isExactlyUpTo(2)).toBe(true);
    expect(restarts).toEqual([]);
  });
});
