import { once } from "node:events";
import type pg from "pg";
import { from as copyFrom, to as copyTo } from "pg-copy-streams";
import { describe, expect, it } from "vitest";
import { servers, WatchedDatabase } from "../capture/watched-database.ts";
import { mirror, toldBy } from "./mirror.ts";

async function copyIn(client: pg.Client, statement: string, data: string | Buffer): Promise<void> {
  const stream = client.query(copyFrom(statement));
  stream.end(data);
  await once(stream, "finish");
}

async function copyOut(client: pg.Client, statement: string): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of client.query(copyTo(statement))) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

describe.each(servers)("G1 statements on $name", ({ cluster }) => {
  it("upserts tell what they did to each row: INSERT, UPDATE or nothing", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (id int primary key, v int)",
      "select millrace.watch('t')",
      "insert into t values (1, 1), (2, 1)",
      "insert into t values (1, 5), (3, 5) on conflict (id) do update set v = excluded.v returning *",
      "insert into t values (1, 6), (4, 6) on conflict do nothing",
      "insert into t values (1, 7), (2, 7) on conflict (id) do update set v = excluded.v where t.v < 3",
      "insert into t values (2, 8) on conflict (id) do update set id = 20",
    );
    expect(await mirror(database, { table: "t" })).toEqual(
      "INSERT 1,INSERT 2,UPDATE 1,INSERT 3,INSERT 4,UPDATE 2,DELETE 2,INSERT 20".split(","),
    );
  });

  it("MERGE tells each of its actions", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (id int primary key, v int)",
      "select millrace.watch('t')",
      "insert into t values (1, 1), (2, 2), (3, 3)",
      `merge into t using (values (1, 10), (2, null), (3, 3), (4, 40)) s(id, v) on t.id = s.id
       when matched and s.v is null then delete
       when matched and s.v = t.v then do nothing
       when matched then update set v = s.v
       when not matched then insert values (s.id, s.v)`,
    );
    const told = await mirror(database, { table: "t" });
    expect(told.slice(3).toSorted()).toEqual(["DELETE 2", "INSERT 4", "UPDATE 1"]);
  });

  it("COPY tells each row: text, csv, binary, FREEZE, into some of the columns", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run("create table t (id int primary key, v text default 'none')", "select millrace.watch('t')");
    await copyIn(database.client, "copy t from stdin", "1\ta\\tb\n2\t\\N\n");
    await copyIn(database.client, "copy t (id) from stdin (format csv)", "3\n4\n");
    const binary = await copyOut(database.client, "copy t to stdout (format binary)");
    await database.run("begin; truncate t");
    await copyIn(database.client, "copy t from stdin (format binary, freeze)", binary);
    await database.run("commit");
    expect(await mirror(database, { table: "t" })).toEqual(
      "INSERT 1,INSERT 2,INSERT 3,INSERT 4,TRUNCATE,INSERT 1,INSERT 2,INSERT 3,INSERT 4".split(","),
    );
  });

  it("INSERT SELECT, UPDATE FROM, DELETE USING and CTEs that write tell every row of every table", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (id int primary key, v int)",
      "create table archive (id int primary key, v int)",
      "select millrace.watch('t')",
      "select millrace.watch('archive')",
      "insert into t select n, n from generate_series(1, 6) n",
      "update t set v = t.v + s.v from (values (1, 10), (2, 20)) s(id, v) where t.id = s.id",
      "with gone as (delete from t where id > 3 returning *) insert into archive select * from gone",
      "with a as (update t set v = 0 where id = 1 returning id), b as (insert into t values (9, 9)) update archive set v = 1 where id = 4",
      "delete from t using archive a where t.id = a.id - 3",
    );
    const told = await mirror(database, { table: "t" });
    expect(told.slice(6, 8)).toEqual(["UPDATE 1", "UPDATE 2"]);
    expect(told.slice(8, 11)).toEqual(["DELETE 4", "DELETE 5", "DELETE 6"]);
    expect(told.slice(11, 13).toSorted()).toEqual(["INSERT 9", "UPDATE 1"]);
    expect(told.slice(13).toSorted()).toEqual(["DELETE 1", "DELETE 2", "DELETE 3"]);
    expect(await mirror(database, { table: "archive" })).toEqual(["INSERT 4", "INSERT 5", "INSERT 6", "UPDATE 4"]);
  });

  it("a statement of 100,000 rows tells all of them, in the order of the rows", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (id int primary key, v int)",
      "select millrace.watch('t')",
      "insert into t select n, 0 from generate_series(1, 100000) n",
      "update t set v = 1",
      "delete from t where id % 2 = 0",
    );
    const told = await mirror(database, { table: "t" });
    expect(told).toHaveLength(250_000);
    expect(told.slice(0, 100_000)).toEqual(Array.from({ length: 100_000 }, (_, n) => `INSERT ${n + 1}`));
  });

  it("SELECT FOR UPDATE and statements without rows tell nothing; an UPDATE to the same values is an event", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (id int primary key, v int)",
      "select millrace.watch('t')",
      "insert into t values (1, 1)",
      "select * from t for update",
      "update t set v = 2 where false",
      "delete from t where id = 7",
      "insert into t select 1, 1 where false",
      "update t set v = v",
    );
    expect(await mirror(database, { table: "t" })).toEqual(["INSERT 1", "UPDATE 1"]);
  });

  it("cursors, prepared statements, functions and procedures that commit tell as plain statements do", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (id int primary key, v int)",
      "select millrace.watch('t')",
      "insert into t values (1, 1), (2, 2), (3, 3)",
      "begin; declare c cursor for select * from t order by id for update; fetch 2 from c; update t set v = 20 where current of c; commit",
      "prepare p (int) as update t set v = v + $1 where id = 1",
      ...Array.from({ length: 7 }, (_, n) => `execute p (${n})`),
      "create procedure steps() language plpgsql as $$ begin insert into t values (4, 4); commit; insert into t values (5, 5); rollback; delete from t where id = 3; end $$",
      "call steps()",
      "do $$ begin for n in 6..8 loop insert into t values (n, n); end loop; end $$",
    );
    const told = await mirror(database, { table: "t" });
    expect(told.slice(3, 4)).toEqual(["UPDATE 2"]);
    expect(told.slice(4, 11)).toEqual(Array(7).fill("UPDATE 1"));
    expect(told.slice(11)).toEqual(["INSERT 4", "DELETE 3", "INSERT 6", "INSERT 7", "INSERT 8"]);
  });

  it("rows of many megabytes are whole, also in columns that the statement did not touch", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (id int primary key, big text, v int)",
      "alter table t alter big set storage external",
      "select millrace.watch('t')",
      "insert into t select 1, string_agg(md5(n::text), ''), 1 from generate_series(1, 200000) n",
      "update t set v = 2",
      "delete from t",
      "insert into t values (1, repeat('x', 20000000), 1)",
    );
    expect(await mirror(database, { table: "t" })).toEqual(["INSERT 1", "UPDATE 1", "DELETE 1", "INSERT 1"]);
    expect((await toldBy(database)).map(({ before }) => before?.length ?? 0)).toEqual([
      0,
      6_400_000 + 23,
      6_400_000 + 23,
      0,
    ]);
  });
});

