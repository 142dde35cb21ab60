import { describe, expect, test } from "vitest";
import type { Event } from "../../../src/core/event.ts";
import { tickEnd } from "../../../src/core/page.ts";
import { createPool } from "../../../src/postgres/database.ts";
import { withLease } from "../../../src/postgres/lease.ts";
import { type Prunable, readPrunable } from "../../../src/postgres/retention/upkeep.ts";
import { advanceAll, commit, keysOf, never, readAll, tick } from "../ordering/stage.ts";
import { openRetentionStage, type RetentionStage } from "./stage.ts";

async function prunable(stage: RetentionStage): Promise<readonly Prunable[]> {
  const pool = createPool({ url: stage.url, max: 1, idleMs: 1000 });
  try {
    return await withLease(pool, never, readPrunable);
  } finally {
    await pool.end();
  }
}

/** Three partitions of two events each, settled ten, five and no days ago. */
async function threePartitions(stage: RetentionStage): Promise<void> {
  await stage.settle("old 1", "old 2");
  await stage.nextPartition();
  await stage.age("5 days");
  await stage.settle("middle 1", "middle 2");
  await stage.nextPartition();
  await stage.age("5 days");
  await stage.settle("young 1", "young 2");
}

/** All that is asked of a database, by version. */
async function everything(stage: RetentionStage): Promise<ReadonlyMap<number, Event>> {
  const store = await stage.store();
  const { oldest } = await store.bounds(never);
  return new Map((await readAll(store, oldest - 1)).map((event) => [event.version, event]));
}

describe("by age", () => {
  test("what settled longer ago goes, by the partition; the rest keeps its versions and its bytes", async () => {
    await using stage = await openRetentionStage();
    await threePartitions(stage);
    const before = await everything(stage);
    expect(before.size).toBe(6);
    expect(await stage.keep()).toMatchObject({ dropped: ["outbox_1"], waitsFor: undefined });
    const after = await everything(stage);
    expect([...after.keys()]).toEqual([3, 4, 5, 6]);
    for (const [version, event] of after) expect(event).toEqual(before.get(version));
    expect(await stage.keep()).toMatchObject({ dropped: [], forgotten: 0 });
  });

  test("it is the time of settling that counts, not of writing", async () => {
    await using stage = await openRetentionStage();
    await stage.sql("select millrace.emit('t', 'written long ago')");
    await stage.sql("update millrace.outbox set occurred_at = now() - interval '1 year'");
    await tick(stage.admin);
    await stage.nextPartition();
    await stage.settle("next");
    expect(await stage.keep()).toMatchObject({ dropped: [], forgotten: 0 });
    await stage.age("8 days");
    expect(await stage.keep()).toMatchObject({ dropped: ["outbox_1", "outbox_10000001"] });
  });

  test("a feed that has been silent for long forgets all of it, keeps its last tick, and goes on from there", async () => {
    await using stage = await openRetentionStage();
    await stage.settle("a", "b", "c");
    await stage.age("8 days");
    expect(await stage.keep()).toMatchObject({ rotated: true, dropped: ["outbox_1"] });
    expect(await stage.sql("select tick::int, count::int from millrace.tick")).toEqual([{ tick: 3, count: 1 }]);
    const store = await stage.store();
    expect(await store.bounds(never)).toEqual({ oldest: 4, head: 3 });
    expect(await store.readAfter(3, never)).toBeUndefined();
    const last = await store.tickOf(3, never);
    expect(last && tickEnd(last)).toBe(3);
    await commit(stage.admin, "d");
    expect(keysOf(await advanceAll(store, 3))).toEqual(["d"]);
    expect(await store.bounds(never)).toEqual({ oldest: 4, head: 4 });
  });

  test("a late commit that drew an early seq keeps its whole partition, and nothing younger", async () => {
    await using stage = await openRetentionStage();
    const late = await stage.session();
    await stage.settle("old");
    await late.query("begin; select millrace.emit('t', 'late')");
    await stage.nextPartition();
    await stage.settle("middle");
    await stage.nextPartition();
    await stage.age("8 days");
    await late.query("commit");
    await stage.settle("young");
    expect(await stage.keep()).toMatchObject({ dropped: ["outbox_10000001"] });
    expect([...(await everything(stage)).values()].map(({ key }) => key)).toEqual(["late", "young"]);
    await stage.age("8 days");
    await stage.nextPartition();
    await stage.settle("end");
    expect((await stage.keep()).dropped).toContain("outbox_1");
  });

  test("partitions that were left out of the sequence go without anything being forgotten", async () => {
    await using stage = await openRetentionStage();
    await stage.settle("a");
    for (let times = 0; times < 3; times += 1) await stage.nextPartition();
    await stage.settle("b");
    expect(await stage.keep()).toMatchObject({ forgotten: 0, dropped: ["outbox_10000001", "outbox_11048577"] });
    expect((await everything(stage)).size).toBe(2);
  });
});

