import { describe, expect, test } from "vitest";
import { advanceAll, commit, keysOf, never, openStage, readAll, takeXid, tick, write } from "./stage.ts";

describe("the order is the order of commits, and of seq within a tick", () => {
  test("G3 a transaction that drew its seqs first and commits last comes last", async () => {
    await using stage = await openStage();
    const [early, late] = [await stage.session(), await stage.session()];
    const store = await stage.store();
    await early.query("begin");
    await write(early, "early");
    await commit(late, "late");
    expect(keysOf(await advanceAll(store))).toEqual(["late"]);
    await early.query("commit");
    expect(keysOf(await advanceAll(store, 1))).toEqual(["early"]);
    expect(keysOf(await readAll(store))).toEqual(["late", "early"]);
  });

  test("G3 of two that commit between the same ticks, seq decides, whichever committed first", async () => {
    await using stage = await openStage();
    const [a, b] = [await stage.session(), await stage.session()];
    await a.query("begin");
    await write(a, "a1");
    await commit(b, "b1");
    await write(a, "a2");
    await a.query("commit");
    const store = await stage.store();
    expect(keysOf(await advanceAll(store))).toEqual(["a1", "b1", "a2"]);
  });

  test("G1 an early xid that writes and commits long after younger ones is not lost", async () => {
    await using stage = await openStage();
    const [old, young] = [await stage.session(), await stage.session()];
    const store = await stage.store();
    await old.query("begin");
    await takeXid(old);
    for (let round = 0; round < 3; round += 1) {
      await commit(young, `young ${round}`);
      await store.advance(round, never);
    }
    await write(old, "old");
    expect(await store.advance(3, never)).toBeUndefined();
    await old.query("commit");
    expect(keysOf(await advanceAll(store))).toEqual(["young 0", "young 1", "young 2", "old"]);
  });

  test("G2 neither a rollback nor a rolled-back savepoint leaves a trace, nor a hole", async () => {
    await using stage = await openStage();
    const session = await stage.session();
    const store = await stage.store();
    await session.query("begin");
    await write(session, "never");
    await session.query("rollback");
    await session.query("begin");
    await write(session, "kept 1");
    await session.query("savepoint s");
    await write(session, "undone");
    await session.query("rollback to s");
    await session.query("savepoint s2");
    await write(session, "kept 2");
    await session.query("release s2");
    await session.query("commit");
    const events = await advanceAll(store);
    expect(keysOf(events)).toEqual(["kept 1", "kept 2"]);
    expect(new Set(events.map(({ transaction }) => transaction)).size).toBe(1);
    expect(keysOf(await readAll(store))).toEqual(["kept 1", "kept 2"]);
  });

  test("G1 a prepared transaction appears when it is committed, whoever commits it", async () => {
    await using stage = await openStage();
    const [preparer, other] = [await stage.session(), await stage.session()];
    const store = await stage.store();
    await preparer.query("begin");
    await write(preparer, "prepared");
    await preparer.query("prepare transaction 'ordering'");
    await commit(other, "between");
    expect(keysOf(await advanceAll(store))).toEqual(["between"]);
    await other.query("commit prepared 'ordering'");
    expect(keysOf(await advanceAll(store))).toEqual(["between", "prepared"]);
  });

  test("G1 a long transaction owns early seqs while hundreds of ticks go by", async () => {
    await using stage = await openStage();
    const [long, busy] = [await stage.session(), await stage.session()];
    const store = await stage.store();
    await long.query("begin");
    for (let index = 0; index < 50; index += 1) await write(long, `long ${index}`);
    for (let index = 0; index < 300; index += 1) {
      await commit(busy, `busy ${index}`);
      await store.advance(index, never);
    }
    await long.query("commit");
    const expected = [
      ...Array.from({ length: 300 }, (_, index) => `busy ${index}`),
      ...Array.from({ length: 50 }, (_, index) => `long ${index}`),
    ];
    expect(keysOf(await advanceAll(store))).toEqual(expected);
    expect(keysOf(await readAll(store))).toEqual(expected);
  });
});

