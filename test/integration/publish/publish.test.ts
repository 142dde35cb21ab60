import type pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Event } from "../../../src/core/event.ts";
import type { NewEvent, Published } from "../../../src/core/ports.ts";
import { publish } from "../../../src/postgres/publish.ts";
import { createPostgresStore } from "../../../src/postgres/store.ts";
import { createCluster } from "../../support/cluster.ts";
import { until } from "../../support/deadline.ts";
import { createFeedDatabase, type FeedDatabase, forever } from "../snapshot/feed-database.ts";

let database: FeedDatabase;

beforeAll(async () => {
  database = await createFeedDatabase();
  await database.sql(`create table orders (id int primary key, region text);
    select millrace.watch('orders', topic => 'orders.{region}')`);
});

afterAll(() => database[Symbol.asyncDispose]());

function message(part: Partial<NewEvent> = {}): NewEvent {
  return { topic: "mail", key: undefined, operation: "MESSAGE", payload: undefined, headers: {}, ...part };
}

interface Asked {
  readonly key?: string;
  readonly principal?: string;
  readonly pool?: FeedDatabase["pool"];
}

function send(events: readonly NewEvent[], { key = "", principal = "", pool = database.pool }: Asked = {}) {
  return publish(pool, database.epoch, { events, idempotencyKey: key, principal }, forever);
}

async function written({ xid }: Published) {
  return database.sql(
    `select topic, key, operation::text, before::text, after::text, headers::text from millrace.outbox
     where xid = $1::xid8 order by seq`,
    [xid],
  );
}

async function openStore({ url }: FeedDatabase) {
  const store = createPostgresStore({ url });
  await store.start(forever);
  return { readAfter: store.readAfter.bind(store), [Symbol.asyncDispose]: () => store.stop() };
}

describe("publish", () => {
  it("appends all events of a request in order, in one transaction, as they are written", async () => {
    const digits = '{"n": 1.000000000000000000000000001, "e":1e400000,  "z":"\\u0000", "é":[]}';
    const published = await send([
      message({ payload: digits, headers: { b: "2", a: "1" } }),
      message({ topic: "mail.a", key: 'k"1,{}', operation: "INSERT", payload: "null" }),
      message({ topic: "mail.a", key: "k", operation: "DELETE", payload: "1" }),
      message({ topic: "mail.a", key: "NULL", operation: "UPDATE" }),
    ]);
    expect(published.duplicate).toBe(false);
    expect(await written(published)).toEqual([
      { topic: "mail", key: null, operation: "M", before: null, after: digits, headers: '{"b":"2","a":"1"}' },
      { topic: "mail.a", key: 'k"1,{}', operation: "I", before: null, after: "null", headers: null },
      { topic: "mail.a", key: "k", operation: "D", before: "1", after: null, headers: null },
      { topic: "mail.a", key: "NULL", operation: "U", before: null, after: null, headers: null },
    ]);
  });

  it("takes ten thousand events", async () => {
    const published = await send(Array.from({ length: 10_000 }, (_, i) => message({ payload: `${i}` })));
    expect((await written(published)).map(({ after }) => Number(after))).toEqual(
      Array.from({ length: 10_000 }, (_, i) => i),
    );
  });

  it.each<readonly [string, NewEvent, string, string]>([
    ["invalid JSON", message({ payload: "{'a':1}" }), "INVALID_REQUEST", "events[1].payload.json"],
    ["an empty payload", message({ payload: "" }), "INVALID_REQUEST", "events[1].payload.json"],
    ["a key with U+0000", message({ key: "a\0" }), "INVALID_REQUEST", "events[1].key"],
    ["a header with U+0000", message({ headers: { a: "\0" } }), "INVALID_REQUEST", "events[1].headers"],
    ["an UPDATE without a key", message({ operation: "UPDATE" }), "INVALID_REQUEST", "events[1].key"],
    ["a TRUNCATE", message({ operation: "TRUNCATE" }), "INVALID_REQUEST", "events[1].operation"],
    ["a topic that is none", message({ topic: "a..b" }), "INVALID_REQUEST", "events"],
    [
      "JSON too deep for Postgres",
      message({ payload: "[".repeat(100_000) + "]".repeat(100_000) }),
      "INVALID_REQUEST",
      "events",
    ],
    ["the topic of a watched table", message({ topic: "orders.eu" }), "TOPIC_FORBIDDEN", "events[1].topic"],
  ])("refuses %s, with its place, and appends nothing of the request", async (what, wrong, code, field) => {
    const [before] = await database.sql("select count(*) from millrace.outbox");
    await expect(send([message(), wrong], { key: "refused" })).rejects.toMatchObject({
      code,
      detail: { violations: [{ field }] },
    });
    expect(await database.sql("select count(*) from millrace.outbox")).toEqual([before]);
    expect((await send([message({ payload: JSON.stringify(code) })], { key: `after ${what}` })).duplicate).toBe(false);
  });

  it("refuses an epoch that is not this database's", async () => {
    const request = { events: [message()], idempotencyKey: "", principal: "" };
    await expect(
      publish(database.pool, "00000000-0000-4000-8000-000000000000", request, forever),
    ).rejects.toMatchObject({
      code: "EPOCH_CHANGED",
    });
  });

  it("says what a role lacks", async () => {
    const role = `nobody_${process.pid}`;
    await database.sql(`create role ${role} login`);
    await expect(send([message()], { pool: database.poolAs(role) })).rejects.toMatchObject({
      code: "DATABASE_UNAVAILABLE",
      action: expect.stringContaining("doctor"),
    });
  });
});

