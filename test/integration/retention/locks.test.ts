import type pg from "pg";
import { expect, test } from "vitest";
import { createKeeper } from "../../../src/postgres/retention/keeper.ts";
import type { Upkeep } from "../../../src/postgres/retention/upkeep.ts";
import { commit, keysOf, never, readAll, tick, write } from "../ordering/stage.ts";
import { openRetentionStage, type RetentionStage } from "./stage.ts";

/** Something in outbox_1 that is due. */
async function somethingDue(stage: RetentionStage): Promise<void> {
  await stage.settle("old");
  await stage.nextPartition();
  await stage.age("8 days");
  await stage.settle("young");
}

async function pidOf(session: pg.Client): Promise<number> {
  return (await session.query<{ pid: number }>("select pg_backend_pid() as pid")).rows[0]?.pid ?? 0;
}

/** Resolves once somebody waits for a lock of this mode on the outbox. */
async function somebodyWaits(stage: RetentionStage, mode: string): Promise<void> {
  await expect
    .poll(
      async () =>
        (
          await stage.sql(
            "select from pg_locks where not granted and mode = $1 and relation = 'millrace.outbox'::regclass",
            [mode],
          )
        ).length,
      { interval: 2, timeout: 10_000 },
    )
    .toBeGreaterThan(0);
}

test("G1 an early-seq transaction that commits while the drop waits for it keeps its partition, and loses nothing", async () => {
  await using stage = await openRetentionStage();
  await stage.sql("alter function millrace.lock_outbox(text) set lock_timeout = '60s'");
  const [late, dropper] = [await stage.session(), await stage.session()];
  await late.query("begin");
  await write(late, "late");
  await somethingDue(stage);
  expect(await stage.sql("select millrace.forget(100) as count")).toEqual([{ count: 1 }]);
  const dropped = dropper.query<{ outcome: string }>("select millrace.drop_partition(1) as outcome");
  await somebodyWaits(stage, "AccessExclusiveLock");
  await late.query("commit");
  expect((await dropped).rows).toEqual([{ outcome: "needed" }]);
  await tick(stage.admin);
  const store = await stage.store();
  expect(keysOf(await readAll(store, 1))).toEqual(["young", "late"]);
});

test("G1 nor does one that rolls back keep it", async () => {
  await using stage = await openRetentionStage();
  await stage.sql("alter function millrace.lock_outbox(text) set lock_timeout = '60s'");
  const [late, dropper] = [await stage.session(), await stage.session()];
  await late.query("begin");
  await write(late, "late");
  await somethingDue(stage);
  await stage.sql("select millrace.forget(100)");
  const dropped = dropper.query<{ outcome: string }>("select millrace.drop_partition(1) as outcome");
  await somebodyWaits(stage, "AccessExclusiveLock");
  await late.query("rollback");
  expect((await dropped).rows).toEqual([{ outcome: "dropped" }]);
});

test("G1 a prepared transaction with an early seq keeps its partition until it is decided", async () => {
  await using stage = await openRetentionStage();
  const late = await stage.session();
  await late.query("begin");
  await write(late, "late");
  await late.query("prepare transaction 'retention'");
  await somethingDue(stage);
  expect(await stage.keep()).toMatchObject({
    dropped: [],
    waitsFor: expect.stringContaining("a prepared transaction"),
  });
  await late.query("commit prepared 'retention'");
  expect(await stage.keep()).toMatchObject({ dropped: [], waitsFor: undefined });
  await tick(stage.admin);
  const store = await stage.store();
  expect(keysOf(await readAll(store, 1))).toEqual(["young", "late"]);
});

test("G11 a long transaction in the way: writers wait no longer than one attempt, which names it, and it goes once it can", async () => {
  await using stage = await openRetentionStage();
  const [long, writer] = [await stage.session(), await stage.session()];
  await somethingDue(stage);
  await long.query("begin");
  await write(long, "long");
  const pid = await pidOf(long);
  for (let attempt = 0; attempt < 3; attempt += 1) {
    const round = stage.keep();
    await somebodyWaits(stage, "AccessExclusiveLock");
    // Queued behind the attempt, and let go by its end: the long transaction is open all the while.
    await commit(writer, `beside ${attempt}`);
    expect(await round).toMatchObject({ dropped: [], waitsFor: expect.stringContaining(`pid ${pid}`) });
    expect(
      await stage.sql(
        "select from pg_locks where relation = 'millrace.outbox'::regclass and mode = 'AccessExclusiveLock'",
      ),
    ).toEqual([]);
  }
  const settings = await stage.sql<{ settings: string }>(
    "select array_to_string(proconfig, ', ') as settings from pg_proc where proname = 'lock_outbox'",
  );
  expect(settings[0]?.settings).toContain("lock_timeout=200ms");
  const [waiting] = await stage.sql<{ told: string }>("select waits_for as told from millrace.retention");
  expect(waiting?.told).toContain(`pid ${pid}`);
  await long.query("commit");
  expect(await stage.keep()).toMatchObject({ dropped: ["outbox_1"], waitsFor: undefined });
  expect(await stage.sql("select waits_for, waits_since from millrace.retention")).toEqual([
    { waits_for: null, waits_since: null },
  ]);
  await tick(stage.admin);
  const store = await stage.store();
  expect(keysOf(await readAll(store, 1))).toEqual(["young", "long", "beside 0", "beside 1", "beside 2"]);
});

