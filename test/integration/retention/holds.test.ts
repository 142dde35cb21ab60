import { describe, expect, test } from "vitest";
import { createPool } from "../../../src/postgres/database.ts";
import { doctor } from "../../../src/postgres/doctor.ts";
import { withLease } from "../../../src/postgres/lease.ts";
import { look } from "../../../src/postgres/look.ts";
import { hold, release, setRetention } from "../../../src/postgres/retention/settings.ts";
import { readStorage, type Storage, storageProblems } from "../../../src/postgres/retention/storage.ts";
import { readPrunable } from "../../../src/postgres/retention/upkeep.ts";
import { why } from "../../../src/postgres/why.ts";
import { keysOf, never, readAll } from "../ordering/stage.ts";
import { openRetentionStage, type RetentionStage } from "./stage.ts";

const day = 86_400_000;

async function storage(stage: RetentionStage): Promise<Storage> {
  const pool = createPool({ url: stage.url, max: 1, idleMs: 1000 });
  try {
    return await withLease(pool, never, (lease) => look(lease.client, () => readStorage(lease)));
  } finally {
    await pool.end();
  }
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

describe("a hold", () => {
  test("G11 keeps the events after its version, and those before it go", async () => {
    await using stage = await openRetentionStage();
    await history(stage);
    expect(await hold(stage.admin, { name: "backfill", version: 2, lastsMs: day })).toMatchObject({ version: 2 });
    expect((await stage.keep()).dropped).toEqual(["outbox_1"]);
    const store = await stage.store();
    expect(keysOf(await readAll(store, 2))).toEqual(["3", "4", "5"]);
    const seen = await storage(stage);
    expect(seen.heldBack).toEqual([
      expect.objectContaining({ kind: "hold", name: "backfill", version: 2, overridden: false }),
    ]);
    expect(storageProblems(seen)).toEqual([]);
    expect(await release(stage.admin, "backfill")).toBe(true);
    expect(await release(stage.admin, "backfill")).toBe(false);
    expect((await stage.keep()).dropped).toEqual(["outbox_10000001"]);
  });

  test("keeps all that is kept now, unless told from where", async () => {
    await using stage = await openRetentionStage();
    await history(stage);
    expect(await hold(stage.admin, { name: "all", lastsMs: day })).toMatchObject({ version: 0 });
    expect((await stage.keep()).dropped).toEqual([]);
    const pool = createPool({ url: stage.url, max: 1, idleMs: 1000 });
    const found = await withLease(pool, never, readPrunable);
    await pool.end();
    expect(found.map(({ name, due, heldBy }) => ({ name, due, heldBy }))).toEqual([
      { name: "outbox_1", due: false, heldBy: "hold all" },
      { name: "outbox_10000001", due: false, heldBy: "hold all" },
    ]);
    // Moved on by its owner.
    await hold(stage.admin, { name: "all", version: 5, lastsMs: day });
    expect((await stage.keep()).dropped).toEqual(["outbox_1", "outbox_10000001"]);
  });

  test("ends by itself when its time is over", async () => {
    await using stage = await openRetentionStage();
    await history(stage);
    await hold(stage.admin, { name: "short", lastsMs: day });
    expect((await stage.keep()).dropped).toEqual([]);
    await stage.sql("update millrace.hold set expires_at = clock_timestamp() - interval '1 second'");
    expect((await stage.keep()).dropped).toEqual(["outbox_1", "outbox_10000001"]);
    expect((await storage(stage)).heldBack).toEqual([]);
  });

  test("G10 G11 past the cap of age history goes nevertheless, and that is said", async () => {
    await using stage = await openRetentionStage();
    await history(stage);
    await hold(stage.admin, { name: "forgotten", lastsMs: 365 * day });
    await stage.age("23 days");
    const { dropped } = await stage.keep();
    expect(dropped).toContain("outbox_1");
    const seen = await storage(stage);
    expect(seen.heldBack).toEqual([expect.objectContaining({ name: "forgotten", version: 0, overridden: true })]);
    expect(storageProblems(seen)).toEqual([
      {
        code: "HOLD_OVERRIDDEN",
        message: expect.stringContaining('"forgotten" wants what follows version 0'),
        action: expect.stringContaining("millrace hold forgotten --release"),
      },
    ]);
    const pool = createPool({ url: stage.url, max: 1, idleMs: 1000 });
    for (const findings of [await doctor(pool), (await why(pool, { graceMs: 0 })).findings]) {
      expect(findings).toContainEqual(expect.objectContaining({ code: "HOLD_OVERRIDDEN", severity: "error" }));
    }
    await pool.end();
  });

  test("G11 past the cap of size only as much goes as must", async () => {
    await using stage = await openRetentionStage();
    for (let part = 0; part < 3; part += 1) {
      await stage.sql(
        `insert into millrace.outbox (topic, key, operation, after)
         select 't', n::text, 'M', json_build_object('x', (select string_agg(md5(concat(n, '/', m)), '') from generate_series(1, 60) m))
         from generate_series(1, 600) n`,
      );
      await stage.settle(`end of ${part}`);
      await stage.nextPartition();
    }
    await stage.settle("last");
    await hold(stage.admin, { name: "large", lastsMs: day });
    const [size] = await stage.sql<{ total: number; first: number }>(
      "select sum(pg_total_relation_size(relid))::int as total, max(pg_total_relation_size(relid)) filter (where lower_seq = 1)::int as first from millrace.partitions()",
    );
    const [total, first] = [size?.total ?? 0, size?.first ?? 0];
    await setRetention(stage.admin, {
      keepAgeMs: undefined,
      keepBytes: 1_048_576,
      holdCapAgeMs: undefined,
      holdCapBytes: total - Math.floor(first / 2),
    });
    expect((await stage.keep()).dropped).toEqual(["outbox_1"]);
    expect(storageProblems(await storage(stage)).map(({ code }) => code)).toEqual(["HOLD_OVERRIDDEN"]);
    await release(stage.admin, "large");
    expect((await stage.keep()).dropped.length).toBeGreaterThan(0);
  });

  test("is refused for what is gone already, and for what is not there yet", async () => {
    await using stage = await openRetentionStage();
    await history(stage);
    await stage.keep();
    await expect(hold(stage.admin, { name: "late", version: 3, lastsMs: day })).rejects.toMatchObject({
      code: "INVALID_REQUEST",
      message: expect.stringContaining("no longer kept: the oldest is 5"),
    });
    await expect(hold(stage.admin, { name: "early", version: 6, lastsMs: day })).rejects.toMatchObject({
      code: "INVALID_REQUEST",
    });
    await expect(hold(stage.admin, { name: "", lastsMs: day })).rejects.toMatchObject({ code: "INVALID_REQUEST" });
    expect((await storage(stage)).heldBack).toEqual([]);
  });

  test("G11 that is placed while something is being forgotten is either in time or refused", async () => {
    await using stage = await openRetentionStage();
    const [forgetter, holder] = [await stage.session(), await stage.session()];
    await history(stage);
    await forgetter.query("begin; select millrace.forget(100)");
    const placing = hold(holder, { name: "in between", version: 0, lastsMs: day });
    const refused = expect(placing).rejects.toMatchObject({ code: "INVALID_REQUEST" });
    await expect
      .poll(async () => (await stage.sql("select from pg_locks where not granted")).length, { timeout: 10_000 })
      .toBeGreaterThan(0);
    await forgetter.query("commit");
    await refused;

    await holder.query("begin; select millrace.hold('first')");
    const forgetting = forgetter.query<{ count: number }>("select millrace.forget(100) as count");
    await holder.query("commit");
    expect((await forgetting).rows).toEqual([{ count: 0 }]);
  });
});

test("limits are the same for everybody, and only the owner sets them", async () => {
  await using stage = await openRetentionStage();
  await stage.sql("create role retention_stranger login");
  await stage.sql("create role retention_server login");
  await stage.sql("select millrace.allow('retention_server', 'server')");
  const as = (role: string) => stage.url.replace("postgres@", `${role}@`);
  const limits = { keepAgeMs: 2 * day, keepBytes: 50 * 2 ** 30, holdCapAgeMs: undefined, holdCapBytes: undefined };
  await setRetention(stage.admin, limits);
  expect((await storage(stage)).settings).toEqual(limits);
  await expect(setRetention(stage.admin, { ...limits, keepAgeMs: 1 })).rejects.toMatchObject({
    code: "INVALID_REQUEST",
  });
  for (const role of ["retention_stranger", "retention_server"]) {
    const session = await stage.session(as(role));
    await expect(setRetention(session, limits)).rejects.toMatchObject({ code: "INVALID_REQUEST" });
    for (const forbidden of [
      "delete from millrace.tick",
      "update millrace.retention set keep_age = '1 second'",
      "delete from millrace.hold",
      "drop table millrace.outbox_1",
      "select millrace.skip_to(5)",
      "select millrace.create_partition(20000001, 30000001)",
      "select millrace.lock_outbox('access exclusive')",
    ]) {
      await expect(session.query(forbidden), `${role}: ${forbidden}`).rejects.toMatchObject({ code: "42501" });
    }
  }
  await expect(stage.keep(as("retention_stranger"))).rejects.toThrow();
  await history(stage);
  expect(await stage.keep(as("retention_server"))).toMatchObject({
    made: 1,
    dropped: ["outbox_1", "outbox_10000001"],
    waitsFor: undefined,
  });
  const server = await stage.session(as("retention_server"));
  expect((await server.query("select count(*)::int as count from millrace.outbox")).rows).toEqual([{ count: 1 }]);
  await stage.sql("select millrace.deny('retention_server', 'server')");
  await stage.sql("drop role retention_server");
  await stage.sql("drop role retention_stranger");
});
