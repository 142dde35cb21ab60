import { describe, expect, it } from "vitest";
import { listSources } from "../../../src/postgres/sources.ts";
import { refusal, servers, WatchedDatabase } from "../capture/watched-database.ts";
import { mirror, toldBy } from "./mirror.ts";

async function problems(database: WatchedDatabase): Promise<readonly string[]> {
  return (await listSources(database.client)).flatMap((source) => source.problems.map(({ kind }) => kind));
}

/** Images of a table's events. */
async function images(database: WatchedDatabase): Promise<readonly (string | undefined)[]> {
  return (await toldBy(database)).filter(({ key }) => key !== undefined).map(({ after, before }) => after ?? before);
}

describe.each(servers)("G10 ALTER TABLE on $name", ({ cluster }) => {
  it("columns that are added, dropped or renamed are so in the images from then on", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (id int primary key, a text, b text)",
      "select millrace.watch('t')",
      "insert into t values (1, 'a', 'b')",
      "alter table t add column c int default 7, drop column a",
      "update t set b = 'B'",
      "alter table t rename column b to d",
      "delete from t",
    );
    expect((await toldBy(database)).map(({ before, after }) => [before, after])).toEqual([
      [undefined, '{"id":1,"a":"a","b":"b"}'],
      ['{"id":1,"b":"b","c":7}', '{"id":1,"b":"B","c":7}'],
      ['{"id":1,"d":"B","c":7}', undefined],
    ]);
    expect(await problems(database)).toEqual([]);
  });

  it("a column whose type changes, with or without a rewrite, is told in its new type", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (id int primary key, a varchar(5), b text)",
      "select millrace.watch('t')",
      "insert into t values (1, 'a', '1.50')",
      "alter table t alter a type varchar(50), alter b type numeric using b::numeric",
      "alter table t alter id type bigint",
      "update t set a = 'aa'",
      "insert into t values (3000000000, 'x', 1e30)",
    );
    expect(await images(database)).toEqual([
      '{"id":1,"a":"a","b":"1.50"}',
      '{"id":1,"a":"aa","b":1.50}',
      '{"id":3000000000,"a":"x","b":1000000000000000000000000000000}',
    ]);
  });

  it("a key column that goes or gets another name costs the events their key, says so, and is mended by watching again", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (id int primary key, v int)",
      "select millrace.watch('t')",
      "insert into t values (1, 1)",
      "alter table t rename id to number",
      "update t set v = 2",
    );
    expect((await toldBy(database)).at(-1)).toMatchObject({
      operation: "UPDATE",
      key: undefined,
      after: '{"number":1,"v":2}',
      headers: '{"millrace-drift" : "a key column is gone or null"}',
    });
    expect(await problems(database)).toEqual(["COLUMN_GONE"]);
    await database.run("select millrace.watch('t', key_columns => '{number}')", "update t set v = 3");
    expect((await toldBy(database)).at(-1)).toMatchObject({ operation: "UPDATE", key: "1", headers: undefined });
    expect(await problems(database)).toEqual([]);
  });

  it("a column of the topic that goes leaves %gone in its place", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (id int primary key, region text)",
      "select millrace.watch('t', topic => 't.{region}')",
      "insert into t values (1, 'eu')",
      "alter table t drop column region",
      "delete from t",
    );
    expect((await toldBy(database)).map(({ operation, topic, key }) => `${operation} ${topic} ${key}`)).toEqual([
      "INSERT t.eu 1",
      "DELETE t.%gone 1",
    ]);
    expect(await problems(database)).toEqual(["COLUMN_GONE"]);
  });

  it("an excluded column that gets another name does not show; nor does one that is added beside included ones", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (id int primary key, secret text, v int)",
      "create table u (id int primary key, v int, secret text)",
      "select millrace.watch('t', exclude => '{secret}')",
      "select millrace.watch('u', include => '{v}')",
      "alter table t rename secret to open",
      "alter table u rename secret to open",
      "alter table u add column more text default 'hidden'",
      "insert into t values (1, 'hidden', 1)",
      "insert into u values (1, 1, 'hidden')",
    );
    expect(await images(database)).toEqual(['{"id":1}', '{"id":1,"v":1}']);
    expect(await problems(database)).toEqual(["COLUMN_GONE"]);
  });

  it("RENAME and SET SCHEMA keep the source, its topic and its key", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (id int primary key)",
      "select millrace.watch('t')",
      "create schema elsewhere",
      "insert into t values (1)",
      "alter table t rename to u",
      "insert into u values (2)",
      "alter table u set schema elsewhere",
      "insert into elsewhere.u values (3)",
      "create table t (id int primary key)",
      "insert into t values (4)",
    );
    expect(await mirror(database, { table: "elsewhere.u", topic: "t" })).toEqual(["INSERT 1", "INSERT 2", "INSERT 3"]);
    expect((await listSources(database.client)).map(({ table }) => table)).toEqual(["elsewhere.u"]);
    expect(await problems(database)).toEqual([]);
  });

  it("a table that is dropped is said to be gone; one that is made under its name is not captured until it is watched", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (id int primary key)",
      "select millrace.watch('t')",
      "insert into t values (1)",
      "drop table t",
    );
    expect(await problems(database)).toEqual(["TABLE_GONE"]);
    await database.run("create table t (id int primary key)", "insert into t values (2)");
    expect(await problems(database)).toEqual(["TABLE_REPLACED"]);
    expect((await toldBy(database)).filter(({ key }) => key === "2")).toEqual([]);
    const oid = await database.value<number>("(select relid from millrace.source)");
    await database.run(
      `select millrace.unwatch(${oid}::oid::regclass)`,
      "select millrace.watch('t')",
      "insert into t values (3)",
    );
    expect(await mirror(database, { table: "t", before: new Map([["2", '{"id":2}']]) }).catch(String)).toContain(
      "1 rows differ",
    );
    expect(await problems(database)).toEqual([]);
  });

  it("SET UNLOGGED is said, for a crash would empty the table without a word; SET LOGGED mends it", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (id int primary key)",
      "create table p (id int primary key) partition by list (id)",
      "create table p_1 partition of p for values in (1)",
      "select millrace.watch('t')",
      "select millrace.watch('p')",
      "alter table t set unlogged",
      "alter table p_1 set unlogged",
      "insert into t values (1)",
    );
    expect(await problems(database)).toEqual(["TABLE_UNLOGGED", "TABLE_UNLOGGED"]);
    await database.run("alter table t set logged", "alter table p_1 set logged", "insert into t values (2)");
    expect(await problems(database)).toEqual([]);
    expect(await mirror(database, { table: "t" })).toEqual(["INSERT 1", "INSERT 2"]);
  });

  it("a primary key that is dropped leaves the key as it was watched; a key that may be null is said", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (id int primary key, v int)",
      "select millrace.watch('t')",
      "insert into t values (1, 1)",
      "alter table t drop constraint t_pkey",
      "insert into t values (2, 2)",
    );
    expect(await problems(database)).toEqual([]);
    await database.run("alter table t alter id drop not null");
    expect(await problems(database)).toEqual(["KEY_NULLABLE"]);
    await database.run("alter table t add primary key (id)", "update t set v = 3");
    expect(await problems(database)).toEqual([]);
    expect(await mirror(database, { table: "t" })).toEqual(["INSERT 1", "INSERT 2", "UPDATE 1", "UPDATE 2"]);
  });

  it("DISABLE TRIGGER, ALL or USER or by name, and DROP TRIGGER are said and mended by watching again", async () => {
    for (const ddl of [
      "alter table t disable trigger all",
      "alter table t disable trigger user",
      `alter table t disable trigger "!millrace_row"`,
      `drop trigger "!millrace_row" on t`,
      `alter table t enable replica trigger "!millrace_row"`,
    ]) {
      await using database = await WatchedDatabase.create(await cluster());
      await database.run("create table t (id int primary key)", "select millrace.watch('t')", ddl);
      expect((await problems(database)).length, ddl).toBeGreaterThan(0);
      await database.run("insert into t values (1)", "select millrace.watch('t')", "insert into t values (2)");
      expect(await problems(database), ddl).toEqual([]);
      expect(await mirror(database, { table: "t", before: new Map([["1", '{"id":1}']]) }), ddl).toEqual(["INSERT 2"]);
    }
  });

  it("identity, defaults, generated expressions, NOT NULL and inheritance that come and go are told as they are", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (id int primary key, a int, twice int generated always as (a * 2) stored)",
      "select millrace.watch('t')",
      "insert into t values (1, 1)",
      "alter table t alter id add generated by default as identity (start 2)",
      "insert into t (a) values (2)",
      "alter table t alter id set generated always",
      "alter table t alter twice drop expression",
      "insert into t (a) values (3)",
      "alter table t alter a set not null, alter a set default 9",
      "insert into t default values",
      "create table parent (a int not null)",
      "alter table t inherit parent",
      "update parent set a = 10 where a = 9",
      "alter table t no inherit parent",
      "alter table t alter id drop identity",
      "delete from t where id = 1",
    );
    expect(await mirror(database, { table: "t" })).toEqual(
      "INSERT 1,INSERT 2,INSERT 3,INSERT 4,UPDATE 4,DELETE 1".split(","),
    );
  });

  it("DDL that fails or is rolled back leaves everything as it was", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (id int primary key, v text)",
      "select millrace.watch('t')",
      "insert into t values (1, 'a')",
      "begin; alter table t rename id to number; alter table t drop column v; insert into t values (2); rollback",
      "begin; drop table t; create table t (id int primary key); insert into t values (3); rollback",
      "update t set v = 'b'",
    );
    expect(await refusal(database.run("alter table t alter v type int using v::int"))).toMatchObject({ code: "22P02" });
    await database.run("update t set v = 'c'");
    expect(await mirror(database, { table: "t" })).toEqual(["INSERT 1", "UPDATE 1", "UPDATE 1"]);
    expect(await problems(database)).toEqual([]);
  });

  it("DDL and writes of one transaction are told in its order, each row as its columns were then", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (id int primary key, a int)",
      "select millrace.watch('t')",
      "begin; insert into t values (1, 1); alter table t add column b int default 5; update t set b = 6; alter table t drop column a; update t set b = 7; commit",
    );
    expect(await images(database)).toEqual(['{"id":1,"a":1}', '{"id":1,"a":1,"b":6}', '{"id":1,"b":7}']);
  });
});