describe("floor_seq", () => {
  test("G1 an xid beyond the snapshot's xmax that holds an early seq keeps the floor below it", async () => {
    await using stage = await openStage();
    const [first, holder, other] = [await stage.session(), await stage.session(), await stage.session()];
    const store = await stage.store();
    // The first tick's snapshot ends with first's xid, which is the last that has ended: holder's lies beyond it.
    await first.query("begin");
    await takeXid(first);
    await holder.query("begin");
    await write(holder, "held");
    await write(first, "a");
    await first.query("commit");
    await tick(other);
    for (const key of ["b", "c"]) {
      await commit(other, key);
      await tick(other);
    }
    await holder.query("commit");
    expect(keysOf(await advanceAll(store))).toEqual(["a", "b", "c", "held"]);
  });

  test("rises with the ticks, and prunes what lies below it from the plan at run time", async () => {
    await using stage = await openStage();
    const session = await stage.session();
    await session.query("drop table millrace.outbox_1");
    for (let part = 0; part < 8; part += 1) {
      await session.query(
        `create table millrace.part_${part} partition of millrace.outbox for values from (${part * 10 + 1}) to (${part * 10 + 11})`,
      );
    }
    for (let index = 0; index < 75; index += 1) await commit(session, `${index}`);
    await tick(session);
    await commit(session, "one");
    await tick(session);
    const { rows } = await session.query("select floor_seq from millrace.tick order by tick desc limit 1");
    expect(Number(rows[0]?.floor_seq)).toBe(75);
    await session.query("set plan_cache_mode = force_generic_plan; set enable_seqscan = off");
    await session.query(
      "prepare probe(xid8, xid8, bigint) as select seq from millrace.outbox where xid > $1 and xid < $2 and seq > $3",
    );
    const plan = await session.query("explain execute probe('1', '999999', 75)");
    const text = plan.rows.map((row) => row["QUERY PLAN"]).join("\n");
    expect(text).toContain("Subplans Removed: 7");
    expect(text).toMatch(/Index Cond: \(\(xid > \$1\) AND \(xid < \$2\)\)/);
  });

  test("moves by an empty tick when a long transaction had held it far back and all is silent afterwards", async () => {
    await using stage = await openStage();
    const [long, session] = [await stage.session(), await stage.session()];
    await long.query("begin");
    await write(long, "long");
    await tick(session);
    await session.query("select setval('millrace.outbox_seq', 3000000)");
    await commit(session, "a");
    await tick(session);
    await long.query("commit");
    expect((await tick(session)).head).toBe(2);
    const settled = await tick(session);
    const { rows } = await session.query("select floor_seq from millrace.tick order by tick desc limit 1");
    expect(Number(rows[0]?.floor_seq)).toBeGreaterThanOrEqual(3_000_000);
    expect(await tick(session)).toEqual(settled);
    const store = await stage.store();
    expect(keysOf(await readAll(store))).toEqual(["a", "long"]);
    await commit(session, "after");
    expect(keysOf(await advanceAll(store, 2))).toEqual(["after"]);
  });
});

describe("several tick at once", () => {
  test("G3 eight tickers beside eight writers settle everything densely and nothing twice", async () => {
    await using stage = await openStage();
    const writers = await Promise.all(Array.from({ length: 8 }, () => stage.session()));
    const tickers = await Promise.all(Array.from({ length: 8 }, () => stage.session()));
    let writing = true;
    const ticking = tickers.map(async (session) => {
      while (writing) await tick(session);
    });
    await Promise.all(
      writers.map(async (session, writer) => {
        for (let index = 0; index < 60; index += 1) await commit(session, `${writer}.${index}a`, `${writer}.${index}b`);
      }),
    );
    writing = false;
    await Promise.all(ticking);
    const store = await stage.store();
    const events = await advanceAll(store);
    expect(events).toHaveLength(8 * 60 * 2);
    expect(new Set(keysOf(events)).size).toBe(events.length);
    const session = await stage.session();
    const { rows } = await session.query(`
      select count(*) filter (where tick <> before + 1 or first_version <> ended) as wrong, sum(count) as events
      from (select tick, first_version, count, lag(tick) over o as before, lag(first_version + count) over o as ended
            from millrace.tick window o as (order by tick)) t`);
    expect(rows[0]).toEqual({ wrong: "0", events: String(events.length) });
    // Within one writer, commits follow one another.
    for (let writer = 0; writer < 8; writer += 1) {
      const own = keysOf(events).filter((key) => key?.startsWith(`${writer}.`));
      const written = Array.from({ length: 60 }, (_, index) => [`${writer}.${index}a`, `${writer}.${index}b`]);
      expect(own).toEqual(written.flat());
    }
  });
});