describe("an idempotency key", () => {
  it("answers a repeated request as the first was answered, and appends nothing", async () => {
    const events = [message({ payload: "1", headers: { a: "1", b: "2" } })];
    const first = await send(events, { key: "again" });
    const again = await send([message({ payload: "1", headers: { b: "2", a: "1" } })], { key: "again" });
    expect(again).toEqual({ xid: first.xid, duplicate: true });
    expect(await written(first)).toHaveLength(1);
  });

  it("answers with the version once it is settled, among transactions that commit late, until it is not kept", async () => {
    await using feed = await createFeedDatabase();
    const ask = (i: number) =>
      publish(
        feed.pool,
        feed.epoch,
        { events: [message({ payload: `${i}` }), message()], idempotencyKey: `k${i}`, principal: "" },
        forever,
      );
    const late: pg.Client[] = [];
    const xids: string[] = [];
    for (let i = 0; i < 30; i += 1) {
      const session = await feed.session();
      await session.query("begin; select millrace.emit('late')");
      late.push(session);
      xids.push((await ask(i)).xid);
      expect((await ask(i)).version).toBeUndefined();
      if (i % 3 === 0) await late.shift()?.query("commit");
      if (i % 4 === 0) await late.pop()?.query("rollback");
      if (i % 2 === 0) await feed.tick();
    }
    for (const session of late) await session.query("commit");
    await feed.tick();
    await using store = await openStore(feed);
    const events: Event[] = [];
    for (let page = await store.readAfter(0, forever); page !== undefined; ) {
      events.push(...page.events);
      page = await store.readAfter(events.length, forever);
    }
    expect(events.length).toBeGreaterThan(60);
    for (const [i, xid] of xids.entries()) {
      const version = events.findLast(({ transaction }) => transaction === xid)?.version;
      expect(await ask(i)).toEqual({ xid, duplicate: true, version: version ?? "none" });
    }
    await feed.sql("delete from millrace.outbox where xid = $1::xid8", [xids[0]]);
    expect(await ask(0)).toEqual({ xid: xids[0], duplicate: true, version: undefined });
    await feed.sql("delete from millrace.tick where tick < (select max(tick) from millrace.tick)");
    expect((await ask(5)).version).toBeUndefined();
  });

  it.each<readonly [string, readonly NewEvent[]]>([
    ["payload", [message({ payload: "1 " })]],
    ["key", [message({ payload: "1", key: "" })]],
    ["number of events", [message({ payload: "1" }), message()]],
    ["header", [message({ payload: "1", headers: { "": "" } })]],
  ])("with another %s is refused", async (_, events) => {
    await send([message({ payload: "1" })], { key: "mine" });
    await expect(send(events, { key: "mine" })).rejects.toMatchObject({
      code: "INVALID_REQUEST",
      detail: { violations: [{ field: "idempotency_key" }] },
    });
  });

  it("belongs to its principal", async () => {
    expect((await send([message()], { key: "shared", principal: "a" })).duplicate).toBe(false);
    expect((await send([message()], { key: "shared", principal: "b" })).duplicate).toBe(false);
  });

  it("is for once, however many come at the same moment, whatever the role's isolation", async () => {
    const role = `eager_${process.pid}`;
    await database.sql(`create role ${role} login; select millrace.allow('${role}', 'server');
      alter role ${role} set default_transaction_isolation = 'serializable'`);
    const pool = database.poolAs(role, 16);
    for (let round = 0; round < 10; round += 1) {
      const answers = await Promise.all(
        Array.from({ length: 16 }, () => send([message({ payload: "7" })], { key: `race ${round}`, pool })),
      );
      expect(new Set(answers.map(({ xid }) => xid)).size).toBe(1);
      expect(answers.filter(({ duplicate }) => !duplicate)).toHaveLength(1);
      for (const answer of answers.slice(0, 1)) expect(await written(answer)).toHaveLength(1);
    }
  });

  /** Somebody's request with the key, up to his commit. */
  async function inProgress(key: string, payload: string) {
    const session = await database.session();
    await session.query("begin");
    await session.query(
      `select from millrace.publish('{mail}', '{null}', '{MESSAGE}', array[$2], '{null}', '', $1, '\\x00')`,
      [key, payload],
    );
    return session;
  }

  const somebodyWaits = async () =>
    (await database.sql("select from pg_locks where locktype = 'transactionid' and not granted")).length > 0;

  it("waits for one that is in progress and goes ahead when that rolls back", async () => {
    const session = await inProgress("rolled back", "1");
    const second = send([message({ payload: "2" })], { key: "rolled back" });
    await until("the second waits for the first", somebodyWaits);
    await session.query("rollback");
    expect((await second).duplicate).toBe(false);
    expect(await written(await second)).toHaveLength(1);
  });

  it("waits for one that is in progress and compares with it when that commits", async () => {
    const session = await inProgress("committed", "1");
    const second = expect(send([message({ payload: "2" })], { key: "committed" })).rejects.toMatchObject({
      code: "INVALID_REQUEST",
    });
    await until("the second waits for the first", somebodyWaits);
    await session.query("commit");
    await second;
  });

  it("is forgotten after 24 hours, and what is forgotten is deleted a little at a time", async () => {
    await send([message()], { key: "old" });
    await database.sql("delete from millrace.publication where idempotency_key <> 'old'");
    await database.sql("update millrace.publication set created_at = now() - interval '24 hours 1 second'");
    await database.sql(`insert into millrace.publication (principal, idempotency_key, content_hash, created_at)
      select 'x', i::text, '', now() - interval '2 days' from generate_series(1, 40) i`);
    expect((await send([message({ payload: "1" })], { key: "old" })).duplicate).toBe(false);
    const left = "select count(*)::int from millrace.publication";
    expect(await database.sql(left)).toEqual([{ count: 1 + 40 - 16 }]);
    await send([message()], { key: "new" });
    await send([message()], { key: "newer" });
    expect(await database.sql(left)).toEqual([{ count: 3 }]);
    expect((await send([message({ payload: "1" })], { key: "old" })).duplicate).toBe(true);
  });
});

it("G6 what is answered is durable, whatever the role's synchronous_commit", async () => {
  // The WAL writer would flush by itself within 200 ms: here it does not within the test.
  await using cluster = await createCluster({ settings: { wal_writer_delay: "10s", autovacuum: "off" } });
  await using lazy = await createFeedDatabase(cluster);
  await lazy.sql("alter role postgres set synchronous_commit = off");
  const pool = lazy.poolAs("postgres", 1);
  const flushed = async () => {
    const [row] = await lazy.sql<{ flushed: boolean }>(
      "select pg_current_wal_flush_lsn() >= pg_current_wal_insert_lsn() as flushed",
    );
    return row?.flushed;
  };
  await publish(pool, lazy.epoch, { events: [message()], idempotencyKey: "", principal: "" }, forever);
  expect(await flushed()).toBe(true);
  await pool.query("select millrace.emit('mail')");
  expect(await flushed()).toBe(false);
});