test("by size: the oldest go until the outbox is small enough, and no more", async () => {
  await using stage = await openRetentionStage();
  for (let part = 0; part < 4; part += 1) {
    await stage.sql(
      `insert into millrace.outbox (topic, key, operation, after)
       select 't', n::text, 'M', json_build_object('x', (select string_agg(md5(concat(n, '/', m)), '') from generate_series(1, 60) m))
       from generate_series(1, 400) n`,
    );
    await tick(stage.admin);
    await stage.nextPartition();
  }
  await stage.settle("last");
  const sizes = await stage.sql<{ bytes: number }>(
    "select pg_total_relation_size(relid)::int as bytes from millrace.partitions() where lower_seq <= millrace.drawn() order by lower_seq",
  );
  const total = sizes.reduce((sum, { bytes }) => sum + bytes, 0);
  const limit = total - (sizes[0]?.bytes ?? 0) - Math.floor((sizes[1]?.bytes ?? 0) / 2);
  await stage.sql("select millrace.retain(null, $1, null, null)", [limit]);
  const { dropped } = await stage.keep();
  expect(dropped).toEqual(["outbox_1", "outbox_10000001"]);
  const store = await stage.store();
  expect((await store.bounds(never)).oldest).toBe(801);
  expect((await readAll(store, 800)).length).toBe(801);
});

describe("what is gone", () => {
  test("G8 every position says HISTORY_LOST below the oldest version, and is good from there on", async () => {
    await using stage = await openRetentionStage();
    await threePartitions(stage);
    const times = await stage.sql<{ tick: number; micros: number }>(
      "select tick::int, (extract(epoch from time) * 1000000)::float8 as micros from millrace.tick order by tick",
    );
    const at = (number: number) => times.find(({ tick }) => tick === number)?.micros ?? Number.NaN;
    await stage.keep();
    const store = await stage.store();
    expect(await store.bounds(never)).toEqual({ oldest: 3, head: 6 });
    for (const after of [0, 1]) {
      await expect(store.readAfter(after, never)).rejects.toMatchObject({
        code: "HISTORY_LOST",
        detail: { oldestVersion: 3, headVersion: 6, epoch: store.epoch },
      });
      await expect(store.advance(after, never)).rejects.toMatchObject({ code: "HISTORY_LOST" });
    }
    expect((await store.readAfter(2, never))?.firstVersion).toBe(3);
    expect(await store.tickOf(0, never)).toBeUndefined();
    expect(await store.tickOf(1, never)).toBeUndefined();
    // The tick before the oldest version is where a cursor at its end goes on.
    expect(await store.tickOf(2, never)).toMatchObject({ tick: 2, firstVersion: 2, count: 1 });
    expect(await store.tickAt(at(1), never)).toBeUndefined();
    expect(await store.tickAt(at(2), never)).toMatchObject({ tick: 2 });
    expect(await store.tickAt(at(2) - 1, never)).toBeUndefined();
    expect(await store.tickAt(at(3), never)).toMatchObject({ tick: 3 });
  });

  test("a large tick that is half read is lost, not continued", async () => {
    await using stage = await openRetentionStage();
    await commit(stage.admin, ...Array.from({ length: 20 }, (_, index) => `${index}`));
    await tick(stage.admin);
    await stage.age("8 days");
    const store = await stage.store({ pages: { maxRows: 8 } });
    expect((await store.readAfter(0, never))?.events.length).toBe(8);
    await stage.nextPartition();
    await stage.settle("young");
    await stage.keep();
    await expect(store.readAfter(8, never)).rejects.toMatchObject({ code: "HISTORY_LOST" });
    expect(keysOf((await store.readAfter(20, never))?.events ?? [])).toEqual(["young"]);
  });
});

test("a dry run says what would go and changes nothing", async () => {
  await using stage = await openRetentionStage();
  await threePartitions(stage);
  const state = () =>
    stage.sql(
      "select (select json_agg(p order by p.relid) from millrace.partitions() p) as partitions, (select json_agg(t.tick order by t.tick) from millrace.tick t) as ticks, (select row_to_json(r) from millrace.retention r) as retention",
    );
  const before = await state();
  const found = await prunable(stage);
  expect(found).toEqual([
    expect.objectContaining({ name: "outbox_1", reason: "age", due: true, lastVersion: 2, heldBy: undefined }),
  ]);
  expect(await state()).toEqual(before);
  expect((await stage.keep()).dropped).toEqual(found.map(({ name }) => name));
  expect(await prunable(stage)).toEqual([]);
});

test("without limits nothing goes", async () => {
  await using stage = await openRetentionStage();
  await stage.sql("select millrace.retain(null, null, null, null)");
  await threePartitions(stage);
  await stage.age("10 years");
  expect(await stage.keep()).toMatchObject({ forgotten: 0, dropped: [] });
  expect((await everything(stage)).size).toBe(6);
});

test("ticks are forgotten some at a time, and history is whole after each time", async () => {
  await using stage = await openRetentionStage();
  const keys = Array.from({ length: 30 }, (_, index) => `${index}`);
  await stage.settle(...keys);
  await stage.age("8 days");
  await stage.nextPartition();
  await stage.settle("young");
  const store = await stage.store();
  for (let forgotten = 7; forgotten <= 28; forgotten += 7) {
    expect(await stage.sql("select millrace.forget(7) as count")).toEqual([{ count: 7 }]);
    expect((await store.bounds(never)).oldest).toBe(forgotten + 1);
    expect(keysOf(await readAll(store, forgotten))).toEqual([...keys.slice(forgotten), "young"]);
    await expect(store.readAfter(forgotten - 1, never)).rejects.toMatchObject({ code: "HISTORY_LOST" });
  }
  expect(await stage.sql("select millrace.forget(7) as count")).toEqual([{ count: 2 }]);
  expect(await stage.sql("select millrace.forget(7) as count")).toEqual([{ count: 0 }]);
});
