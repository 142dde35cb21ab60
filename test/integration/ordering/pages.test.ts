import { expect, test } from "vitest";
import { advanceAll, commit, keysOf, never, openStage, readAll, takeXid, tick, write } from "./stage.ts";

/** A history with everything in it that makes pages hard; answers what it must read as. */
async function writeHistory(stage: Awaited<ReturnType<typeof openStage>>): Promise<readonly string[]> {
  const [long, other, session] = [await stage.session(), await stage.session(), await stage.session()];
  const expected: string[] = [];
  const settle = async (...keys: string[]) => {
    await commit(session, ...keys);
    await tick(session);
    expected.push(...keys);
  };
  await long.query("begin");
  await write(long, "long 1");
  for (let index = 0; index < 15; index += 1) await settle(`small ${index}`);
  await write(long, "long 2");
  // One tick larger than the tests' pages, with another transaction's rows in between.
  await other.query("begin");
  await session.query("begin");
  for (let index = 0; index < 40; index += 1) {
    await write(other, `beside ${index}`);
    await write(session, `big ${index}`);
    expected.push(`big ${index}`);
  }
  await session.query("commit");
  await tick(session);
  await settle("between");
  await write(long, "long 3");
  await long.query("commit");
  await other.query("commit");
  await tick(session);
  expected.push("long 1", "long 2", ...Array.from({ length: 40 }, (_, index) => `beside ${index}`), "long 3");
  // A few rows far apart: by xid.
  await long.query("begin");
  await takeXid(long);
  await write(long, "sparse 1");
  await commit(session, ...Array.from({ length: 60 }, (_, index) => `mass ${index}`));
  await tick(session);
  expected.push(...Array.from({ length: 60 }, (_, index) => `mass ${index}`));
  await write(long, "sparse 2");
  await long.query("commit");
  await tick(session);
  expected.push("sparse 1", "sparse 2");
  for (let index = 0; index < 5; index += 1) await settle(`last ${index} a`, `last ${index} b`);
  return expected;
}

test("G8 read from every version on, with pages of every size, it is the same history", async () => {
  await using stage = await openStage();
  const expected = await writeHistory(stage);
  for (const maxRows of [1, 2, 7, 39, 40, 41, 20_000]) {
    const store = await stage.store({ pages: { maxRows } });
    expect(keysOf(await readAll(store)), `pages of ${maxRows}`).toEqual(expected);
  }
  for (let after = 0; after <= expected.length; after += 1) {
    // A store of its own knows no places: it enters each tick cold.
    const store = await stage.store({ pages: { maxRows: 7 } });
    expect(keysOf(await readAll(store, after)), `after ${after}`).toEqual(expected.slice(after));
    await store.stop();
  }
});

test("G8 the tail reads the same history from every version on", async () => {
  await using stage = await openStage();
  const expected = await writeHistory(stage);
  const store = await stage.store();
  for (let after = 0; after <= expected.length; after += 1) {
    expect(keysOf(await advanceAll(store, after)), `after ${after}`).toEqual(expected.slice(after));
  }
});

test("a page names the ticks that it touches, and its bytes", async () => {
  await using stage = await openStage();
  const session = await stage.session();
  await commit(session, "a", "b", "c");
  await tick(session);
  await commit(session, "d");
  await tick(session);
  const store = await stage.store({ pages: { maxRows: 2 } });
  const first = await store.readAfter(0, never);
  const second = await store.readAfter(2, never);
  expect(first?.ticks.map(({ firstVersion, count }) => [firstVersion, count])).toEqual([[1, 3]]);
  expect(second?.events.map(({ version }) => version)).toEqual([3]);
  expect(second?.ticks).toEqual(first?.ticks);
  const tail = await store.advance(0, never);
  expect(tail?.ticks.map(({ firstVersion, count }) => [firstVersion, count])).toEqual([
    [1, 3],
    [4, 1],
  ]);
  expect(tail?.ticks[0]).toEqual(first?.ticks[0]);
  expect(await store.tickOf(2, never)).toEqual(first?.ticks[0]);
  expect(await store.tickOf(5, never)).toBeUndefined();
  expect((await store.tickOf(0, never))?.tick).toBe(0);
  const last = tail?.ticks[1];
  expect(await store.tickAt(last?.timeMicros ?? 0, never)).toEqual(last);
  expect(await store.tickAt((last?.timeMicros ?? 0) - 1, never)).toEqual(first?.ticks[0]);
});

test("history and tail give an event the same fields", async () => {
  await using stage = await openStage();
  const session = await stage.session();
  await session.query(`
    insert into millrace.outbox (topic, key, operation, before, after, headers, occurred_at) values
      ('déjà.vu', 'clé', 'U', '{"a": "\\u0000"}', '{"n":1e400000}', '{"h":"v"}', '2026-01-02 03:04:05.678901+00'),
      ('t', null, 'T', null, null, null, '1999-12-31 23:59:59.999999+00')`);
  const store = await stage.store();
  const plain = (events: Awaited<ReturnType<typeof readAll>>) =>
    events.map((event) => ({
      ...event,
      before: event.before && Buffer.from(event.before).toString(),
      after: event.after && Buffer.from(event.after).toString(),
      headers: event.headers && Buffer.from(event.headers).toString(),
    }));
  const tail = plain(await advanceAll(store));
  expect(plain(await readAll(store))).toEqual(tail);
  expect(tail[0]).toMatchObject({
    version: 1,
    topic: "déjà.vu",
    key: "clé",
    operation: "UPDATE",
    before: '{"a": "\\u0000"}',
    after: '{"n":1e400000}',
    headers: '{"h":"v"}',
    occurredAtMicros: Date.UTC(2026, 0, 2, 3, 4, 5) * 1000 + 678_901,
  });
  expect(tail[1]).toMatchObject({ key: undefined, operation: "TRUNCATE", before: undefined, after: undefined });
  expect(tail[1]?.occurredAtMicros).toBe(Date.UTC(2000, 0, 1) * 1000 - 1);
});

