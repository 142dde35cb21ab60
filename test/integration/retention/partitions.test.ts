import { describe, expect, test } from "vitest";
import { advanceAll, commit, keysOf, readAll, tick, write } from "../ordering/stage.ts";
import { openRetentionStage, type RetentionStage } from "./stage.ts";

/** Everything about a table that a writer, a reader or a dump would notice, but for names and bounds. */
async function likeness(stage: RetentionStage, table: string): Promise<unknown> {
  const [row] = await stage.sql<{ likeness: unknown }>(
    `select json_build_object(
      'owner', c.relowner::regrole, 'acl', c.relacl::text, 'identity', c.relreplident, 'persistence', c.relpersistence,
      'space', c.reltablespace, 'options', c.reloptions, 'rowSecurity', c.relrowsecurity,
      'columns', (select json_agg(json_build_array(a.attname, a.atttypid::regtype, a.attnotnull, a.attstorage,
          a.attcollation, (select pg_get_expr(d.adbin, d.adrelid) from pg_attrdef d where d.adrelid = a.attrelid and d.adnum = a.attnum))
          order by a.attnum) from pg_attribute a where a.attrelid = c.oid and a.attnum > 0),
      'indexes', (select json_agg(json_build_array(p.inhparent::regclass, i.indisunique, i.indisprimary, i.indisvalid,
          i.indkey::text, i.indoption::text) order by p.inhparent) from pg_index i left join pg_inherits p on p.inhrelid = i.indexrelid
          where i.indrelid = c.oid),
      'constraints', (select json_agg(json_build_array(k.contype, k.convalidated, pg_get_constraintdef(k.oid)) order by 1::text, k.contype, k.conkey)
          from pg_constraint k where k.conrelid = c.oid),
      'triggers', (select json_agg(t.tgname) from pg_trigger t where t.tgrelid = c.oid)
    ) as likeness from pg_class c where c.oid = $1::regclass`,
    [table],
  );
  return row?.likeness;
}

describe("partitions ahead", () => {
  test("a partition that is attached is as one that was made in place", async () => {
    await using stage = await openRetentionStage();
    await stage.sql("create role retention_reader");
    await stage.sql("select millrace.allow('retention_reader', 'server')");
    await stage.sql(`do $$ begin
      execute format('set local role %I', (select nspowner::regrole from pg_namespace where nspname = 'millrace'));
      create table millrace.in_place partition of millrace.outbox for values from (-10) to (-5);
    end $$`);
    await stage.sql("select millrace.allow_again()");
    const { made } = await stage.keep();
    expect(made).toBe(4);
    const expected = await likeness(stage, "millrace.in_place");
    expect(await likeness(stage, "millrace.outbox_10000001")).toEqual(expected);
    await stage.sql("drop table millrace.in_place");
    await stage.sql("select millrace.deny('retention_reader', 'server')");
    await stage.sql("drop role retention_reader");
  });

  test("G11 are made beside writers that keep their transactions open", async () => {
    await using stage = await openRetentionStage();
    const writer = await stage.session();
    await writer.query("begin");
    await write(writer, "open");
    expect(await stage.keep()).toMatchObject({ made: 4, waitsFor: undefined });
    await writer.query("commit");
    expect(await stage.keep()).toMatchObject({ made: 0 });
  });

  test("become as wide as a sixteenth of what is kept needs, within bounds", async () => {
    await using stage = await openRetentionStage();
    await stage.settle("a", "b");
    expect(await stage.sql("select millrace.partition_width()::int as width")).toEqual([{ width: 1_048_576 }]);
    await stage.sql("update millrace.tick set count = 20000000 where tick = 2");
    await stage.sql(
      "update millrace.tick set time = clock_timestamp() - case tick when 2 then interval '1 second' else interval '7 days' / 16 end",
    );
    const [row] = await stage.sql<{ width: number }>("select millrace.partition_width()::int as width");
    expect(row?.width).toBeGreaterThan(19_000_000);
    expect(row?.width).toBeLessThan(21_000_000);
  });

  test("keep an idle tick from looking at what lies behind, however many there are", async () => {
    await using stage = await openRetentionStage();
    for (let round = 0; round < 12; round += 1) {
      await stage.nextPartition();
      await stage.settle(`${round}`, "and", "more");
    }
    const floor = async () => {
      const [row] = await stage.sql<{ floor: string; lower: string }>(
        `select t.floor_seq::text as floor, p.lower_seq::text as lower
         from (select * from millrace.tick order by tick desc limit 1) t, millrace.partitions() p
         where millrace.drawn() >= p.lower_seq and millrace.drawn() < p.upper_seq`,
      );
      return Number(row?.floor) >= Number(row?.lower) ? row?.floor : undefined;
    };
    for (let tries = 0; (await floor()) === undefined; tries += 1) {
      expect(tries).toBeLessThan(50);
      await stage.settle("until the floor has followed");
    }
    const session = await stage.session();
    await session.query("set plan_cache_mode = force_generic_plan; set enable_seqscan = off");
    await session.query(
      "prepare probe(xid8, xid8, bigint) as select seq from millrace.outbox where xid > $1 and xid < $2 and seq > $3",
    );
    const plan = await session.query(`explain execute probe('1', '999999', ${await floor()})`);
    expect(plan.rows.map((row) => row["QUERY PLAN"]).join("\n")).toContain("Subplans Removed: 12");
  });
});

