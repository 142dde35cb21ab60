import { describe, expect, it } from "vitest";
import { listSources, watchTable } from "../../../src/postgres/sources.ts";
import { refusal, servers, WatchedDatabase } from "./watched-database.ts";

/** Each change raises the row's v: in the right order the values of a row rise. */
async function orderOf(database: WatchedDatabase): Promise<readonly string[]> {
  const written = await database.written();
  return written.flatMap(({ topic, after }) => {
    const { id, v } = JSON.parse(after ?? "null") ?? {};
    return id === undefined ? [] : [`${topic} ${id}:${v}`];
  });
}

/** The last image of each row of a table is the row. */
async function assertLastImages(database: WatchedDatabase, table: string): Promise<void> {
  const wrong = await database.value(`
    select jsonb_agg(t.id) from ${table} t
    where row_to_json(t)::text is distinct from (select o.after::text from millrace.outbox o
      where o.topic = '${table}' and o.key = t.id::text order by o.seq desc limit 1)`);
  expect(wrong).toBeNull();
}

/** A change of a row makes this trigger change the next one. */
const chain = [
  "create table t (id int primary key, v int)",
  `create function raise_next() returns trigger language plpgsql as $$
   begin update t set v = v + 10 where id = new.id + 1 and new.v < 10; return null; end $$`,
  "create trigger raise_next after update on t for each row execute function raise_next()",
];

