import { describe, expect, test, vi } from "vitest";
import { createPool } from "../../../src/postgres/database.ts";
import { doctor } from "../../../src/postgres/doctor.ts";
import { withLease } from "../../../src/postgres/lease.ts";
import { look } from "../../../src/postgres/look.ts";
import { setRetention } from "../../../src/postgres/retention/settings.ts";
import { readStorage, type Storage, storageProblems } from "../../../src/postgres/retention/storage.ts";
import { readPrunable } from "../../../src/postgres/retention/upkeep.ts";
import { why } from "../../../src/postgres/why.ts";
import { at, claimant, subscription } from "../../contract/subscriptions/world.ts";
import { keysOf, never, readAll } from "../ordering/stage.ts";
import { openRetentionStage, type RetentionStage } from "./stage.ts";

const day = 86_400_000;

async function asked<T>(stage: RetentionStage, use: (pool: ReturnType<typeof createPool>) => Promise<T>): Promise<T> {
  const pool = createPool({ url: stage.url, max: 1, idleMs: 1000 });
  try {
    return await use(pool);
  } finally {
    await pool.end();
  }
}

function storage(stage: RetentionStage): Promise<Storage> {
  return asked(stage, (pool) => withLease(pool, never, (lease) => look(lease.client, () => readStorage(lease))));
}

/** Two old partitions, of versions 1, 2 and 3, 4, and a young one. */
async function history(stage: RetentionStage): Promise<void> {
  await stage.settle("1", "2");
  await stage.nextPartition();
  await stage.settle("3", "4");
  await stage.nextPartition();
  await stage.age("8 days");
  await stage.settle("5");
}

