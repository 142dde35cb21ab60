import { expect, test } from "vitest";
import { migrate } from "../../../src/postgres/migrate.ts";
import { createCluster } from "../../support/cluster.ts";
import { commit, keysOf, readAll, tick, write } from "../ordering/stage.ts";
import { openRetentionStage, type RetentionStage } from "./stage.ts";

/** Where the events are, by their keys. */
async function places(stage: RetentionStage): Promise<Readonly<Record<string, string>>> {
  const rows = await stage.sql<{ key: string; place: string }>(
    "select key, tableoid::regclass::text as place from millrace.outbox order by seq",
  );
  return Object.fromEntries(rows.map(({ key, place }) => [key, place.replace("millrace.", "")]));
}

test("G11 the sequence runs past the last partition with no Millrace process: all is kept, and put in order afterwards", async () => {
  await using stage = await openRetentionStage();
  await stage.settle("first");
  await stage.sql("select setval('millrace.outbox_seq', 9999999)");
  for (const key of ["last", "over", "beyond"]) await commit(stage.admin, key);
  expect(await places(stage)).toEqual({
    first: "outbox_1",
    last: "outbox_1",
    over: "outbox_default",
    beyond: "outbox_default",
  });
  await tick(stage.admin);
  const store = await stage.store();
  const before = await readAll(store);
  expect(keysOf(before)).toEqual(["first", "last", "over", "beyond"]);

  expect(await stage.keep()).toMatchObject({ turned: true, made: 4, rotated: true, waitsFor: undefined });
  await stage.settle("after");
  expect(await places(stage)).toEqual({
    first: "outbox_1",
    last: "outbox_1",
    over: "outbox_10000001",
    beyond: "outbox_10000001",
    after: expect.stringMatching(/^outbox_1\d{12}$/),
  });
  expect(await readAll(store)).toEqual([...before, expect.objectContaining({ key: "after", version: 5 })]);
  const [constraints] = await stage.sql<{ count: number }>(
    "select count(*)::int as count from pg_constraint where conname = 'outbox_fence'",
  );
  expect(constraints?.count).toBe(0);
  await stage.keep();
  expect(await stage.keep()).toMatchObject({ turned: false, made: 0, rotated: false, waitsFor: undefined });
});

test("the sequence about to leave the last partition: the next ones are attached with no statement in progress", async () => {
  await using stage = await openRetentionStage();
  await stage.sql("select setval('millrace.outbox_seq', 9999990)");
  const writer = await stage.session();
  await writer.query("begin");
  await write(writer, "open");
  const [{ pid } = { pid: 0 }] = (await writer.query<{ pid: number }>("select pg_backend_pid() as pid")).rows;
  expect(await stage.keep()).toMatchObject({ made: 0, waitsFor: expect.stringContaining(`pid ${pid}`) });
  await writer.query("commit");
  expect(await stage.keep()).toMatchObject({ made: 4, waitsFor: undefined });
  for (let index = 0; index < 20; index += 1) await commit(stage.admin, `${index}`);
  expect(new Set(Object.values(await places(stage)))).toEqual(new Set(["outbox_1", "outbox_10000001"]));
});

test("G11 writers go on while the default partition is read to prove what it holds, and each step waits for them but briefly", async () => {
  await using stage = await openRetentionStage();
  await stage.sql("select setval('millrace.outbox_seq', 10000000)");
  await commit(stage.admin, "over");
  const writer = await stage.session();
  const [{ pid } = { pid: 0 }] = (await writer.query<{ pid: number }>("select pg_backend_pid() as pid")).rows;
  await writer.query("begin");
  await write(writer, "open");
  // The CHECK must be added while nobody writes to it.
  expect(await stage.keep()).toMatchObject({ turned: false, waitsFor: expect.stringContaining(`pid ${pid}`) });
  await commit(stage.admin, "another");
  await writer.query("commit");
  const [fenced] = await stage.sql("select millrace.turn_default() as outcome");
  expect(fenced).toEqual({ outcome: "fenced" });
  await writer.query("begin");
  await write(writer, "beside the check");
  expect((await stage.sql("select millrace.turn_default() as outcome"))[0]).toEqual({ outcome: "validated" });
  expect(await stage.keep()).toMatchObject({ turned: false, waitsFor: expect.stringContaining(`pid ${pid}`) });
  await commit(stage.admin, "still");
  await writer.query("commit");
  expect(await stage.keep()).toMatchObject({ turned: true, waitsFor: undefined });
  await tick(stage.admin);
  const store = await stage.store();
  expect(keysOf(await readAll(store))).toEqual(["over", "open", "another", "beside the check", "still"]);
});

test("G1 Postgres is killed between any two steps: the next round goes on from there, and nothing is lost or refused", async () => {
  await using cluster = await createCluster({ settings: { fsync: "on" } });
  for (let steps = 0; steps < 5; steps += 1) {
    const url = await cluster.createDatabase();
    await migrate(url);
    const expected: string[] = [];
    {
      await using stage = await openRetentionStage(url);
      await stage.sql("select setval('millrace.outbox_seq', 9999999)");
      for (const key of ["a", "b", "c"]) await commit(stage.admin, key);
      await tick(stage.admin);
      expected.push("a", "b", "c");
      const calls = ["turn_default()", "turn_default()", "turn_default()", "extend_outbox(0)"];
      for (const call of calls.slice(0, steps)) await stage.sql(`select millrace.${call}`);
      await cluster.kill9();
    }
    await cluster.start();
    await using stage = await openRetentionStage(url);
    await stage.settle("d");
    expect((await stage.keep()).waitsFor).toBeUndefined();
    await stage.settle("e");
    expected.push("d", "e");
    const store = await stage.store();
    expect(keysOf(await readAll(store))).toEqual(expected);
    expect(await stage.sql("select count(*)::int as count from millrace.outbox_default")).toEqual([{ count: 0 }]);
  }
});

test("it runs full a second time, and is emptied a second time", async () => {
  await using stage = await openRetentionStage();
  const expected: string[] = [];
  for (const round of ["one", "two"]) {
    await stage.sql(`select setval('millrace.outbox_seq', (select max(upper_seq) from millrace.partitions()))`);
    await stage.settle(round);
    expect((await places(stage))[round]).toBe("outbox_default");
    expect(await stage.keep()).toMatchObject({ turned: true, rotated: true });
    await stage.settle(`after ${round}`);
    expected.push(round, `after ${round}`);
  }
  const store = await stage.store();
  expect(keysOf(await readAll(store))).toEqual(expected);
});
