import { describe, expect, test } from "vitest";
import { advanceAll, commit, keysOf, never } from "../ordering/stage.ts";
import { openRetentionStage, type RetentionStage } from "./stage.ts";

async function beginEpoch(stage: RetentionStage): Promise<void> {
  await stage.admin.query("begin isolation level read committed; select millrace.begin_epoch(); commit");
}

/** As a dump that was restored here: the ids of all that is in it are another server's, and higher than any here. */
async function restoredDump(stage: RetentionStage): Promise<void> {
  await stage.sql("update millrace.outbox set xid = (xid::text::bigint + 5000000000)::text::xid8");
  await stage.sql(
    `update millrace.tick t set snapshot = (select format('%s:%s:%s', pg_snapshot_xmin(t.snapshot)::text::bigint + 5000000000,
       pg_snapshot_xmax(t.snapshot)::text::bigint + 5000000000,
       (select string_agg((x::text::bigint + 5000000000)::text, ',') from pg_snapshot_xip(t.snapshot) x))::pg_snapshot)`,
  );
  await stage.sql("update millrace.epoch set outbox_oid = 1");
}

describe("history of before a restore", () => {
  const unsettled = [
    { inDump: ["settled by nobody"], here: [] },
    { inDump: [], here: ["written here"] },
  ];
  test.each(unsettled)(
    "G1 what the seam settles is not taken for settled by what was there: $inDump $here",
    async ({ inDump, here }) => {
      await using stage = await openRetentionStage();
      await stage.settle("a", "b");
      await stage.age("8 days");
      for (const key of inDump) await commit(stage.admin, key);
      await restoredDump(stage);
      for (const key of here) await commit(stage.admin, key);
      await expect(stage.keep()).rejects.toMatchObject({ code: "MR003" });
      await beginEpoch(stage);
      await stage.nextPartition();
      await stage.settle("c");
      expect(await stage.keep()).toMatchObject({ dropped: [], forgotten: 0 });
      const store = await stage.store();
      expect(keysOf(await advanceAll(store))).toEqual(["a", "b", ...inDump, ...here, "c"]);
      await store.stop();
      await stage.age("8 days");
      await stage.settle("d");
      expect((await stage.keep()).dropped).toContain("outbox_1");
      const later = await stage.store();
      expect(await later.bounds(never)).toEqual({ oldest: 4, head: 5 });
      expect(keysOf(await advanceAll(later, 3))).toEqual(["c", "d"]);
    },
  );

  test("what lies whole before the seam goes when its own time comes, not all at once", async () => {
    await using stage = await openRetentionStage();
    await stage.settle("oldest");
    await stage.nextPartition();
    await stage.age("5 days");
    await stage.settle("older");
    await stage.nextPartition();
    await stage.age("5 days");
    await restoredDump(stage);
    await beginEpoch(stage);
    await stage.settle("here");
    expect(await stage.keep()).toMatchObject({ dropped: ["outbox_1"] });
    const store = await stage.store();
    expect(keysOf(await advanceAll(store, 1))).toEqual(["older", "here"]);
  });

  test("a new epoch without a seam changes nothing for what is kept", async () => {
    await using stage = await openRetentionStage();
    await stage.settle("oldest");
    await stage.nextPartition();
    await stage.age("5 days");
    await stage.settle("older");
    await stage.nextPartition();
    await stage.age("5 days");
    // As begin_epoch does it, which would not take ticks for this server's that were aged by an update.
    await stage.sql(
      `insert into millrace.tick (tick, snapshot, first_version, count, base_seq, floor_seq, next_floor_seq, next_floor_xid, time)
       select tick + 1, snapshot, first_version + count, 0, base_seq, floor_seq, next_floor_seq, next_floor_xid, clock_timestamp()
       from millrace.tick order by tick desc limit 1`,
    );
    await stage.sql(
      `insert into millrace.epoch (parent, fork_version, first_tick, system_identifier, database_oid, timeline, reason)
       select id, 2, (select max(tick) from millrace.tick), system_identifier, database_oid, timeline, 'promoted' from millrace.epoch`,
    );
    await stage.settle("here");
    expect(await stage.keep()).toMatchObject({ dropped: ["outbox_1"] });
    const store = await stage.store();
    expect(keysOf(await advanceAll(store, 1))).toEqual(["older", "here"]);
  });
});