describe("tick() refuses what would break the order", () => {
  const refused = [
    ["REPEATABLE READ", "begin isolation level repeatable read; set local synchronous_commit = on"],
    ["SERIALIZABLE", "begin isolation level serializable; set local synchronous_commit = on"],
    ["synchronous_commit off", "begin; set local synchronous_commit = off"],
    ["an xid in hand", "begin; set local synchronous_commit = on; select pg_current_xact_id()"],
  ] as const;
  test.each(refused)("%s", async (_, opening) => {
    await using stage = await openStage();
    const session = await stage.session();
    await session.query(opening);
    await expect(session.query("select millrace.tick()")).rejects.toMatchObject({ code: "MR004" });
    await session.query("rollback");
    expect(await tick(session)).toEqual({ tick: 0, head: 0 });
  });

  test("a snapshot's tick collides with a tick that came between its snapshot and its lock", async () => {
    await using stage = await openStage();
    const [careless, other] = [await stage.session(), await stage.session()];
    await careless.query("begin isolation level repeatable read; set local synchronous_commit = on");
    await careless.query("select count(*) from millrace.tick");
    await commit(other, "a");
    await tick(other);
    await expect(careless.query("select * from millrace.snapshot_tick()")).rejects.toMatchObject({ code: "23505" });
  });
});

describe("who the server is", () => {
  const identities = [
    ["another server", "update millrace.epoch set system_identifier = 1"],
    ["another database", "update millrace.epoch set database_oid = 1"],
    ["another timeline", "update millrace.epoch set timeline = 99"],
    ["before a dump was restored", "update millrace.epoch set outbox_oid = 99"],
    ["younger transaction ids", "update millrace.tick set snapshot = '4000000000:4000000000:'"],
  ] as const;
  test.each(identities)("%s stops the tick, with what to do", async (_, change) => {
    await using stage = await openStage();
    const session = await stage.session();
    const store = await stage.store();
    await commit(session, "a");
    await session.query(change);
    await expect(store.advance(0, never)).rejects.toMatchObject({ name: "EpochOver", code: "EPOCH_CHANGED" });
    await expect(tick(session)).rejects.toMatchObject({ code: "MR003" });
  });

  test("G6 data from before the last tick that was shown stop the tick, and nothing is settled into them", async () => {
    await using stage = await openStage();
    const session = await stage.session();
    const [store, other] = [await stage.store(), await stage.store()];
    for (const key of ["a", "b", "c"]) {
      await commit(session, key);
      await advanceAll(store);
    }
    await advanceAll(other);
    await session.query("delete from millrace.tick where tick = (select max(tick) from millrace.tick)");
    await expect(store.advance(3, never)).rejects.toMatchObject({ name: "EpochOver" });
    await expect(other.advance(3, never)).rejects.toMatchObject({ name: "EpochOver" });
    // Somebody who never saw it goes on, to the same number, and even so it is not the same tick.
    const fresh = await stage.store();
    await advanceAll(fresh);
    await expect(store.advance(3, never)).rejects.toMatchObject({ name: "EpochOver" });
    await commit(session, "d");
    await advanceAll(fresh);
    await expect(store.advance(3, never)).rejects.toMatchObject({ name: "EpochOver" });
    await expect(other.readAfter(3, never)).rejects.toMatchObject({ name: "EpochOver" });
    await expect(other.advance(3, never)).rejects.toMatchObject({ name: "EpochOver" });
  });

  test("a tick that retention has dropped proves nothing", async () => {
    await using stage = await openStage();
    const session = await stage.session();
    const [slept, other] = [await stage.store(), await stage.store()];
    await commit(session, "a");
    await advanceAll(slept);
    for (const key of ["b", "c"]) {
      await commit(session, key);
      await advanceAll(other);
    }
    await session.query("delete from millrace.tick where tick < (select max(tick) from millrace.tick)");
    await expect(slept.advance(1, never)).rejects.toMatchObject({ name: "FeedError", code: "HISTORY_LOST" });
  });

  test("another epoch in force is EPOCH_CHANGED for the tail and for history", async () => {
    await using stage = await openStage();
    const session = await stage.session();
    const store = await stage.store();
    await commit(session, "a");
    await advanceAll(store);
    await session.query(`
      insert into millrace.epoch (parent, fork_version, first_tick, system_identifier, database_oid, timeline)
      select id, 1, 2, system_identifier, database_oid, timeline from millrace.epoch`);
    await expect(store.advance(1, never)).rejects.toMatchObject({ code: "EPOCH_CHANGED" });
    await expect(store.readAfter(0, never)).rejects.toMatchObject({ code: "EPOCH_CHANGED" });
  });
});
