import { expect, test } from "vitest";
import { migrate } from "../../../src/postgres/migrate.ts";
import { createCluster } from "../../support/cluster.ts";
import { eventually } from "../../support/deadline.ts";
import { advanceAll, commit, keysOf, never, openStage, readAll } from "./stage.ts";

test("G6 while Postgres is away every call says so, and the first call after it is back succeeds", async () => {
  await using cluster = await createCluster({ settings: { fsync: "on" } });
  const url = await cluster.createDatabase();
  await migrate(url);
  await using stage = await openStage(url);
  const store = await stage.store({ directUrl: url });
  await commit(await stage.session(), "a", "b");
  expect(keysOf(await advanceAll(store))).toEqual(["a", "b"]);
  await cluster.kill9();
  // The postmaster's children notice a little later that it is gone, and answer until then.
  await eventually(() => refused(() => store.readAfter(0, never)));
  await eventually(() => refused(() => store.advance(2, never)));
  await eventually(() => refused(() => store.bounds(never)));
  for (let round = 0; round < 2; round += 1) {
    for (const call of [
      () => store.advance(2, never),
      () => store.readAfter(0, never),
      () => store.bounds(never),
      () => store.tickOf(1, never),
      () => store.tickAt(0, never),
    ]) {
      await expect(call()).rejects.toMatchObject({
        code: "DATABASE_UNAVAILABLE",
        detail: { retryAfterMs: expect.any(Number) },
      });
    }
  }
  await store.wakeUp.wait(false, never);
  await cluster.start();
  expect(keysOf(await readAll(store))).toEqual(["a", "b"]);
  await commit(await stage.session(), "c");
  expect(keysOf(await advanceAll(store, 2))).toEqual(["c"]);
  expect(await store.bounds(never)).toEqual({ oldest: 1, head: 3 });
});

test("G6 what is delivered is on disk, whatever the role's defaults are", async () => {
  await using cluster = await createCluster({ settings: { fsync: "on", wal_writer_delay: "10s" } });
  const url = await cluster.createDatabase();
  await migrate(url);
  await using stage = await openStage(url);
  const admin = await stage.session();
  await admin.query("alter role postgres set synchronous_commit = off");
  await admin.query("alter role postgres set default_transaction_isolation = serializable");
  await admin.query("alter role postgres set default_transaction_read_only = on");
  const [writer, store] = [await stage.session(), await stage.store()];
  await writer.query("set default_transaction_read_only = off");
  for (let round = 0; round < 20; round += 1) {
    await commit(writer, `${round}`);
    const { rows: committed } = await writer.query("select pg_current_wal_insert_lsn() as lsn");
    const page = await store.advance(round, never);
    expect(keysOf(page?.events ?? [])).toEqual([`${round}`]);
    const { rows } = await writer.query("select pg_current_wal_flush_lsn() >= $1::pg_lsn as flushed", [
      committed[0]?.lsn,
    ]);
    expect(rows[0]?.flushed).toBe(true);
  }
});

test("a call that is given up ends at once and leaves the store in order", async () => {
  await using stage = await openStage();
  const store = await stage.store();
  const blocker = await stage.session();
  await commit(blocker, "a");
  await blocker.query("begin; lock table millrace.tick_lock in share row exclusive mode");
  const giving = new AbortController();
  const blocked = store.advance(0, giving.signal);
  const watcher = await stage.session();
  await expect
    .poll(async () => (await watcher.query("select from pg_locks where not granted")).rowCount, { timeout: 10_000 })
    .toBe(1);
  giving.abort(new Error("given up"));
  await expect(blocked).rejects.toThrow("given up");
  await blocker.query("commit");
  expect(keysOf(await advanceAll(store))).toEqual(["a"]);
});

function refused(call: () => Promise<unknown>): Promise<boolean> {
  return call().then(
    () => false,
    () => true,
  );
}