describe.each(servers)("the order of changes on $name", ({ cluster }) => {
  it("is broken by a trigger that changes a later row of the statement, and watch says so", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(...chain);
    const warnings: string[] = [];
    await watchTable(database.client, { table: "t" }, { onWarning: (sentence) => warnings.push(sentence) });
    expect(warnings).toEqual([
      "Trigger raise_next may change rows of public.t while a statement is changing them: then the older change of a row is told last.",
    ]);
    await database.run("insert into t values (1, 0), (2, 0)", "update t set v = v + 1");
    expect(await orderOf(database)).toEqual(["t 1:0", "t 2:0", "t 1:1", "t 2:11", "t 2:1"]);
  });

  it("G4 is kept by capture that is strict, for statements of many rows", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(...chain, "select millrace.watch('t', capture => 'strict')");
    await database.run("insert into t values (1, 0), (2, 0), (3, 0)", "update t set v = v + 1");
    expect((await orderOf(database)).slice(3)).toEqual(["t 1:1", "t 2:1", "t 3:1", "t 2:11", "t 3:11"]);
    await database.clear();
    await database.run("begin; update t set v = 0; update t set v = 1; commit");
    await assertLastImages(database, "t");
  });

  it("G4 is kept by capture that is strict between tables whose triggers change one another", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table a (id int primary key, v int); create table b (id int primary key, v int)",
      `create function to_b() returns trigger language plpgsql as $$
       begin update b set v = b.v + 1 where id = new.id; return new; end $$`,
      `create function to_a() returns trigger language plpgsql as $$
       begin update a set v = a.v + 100 where id >= new.id and a.v < 100; return new; end $$`,
      "create trigger x after update on a for each row execute function to_b()",
      "create trigger y after update on b for each row execute function to_a()",
    );
    for (const capture of ["trigger", "strict"]) {
      await database.run(
        "delete from a; delete from b",
        `select millrace.watch('a', capture => '${capture}'); select millrace.watch('b', capture => '${capture}')`,
        "truncate millrace.outbox",
        "insert into a select n, 0 from generate_series(1, 4) n; insert into b select n, 0 from generate_series(1, 4) n",
        "update a set v = v + 1",
      );
      if (capture === "strict") await Promise.all(["a", "b"].map((table) => assertLastImages(database, table)));
      else await expect(assertLastImages(database, "a")).rejects.toThrow();
    }
  });

  it("G4 is kept without that through foreign keys to the same table", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (id int primary key, v int, boss int references t on update cascade on delete set null)",
    );
    const warnings: string[] = [];
    await watchTable(database.client, { table: "t" }, { onWarning: (sentence) => warnings.push(sentence) });
    await database.run(
      "insert into t values (1, 0, null), (2, 0, 1), (3, 0, 2), (4, 0, 1)",
      "update t set id = id + 10, v = v + 1",
      "delete from t where id = 11",
      "update t set id = 2 - id",
    );
    expect(warnings).toEqual([]);
    await assertLastImages(database, "t");
  });

  it("is kept for partitioned tables, also in partitions that are attached later", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (id int primary key, v int) partition by range (id)",
      "create table t1 partition of t for values from (0) to (3)",
      "select millrace.watch('t', capture => 'strict')",
      "create table t2 (id int not null, v int)",
      "alter table t attach partition t2 for values from (3) to (100)",
      `create function raise_next() returns trigger language plpgsql as $$
       begin update t set v = v + 10 where id = new.id + 1 and new.v < 10; return null; end $$`,
      "create trigger raise_next after update on t for each row execute function raise_next()",
      "insert into t select n, 0 from generate_series(1, 5) n",
      "set session_replication_role = replica; insert into t values (6, 0); reset session_replication_role",
      "update t set v = v + 1",
    );
    await assertLastImages(database, "t");
    const [source] = await listSources(database.client);
    expect(source?.capture).toBe("strict");
    expect(source?.problems.map(({ kind }) => kind)).toEqual(["TRUNCATE_UNSEEN"]);
  });

  it("is not kept, and watch says so, where a BEFORE trigger changes rows that the statement has changed", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (id int primary key, v int)",
      `create function raise_last() returns trigger language plpgsql as $$
       begin if pg_trigger_depth() = 1 then update t set v = v + 10 where id = new.id - 1; end if; return new; end $$`,
      "create trigger raise_last before update on t for each row execute function raise_last()",
      "insert into t values (1, 0), (2, 0)",
    );
    const warnings: string[] = [];
    const onWarning = (sentence: string) => warnings.push(sentence);
    await watchTable(database.client, { table: "t", capture: "strict" }, { onWarning });
    expect(warnings[0]).toBe(
      "Trigger raise_last may change rows of public.t that the statement has changed already: then the older change of a row is told last.",
    );
    await database.run("update t set v = v + 1");
    await expect(assertLastImages(database, "t")).rejects.toThrow();
    await database.run(
      "drop trigger raise_last on t",
      "create trigger raise_last after update on t for each row execute function raise_last()",
      "update t set v = v + 1",
    );
    await assertLastImages(database, "t");
  });

  it("has its price, which watch tells: TRUNCATE and ALTER TABLE after a change fail, SET CONSTRAINTS ends it", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(...chain);
    const warnings: string[] = [];
    const onWarning = (sentence: string) => warnings.push(sentence);
    const source = await watchTable(database.client, { table: "t", capture: "strict" }, { onWarning });
    expect(source).toMatchObject({ capture: "strict", problems: [] });
    expect(warnings).toEqual([
      "Changes of public.t become events at commit, one by one: until then each takes memory, and TRUNCATE and ALTER TABLE of it fail in a transaction that has changed it.",
    ]);
    for (const statement of ["truncate t", "alter table t add column w int"]) {
      const refused = await refusal(database.run(`begin; insert into t values (1, 0); ${statement}; commit`));
      expect(refused).toMatchObject({ code: "55006" });
      await database.run("rollback");
    }
    await database.run(
      "insert into t values (1, 0), (2, 0)",
      "begin; set constraints all immediate; update t set v = v + 1; truncate t; commit",
    );
    expect(await orderOf(database)).toEqual(["t 1:0", "t 2:0", "t 1:1", "t 2:11", "t 2:1"]);
  });

  it("G2 G5 events of strict capture come and go with their transaction: savepoints, PREPARE, and back to the default", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (id int primary key, v int)",
      "select millrace.watch('t', capture => 'strict')",
      "begin; insert into t values (1, 0); savepoint a; insert into t values (2, 0); rollback to a; insert into t values (3, 0); commit",
      "begin; insert into t values (4, 0)",
      "prepare transaction 'kept'",
    );
    expect(await orderOf(database)).toEqual(["t 1:0", "t 3:0"]);
    await database.run("commit prepared 'kept'", "select millrace.watch('t', topic => 'named')");
    expect(await orderOf(database)).toEqual(["t 1:0", "t 3:0", "t 4:0"]);
    expect(await database.value("select capture from millrace.source")).toBe("strict");
    await database.run("select millrace.watch('t', capture => 'trigger')", "begin; insert into t values (5, 0)");
    expect((await orderOf(database)).at(-1)).toBe("named 5:0");
    await database.run("rollback", "truncate t", "select millrace.unwatch('t')");
    expect(await database.value("select count(*)::int from pg_trigger where tgrelid = 't'::regclass")).toBe(0);
    expect(await refusal(database.run("select millrace.watch('t', capture => 'poll')"))).toMatchObject({
      code: "22023",
    });
  });

  it("is judged by what a trigger's function says: one that only computes or logs is not warned of", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (id int primary key, v int); create table audit (what text)",
      `create function stamp() returns trigger language plpgsql as $$
       begin new.v := coalesce(new.v, 0) + 1; /* update t */ return new; end $$`,
      `create function log() returns trigger language plpgsql as $$
       begin if tg_op = 'DELETE' then insert into audit values ('delete from t'); end if; return null; end $$`,
      "create function mend() returns trigger language plpgsql as $$ begin update t set v = 1 where id = new.id + 1; return null; end $$",
      "create trigger stamp before insert or update on t for each row execute function stamp()",
      "create trigger log after insert or update or delete on t for each row execute function log()",
      "create trigger at_end after update on t for each statement execute function mend()",
    );
    const warnings: string[] = [];
    await watchTable(database.client, { table: "t" }, { onWarning: (sentence) => warnings.push(sentence) });
    expect(warnings).toEqual([]);
  });
});