describe("a subscription", () => {
  test("G11 keeps the events after its position, paused or not, and lets go of what is acknowledged", async () => {
    await using stage = await openRetentionStage();
    await history(stage);
    const store = await stage.store();
    const { subscriptions } = store;
    await subscriptions.create(subscription("ahead", store, { position: at(4, store) }), never);
    await subscriptions.create(subscription("behind", store), never);
    await subscriptions.pause("behind", true, never);
    expect((await stage.keep()).dropped).toEqual([]);
    const found = await asked(stage, (pool) => withLease(pool, never, readPrunable));
    expect(found.map(({ name, due, heldBy }) => ({ name, due, heldBy }))).toEqual([
      { name: "outbox_1", due: false, heldBy: "subscription behind" },
      { name: "outbox_10000001", due: false, heldBy: "subscription behind" },
    ]);
    expect((await storage(stage)).heldBack).toMatchObject([
      { kind: "subscription", name: "behind", version: 0, overridden: false },
      { kind: "subscription", name: "ahead", version: 4, overridden: false },
    ]);
    await subscriptions.advance([{ id: "behind", generation: 0, position: at(2, store) }], never);
    expect(await stage.keep()).toMatchObject({ dropped: ["outbox_1"], lost: [], expired: [] });
    expect(keysOf(await readAll(store, 2))).toEqual(["3", "4", "5"]);
    expect(storageProblems(await storage(stage))).toEqual([]);
    await subscriptions.delete("behind", never);
    expect((await stage.keep()).dropped).toEqual(["outbox_10000001"]);
    expect(await subscriptions.get("ahead", never)).toMatchObject({ state: "ACTIVE" });
  });

  test("G10 G11 past the cap history goes nevertheless, and it is LOST, loudly, until it is moved", async () => {
    await using stage = await openRetentionStage();
    await history(stage);
    const store = await stage.store();
    const { subscriptions } = store;
    for (const id of ["a", "b"]) await subscriptions.create(subscription(id, store, { position: at(1, store) }), never);
    await subscriptions.create(subscription("ahead", store, { position: at(5, store) }), never);
    await setRetention(stage.admin, {
      keepAgeMs: day,
      keepBytes: undefined,
      holdCapAgeMs: 30 * day,
      holdCapBytes: undefined,
    });
    expect(await stage.keep()).toMatchObject({ dropped: [], lost: [] });
    await stage.age("23 days");
    const first = await stage.keep();
    expect(first.lost).toEqual(["a", "b"]);
    expect(first.dropped).toContain("outbox_1");
    // Of all rounds of all servers, one says so.
    expect((await stage.keep()).lost).toEqual([]);
    expect(await stage.sql("select id from millrace.subscription where lost_at is not null order by id")).toEqual([
      { id: "a" },
      { id: "b" },
    ]);
    const seen = await storage(stage);
    expect(seen.subscriptions).toEqual({ count: 3, lostCount: 2, lost: ["a", "b"] });
    expect(storageProblems(seen)).toEqual([
      {
        code: "SUBSCRIPTION_LOST",
        message: expect.stringContaining('2 subscriptions: "a", "b"'),
        action: expect.stringContaining("Seek"),
      },
    ]);
    await asked(stage, async (pool) => {
      for (const findings of [await doctor(pool), (await why(pool, { graceMs: 0 })).findings]) {
        expect(findings).toContainEqual(expect.objectContaining({ code: "SUBSCRIPTION_LOST", severity: "error" }));
      }
    });
    const { oldest } = seen;
    await expect(subscriptions.claim("a", claimant("r"), never)).rejects.toMatchObject({
      code: "HISTORY_LOST",
      detail: { oldestVersion: oldest, headVersion: 5, epoch: store.epoch },
    });
    expect(await subscriptions.get("a", never)).toMatchObject({ state: "LOST", oldestVersion: oldest });
    await subscriptions.seek("a", at(oldest - 1, store), never);
    expect(await subscriptions.claim("a", claimant("r"), never)).toMatchObject({ kind: "claimed" });
    await subscriptions.delete("b", never);
    expect(storageProblems(await storage(stage))).toEqual([]);
  });

  test("that is LOST holds nothing back any more", async () => {
    await using stage = await openRetentionStage();
    await history(stage);
    const store = await stage.store();
    await store.subscriptions.create(subscription("lost", store, { position: at(1, store) }), never);
    await stage.age("23 days");
    await stage.keep();
    await stage.settle("6");
    await stage.nextPartition();
    await stage.age("8 days");
    await stage.settle("7");
    // Were it still counted, what is past the age and not past the cap would stay.
    await stage.keep();
    expect(await store.bounds(never)).toEqual({ oldest: 7, head: 7 });
  });

  test("G11 whoever creates or moves one while history is forgotten gets what is there afterwards, or is told", async () => {
    await using stage = await openRetentionStage();
    await history(stage);
    const store = await stage.store();
    const { subscriptions } = store;
    await subscriptions.create(subscription("moved", store, { position: at(5, store) }), never);
    const forgetter = await stage.session();
    await forgetter.query("begin isolation level read committed");
    const { rows } = await forgetter.query<{ n: number }>("select millrace.forget(1000) as n");
    expect(rows[0]?.n).toBeGreaterThan(0);
    const waiting = [
      subscriptions.create(subscription("late", store), never),
      subscriptions.seek("moved", at(0, store), never),
    ].map((call) => call.then(String, (error: unknown) => error));
    await vi.waitFor(async () => {
      const waiters = "select from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()";
      expect((await stage.sql(waiters)).length).toBe(2);
    });
    await forgetter.query("commit");
    for (const outcome of await Promise.all(waiting)) expect(outcome).toMatchObject({ code: "HISTORY_LOST" });
    // The other way round: who forgets waits for the one that is being created, and minds it.
    expect(await subscriptions.create(subscription("in-time", store, { position: at(4, store) }), never)).toMatchObject(
      {
        record: { state: "ACTIVE" },
      },
    );
  });

  test("nobody prints ten thousand of them", async () => {
    await using stage = await openRetentionStage();
    await stage.settle("1", "2");
    const store = await stage.store();
    await stage.sql(
      `insert into millrace.subscription (id, definition, is_group, topics, owner, labels, epoch, version, place, cursor)
       select 's' || n, '{}', false, '{}', '', '{}', $1::uuid, n % 2, 9007199254740991, 'c' from generate_series(1, 10000) n`,
      [store.epoch],
    );
    const seen = await storage(stage);
    expect(seen.heldBack.length).toBe(5);
    expect(seen.heldBack.every(({ version }) => version === 0)).toBe(true);
    expect(seen.subscriptions).toEqual({ count: 10_000, lostCount: 0, lost: [] });
    expect(await store.subscriptions.summary(never)).toMatchObject({ active: 10_000, oldestVersion: 0 });
    expect((await stage.keep()).waitsFor).toBeUndefined();
  });
});
