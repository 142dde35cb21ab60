import { describe, expect, it } from "vitest";
import { refusal, servers, WatchedDatabase } from "../capture/watched-database.ts";
import { mirror } from "./mirror.ts";

describe.each(servers)("G4 keys and names on $name", ({ cluster }) => {
  it("a composite key keeps its columns apart, whatever is in them", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (v int, b text, a int, primary key (a, b))",
      "select millrace.watch('t')",
      `insert into t values (1, '1,"2', 1), (1, '2"]', 1), (1, E'\\x01', 1), (1, '', 1)`,
      "update t set v = 2 where b = ''",
      `update t set b = 'moved' where b = ''`,
      "delete from t where b like '1,%'",
    );
    expect(await mirror(database, { table: "t", key: ["a", "b"] })).toEqual([
      `INSERT [1,"1,\\"2"]`,
      `INSERT [1,"2\\"]"]`,
      `INSERT [1,"\\u0001"]`,
      `INSERT [1,""]`,
      `UPDATE [1,""]`,
      `DELETE [1,""]`,
      `INSERT [1,"moved"]`,
      `DELETE [1,"1,\\"2"]`,
    ]);
  });

  it("names that differ in case only are different schemas, tables, columns and topics", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      `create schema "S"; create table "S"."T" ("Id" int primary key, id int, "Region" text, region text)`,
      "create schema s; create table s.t (id int primary key, v int)",
      `select millrace.watch('"S"."T"', topic => 'T.{Region}')`,
      "select millrace.watch('s.t', topic => 't')",
      `insert into "S"."T" values (1, 9, 'EU', 'eu')`,
      "insert into s.t values (9, 1)",
      `update "S"."T" set id = 8, region = 'us'`,
      `update "S"."T" set "Region" = 'US'`,
    );
    expect(await mirror(database, { table: "s.t", topic: "t" })).toEqual(["INSERT 9"]);
    expect(await mirror(database, { table: `"S"."T"`, topic: "T.{Region}", key: ["Id"] })).toEqual([
      "INSERT T.EU 1",
      "UPDATE T.EU 1",
      "DELETE T.EU 1",
      "INSERT T.US 1",
    ]);
  });

  it("named columns are the key instead of the primary key", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (id int primary key, code text not null unique)",
      "select millrace.watch('t', key_columns => '{code}')",
      "insert into t values (1, 'a'), (2, 'b')",
      "update t set id = 3 where code = 'a'",
      "update t set code = 'c' where code = 'b'",
    );
    const told = await mirror(database, { table: "t", key: ["code"] });
    expect(told).toEqual(["INSERT a", "INSERT b", "UPDATE a", "DELETE b", "INSERT c"]);
  });

  it("every key at once is told row by row", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (id int primary key, v text)",
      "select millrace.watch('t')",
      "insert into t select n, 'row ' || n from generate_series(1, 50) n",
      "update t set id = -id",
      "update t set id = id + 100 where id < -40",
    );
    const told = await mirror(database, { table: "t" });
    expect(told.slice(50, 54)).toEqual(["DELETE 1", "INSERT -1", "DELETE 2", "INSERT -2"]);
  });

  it("keys that meet within a statement, under a deferrable constraint, lose no row to who compares the row before", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run("create table t (id int primary key deferrable, v text)");
    const warnings: string[] = [];
    database.client.on("notice", ({ message }) => warnings.push(message ?? ""));
    await database.run("select millrace.watch('t')");
    expect(warnings).toEqual([expect.stringContaining("the key of public.t is deferrable")]);
    await database.run(
      "insert into t values (1, 'a'), (2, 'b'), (3, 'c')",
      "update t set id = id + 1",
      "begin; set constraints all deferred; update t set id = 6 - id; commit",
    );
    expect(await mirror(database, { table: "t", keysMeet: true })).toEqual([
      ...["INSERT 1", "INSERT 2", "INSERT 3"],
      ...["DELETE 1", "INSERT 2", "DELETE 2", "INSERT 3", "DELETE 3", "INSERT 4"],
      ...["DELETE 2", "INSERT 4", "UPDATE 3", "DELETE 4", "INSERT 2"],
    ]);
  });

  it("a table without a key is refused until columns that cannot be null are named", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run("create table t (a int, b int not null)");
    const hint = async (): Promise<string> => (await refusal(database.run("select millrace.watch('t')"))).hint;
    expect(await hint()).toContain("Name columns that tell its rows apart");
    await database.run("alter table t replica identity full");
    expect(await hint()).toContain("REPLICA IDENTITY FULL is no key");
    await database.run("alter table t add unique (b), replica identity default");
    expect(await hint()).toBe("Unique and never null are: millrace.watch(..., key_columns => '{b}').");
    expect(await refusal(database.run("select millrace.watch('t', key_columns => '{a}')"))).toMatchObject({
      code: "22004",
    });
    await database.run(
      "select millrace.watch('t', key_columns => '{b}')",
      "insert into t values (null, 1), (2, 2)",
      "update t set a = 3",
      "delete from t where b = 1",
    );
    const told = await mirror(database, { table: "t", key: ["b"] });
    expect(told).toEqual(["INSERT 1", "INSERT 2", "UPDATE 1", "UPDATE 2", "DELETE 1"]);
  });

  it("the index that is the replica identity gives the key of a table without a primary key", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (a int not null, b int not null, c int)",
      "create unique index by_a on t (b, a)",
      "alter table t replica identity using index by_a",
      "select millrace.watch('t')",
      "insert into t values (1, 2, 3)",
      "update t set c = 4",
      "update t set a = 5",
    );
    expect(await mirror(database, { table: "t", key: ["b", "a"] })).toEqual([
      ...["INSERT [2,1]", "UPDATE [2,1]", "DELETE [2,1]", "INSERT [2,5]"],
    ]);
  });
});