describe("a slow feed", () => {
  test("goes on to the next partition once one spans an eighth of what is kept, and reads the same across the hole", async () => {
    await using stage = await openRetentionStage();
    await stage.settle("a", "b");
    expect(await stage.keep()).toMatchObject({ rotated: false });
    await stage.age("20 hours");
    expect(await stage.keep()).toMatchObject({ rotated: false });
    await stage.age("2 hours");
    expect(await stage.keep()).toMatchObject({ rotated: true });
    expect(await stage.keep()).toMatchObject({ rotated: false });
    // One tick on both sides of the next hole: a row that drew its seq before it, and rows after it.
    const early = await stage.session();
    await early.query("begin");
    await write(early, "early");
    await stage.settle("c");
    await stage.age("22 hours");
    for (let tries = 0; !(await stage.keep()).rotated; tries += 1) expect(tries).toBeLessThan(5);
    await early.query("commit");
    await commit(stage.admin, "d", "e");
    await tick(stage.admin);
    const expected = ["a", "b", "c", "early", "d", "e"];
    const store = await stage.store();
    expect(keysOf(await readAll(store))).toEqual(expected);
    expect(keysOf(await advanceAll(store))).toEqual(expected);
    const small = await stage.store({ pages: { maxRows: 1 } });
    expect(keysOf(await readAll(small))).toEqual(expected);
    const places = await stage.sql("select count(distinct tableoid)::int as count from millrace.outbox");
    expect(places).toEqual([{ count: 3 }]);
  });

  test("G11 goes on also while some transaction is always open: numbers are drawn and thrown away", async () => {
    await using stage = await openRetentionStage();
    await stage.settle("a");
    const writer = await stage.session();
    await writer.query("begin");
    await stage.keep();
    await stage.sql("select setval('millrace.outbox_seq', 9000000)");
    await write(writer, "open");
    await stage.age("22 hours");
    let rounds = 0;
    while (!(await stage.keep()).rotated) {
      rounds += 1;
      expect(rounds).toBeLessThan(5);
    }
    await writer.query("commit");
    await stage.settle("b");
    const rows = await stage.sql<{ partition: string }>(
      "select tableoid::regclass::text as partition from millrace.outbox order by seq",
    );
    expect(rows.map(({ partition }) => partition)).toEqual([
      "millrace.outbox_1",
      "millrace.outbox_1",
      "millrace.outbox_10000001",
    ]);
    const store = await stage.store();
    expect(keysOf(await readAll(store))).toEqual(["a", "open", "b"]);
  });

  test("never moves the sequence back, whoever draws meanwhile", async () => {
    await using stage = await openRetentionStage();
    await stage.keep();
    const writers = await Promise.all(Array.from({ length: 4 }, () => stage.session()));
    let writing = true;
    const seqs: number[][] = writers.map(() => []);
    const work = writers.map(async (writer, index) => {
      while (writing) seqs[index]?.push(await write(writer, "x"));
    });
    for (let round = 0; round < 30; round += 1) await stage.nextPartition().catch(() => undefined);
    writing = false;
    await Promise.all(work);
    for (const drawn of seqs) expect(drawn).toEqual(drawn.toSorted((a, b) => a - b));
    const all = seqs.flat();
    expect(new Set(all).size).toBe(all.length);
    await tick(stage.admin);
    const store = await stage.store();
    expect((await readAll(store)).length).toBe(all.length);
  });
});