/** Of the embedded server, or the one that stands in for it. */
const major = Number(/^\d+/.exec(process.env.MILLRACE_TEST_POSTGRES ?? "18")?.[0]);

describe.each(servers.filter(({ name }) => name === "embedded" && major >= 18))(
  "G1 statements of Postgres 18 on $name",
  ({ cluster }) => {
    it("MERGE by source and RETURNING, and COPY that ignores bad rows, tell what they did", async () => {
      await using database = await WatchedDatabase.create(await cluster());
      await database.run(
        "create table t (id int primary key, v int)",
        "select millrace.watch('t')",
        "insert into t values (1, 1), (2, 2), (3, 3) returning new.*",
        `merge into t using (values (1, 10), (4, 40)) s(id, v) on t.id = s.id
         when matched then update set v = s.v
         when not matched by source and t.id = 2 then delete
         when not matched by source then update set v = 0
         when not matched then insert values (s.id, s.v) returning merge_action(), old.*, new.*`,
      );
      await copyIn(database.client, "copy t from stdin (on_error ignore)", "5\t5\nbad\t6\n7\t7\n");
      const told = await mirror(database, { table: "t" });
      expect(told.slice(3, 7).toSorted()).toEqual(["DELETE 2", "INSERT 4", "UPDATE 1", "UPDATE 3"]);
      expect(told.slice(7)).toEqual(["INSERT 5", "INSERT 7"]);
    });

    it("a temporal primary key, WITHOUT OVERLAPS, is a key like others", async () => {
      await using database = await WatchedDatabase.create(await cluster());
      await database.run(
        "create extension btree_gist",
        "create table t (id int, during daterange, v int, primary key (id, during without overlaps))",
        "select millrace.watch('t')",
        "insert into t values (1, '[2024-01-01,2025-01-01)', 1), (1, '[2025-01-01,2026-01-01)', 2)",
        "update t set during = '[2025-02-01,2026-01-01)' where v = 2",
        "delete from t where during @> date '2024-06-01'",
      );
      expect(await mirror(database, { table: "t", key: ["id", "during"] })).toEqual([
        'INSERT [1,"[2024-01-01,2025-01-01)"]',
        'INSERT [1,"[2025-01-01,2026-01-01)"]',
        'DELETE [1,"[2025-01-01,2026-01-01)"]',
        'INSERT [1,"[2025-02-01,2026-01-01)"]',
        'DELETE [1,"[2024-01-01,2025-01-01)"]',
      ]);
    });
  },
);