test("pages are bounded in bytes, and a row larger than a page is a page", async () => {
  await using stage = await openStage();
  const session = await stage.session();
  const insert = (key: string, length: number) =>
    session.query(
      "insert into millrace.outbox (topic, key, operation, after) values ('t', $1, 'M', to_json(repeat('x', $2)))",
      [key, length],
    );
  const long = await stage.session();
  await long.query("begin");
  await takeXid(long);
  for (let index = 0; index < 20; index += 1) await insert(`small ${index}`, 10);
  await long.query(
    "insert into millrace.outbox (topic, key, operation, after) values ('t', 'first seq, last tick', 'M', to_json(repeat('x', 900000)))",
  );
  for (let index = 0; index < 12; index += 1) await insert(`large ${index}`, 300_000);
  await tick(session);
  await long.query("commit");
  await tick(session);
  const maxBytes = 500_000;
  for (const read of ["readAfter", "advance"] as const) {
    const store = await stage.store({ pages: { maxBytes } });
    const keys: (string | undefined)[] = [];
    for (;;) {
      const page = await store[read](keys.length, never);
      if (page === undefined) break;
      const last = page.events.at(-1)?.after?.length ?? 0;
      // The tail's own bound is 4 MiB; history's is what was asked for. Either ends with the event that reaches it.
      expect(page.bytes - last).toBeLessThan(read === "advance" ? 4.1 * 1024 * 1024 : maxBytes + 1000);
      keys.push(...keysOf(page.events));
    }
    expect(keys).toHaveLength(33);
    expect(keys.at(-1)).toBe("first seq, last tick");
    expect(keys.slice(0, 20)).toEqual(Array.from({ length: 20 }, (_, index) => `small ${index}`));
  }
});

test("G1 a page goes on when a large row of a later tick comes before any of its first", async () => {
  await using stage = await openStage();
  const session = await stage.session();
  const late = await stage.session();
  await late.query("begin");
  await late.query(
    "insert into millrace.outbox (topic, key, operation, after) values ('t', 'large', 'M', to_json(repeat('x', 200000)))",
  );
  await commit(session, "a");
  await tick(session);
  await late.query("commit");
  await tick(session);
  const store = await stage.store({ historyConnections: 1, pages: { maxBytes: 100_000 } });
  expect(keysOf(await readAll(store))).toEqual(["a", "large"]);
  expect(keysOf(await advanceAll(store))).toEqual(["a", "large"]);
});

test("HISTORY_LOST says what is still there, and bounds agree", async () => {
  await using stage = await openStage();
  const session = await stage.session();
  for (const keys of [["a"], ["b", "c"], ["d"]]) {
    await commit(session, ...keys);
    await tick(session);
  }
  const store = await stage.store();
  expect(await store.bounds(never)).toEqual({ oldest: 1, head: 4 });
  await session.query(
    "delete from millrace.tick where tick < 2; delete from millrace.outbox where key in ('a', 'b', 'c')",
  );
  expect(await store.bounds(never)).toEqual({ oldest: 4, head: 4 });
  expect(keysOf(await readAll(store, 3))).toEqual(["d"]);
  for (const after of [0, 1, 2]) {
    const lost = { code: "HISTORY_LOST", detail: { oldestVersion: 4, headVersion: 4 } };
    await expect(store.readAfter(after, never)).rejects.toMatchObject(lost);
    await expect(store.advance(after, never)).rejects.toMatchObject(lost);
  }
  expect(await store.readAfter(4, never)).toBeUndefined();
  expect(await store.readAfter(99, never)).toBeUndefined();
});

test("G1 a row that went missing is an error, never a silent hole", async () => {
  await using stage = await openStage();
  const session = await stage.session();
  await commit(session, "a", "b", "c");
  await tick(session);
  await session.query("delete from millrace.outbox where key = 'b'");
  const store = await stage.store();
  await expect(store.readAfter(0, never)).rejects.toMatchObject({ code: "INTERNAL" });
  await expect(store.advance(0, never)).rejects.toMatchObject({ code: "INTERNAL" });
});

test.each([1, 20])(
  "G3 a row too many is an error in pages of %d, never a shifted version or a silent wait",
  async (maxRows) => {
    await using stage = await openStage();
    const session = await stage.session();
    await commit(session, "a", "b");
    await tick(session);
    await commit(session, "c", "d");
    await tick(session);
    await session.query(`
    insert into millrace.outbox (xid, seq, topic, operation) select xid, seq + 50, 't', 'M' from millrace.outbox where key = 'a';
    update millrace.tick set max_seq = max_seq + 50 where tick = 1`);
    const store = await stage.store({ historyConnections: 1, pages: { maxRows } });
    for (const attempt of [1, 2]) {
      await expect(readAll(store), `attempt ${attempt}`).rejects.toMatchObject({ code: "INTERNAL" });
      await expect(advanceAll(store), `attempt ${attempt}`).rejects.toMatchObject({ code: "INTERNAL" });
    }
  },
);