test("a reader of the partition is waited for no longer than a writer is", async () => {
  await using stage = await openRetentionStage();
  const reader = await stage.session();
  await somethingDue(stage);
  await reader.query("begin; select count(*) from millrace.outbox");
  expect(await stage.keep()).toMatchObject({
    dropped: [],
    waitsFor: expect.stringContaining(`pid ${await pidOf(reader)}`),
  });
  expect((await reader.query("select count(*)::int as count from millrace.outbox")).rows).toEqual([{ count: 2 }]);
  await reader.query("commit");
  expect(await stage.keep()).toMatchObject({ dropped: ["outbox_1"] });
});

test("G11 a reader of the partition by its own name is waited for no longer either, with writers locked out", async () => {
  await using stage = await openRetentionStage();
  const [reader, writer] = [await stage.session(), await stage.session()];
  await somethingDue(stage);
  await stage.sql("select millrace.forget(100)");
  await reader.query("begin; select count(*) from millrace.outbox_1");
  await expect(stage.sql("select millrace.drop_partition(1)")).rejects.toMatchObject({ code: "55P03" });
  await commit(writer, "beside");
  await reader.query("commit");
  expect(await stage.sql("select millrace.drop_partition(1) as outcome")).toEqual([{ outcome: "dropped" }]);
});

test("a partition that cannot go is named, and the others go", async () => {
  await using stage = await openRetentionStage();
  await somethingDue(stage);
  await stage.nextPartition();
  await stage.age("8 days");
  await stage.settle("now");
  await stage.sql("create view on_partition as select * from millrace.outbox_1");
  expect(await stage.keep()).toMatchObject({
    dropped: ["outbox_10000001"],
    waitsFor: expect.stringMatching(/^Could not drop partition outbox_1: cannot drop table/),
  });
  await stage.sql("drop view on_partition");
  expect(await stage.keep()).toMatchObject({ dropped: ["outbox_1"], waitsFor: undefined });
});

test("a round that has nothing to do leaves no trace: not even a transaction id", async () => {
  await using stage = await openRetentionStage();
  await stage.settle("a");
  await stage.keep();
  const next = async () => (await stage.sql("select pg_snapshot_xmax(pg_current_snapshot())::text as next"))[0];
  // Other databases of the cluster take ids too: three rounds in a row that nobody disturbed are enough.
  await expect
    .poll(
      async () => {
        const before = await next();
        for (let round = 0; round < 3; round += 1) await stage.keep();
        return JSON.stringify(before) === JSON.stringify(await next());
      },
      { timeout: 20_000 },
    )
    .toBe(true);
});

test("several keep it at once: what one does the others leave, and none of them fails", async () => {
  await using stage = await openRetentionStage();
  const rounds: Upkeep[] = [];
  const keepers = Array.from({ length: 3 }, () =>
    createKeeper({ url: stage.url, intervalMs: 5, onRound: (upkeep) => rounds.push(upkeep) }),
  );
  const reports: unknown[] = [];
  const loud = createKeeper({
    url: stage.url,
    intervalMs: 5,
    report: (message, error) => error !== undefined && reports.push(message, error),
  });
  for (const keeper of [...keepers, loud]) await keeper.start(never);
  const dropped = () => rounds.flatMap((round) => round.dropped);
  for (let part = 0; part < 8; part += 1) {
    await stage.settle(`${part}`);
    await stage.age("8 days");
    await expect.poll(async () => (await stage.partitions()).length, { timeout: 20_000 }).toBeLessThan(9);
  }
  await expect
    .poll(async () => (await stage.sql("select from millrace.outbox")).length, { interval: 10, timeout: 20_000 })
    .toBe(0);
  for (const keeper of [...keepers, loud]) await keeper.stop();
  expect(reports).toEqual([]);
  expect(new Set(dropped()).size).toBe(dropped().length);
  await stage.settle("end");
  const store = await stage.store();
  expect(keysOf(await readAll(store, (await store.bounds(never)).oldest - 1))).toEqual(["end"]);
});

test("a stranger's advisory locks do not stop it", async () => {
  await using stage = await openRetentionStage();
  const stranger = await stage.session();
  await somethingDue(stage);
  await stranger.query("select pg_advisory_lock('millrace.outbox'::regclass::int4, n) from generate_series(2, 9) n");
  expect(await stage.keep()).toMatchObject({ forgotten: 1, dropped: ["outbox_1"] });
});

test("a keeper outlives its database, and stops at any time", async () => {
  await using stage = await openRetentionStage();
  await using other = await openRetentionStage();
  const failures: string[] = [];
  let rounds = 0;
  const keeper = createKeeper({
    url: stage.url,
    intervalMs: 5,
    report: (message, error) => error !== undefined && failures.push(message),
    onRound: () => {
      rounds += 1;
    },
  });
  await keeper.stop();
  const living = createKeeper({
    url: stage.url,
    intervalMs: 5,
    report: (message, error) => error !== undefined && failures.push(message),
    onRound: () => {
      rounds += 1;
    },
  });
  await living.start(never);
  await expect.poll(() => rounds).toBeGreaterThan(0);
  await other.sql("select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'millrace%'");
  const before = rounds;
  await expect.poll(() => rounds, { timeout: 10_000 }).toBeGreaterThan(before + 1);
  await Promise.all([living.stop(), living.stop()]);
});
