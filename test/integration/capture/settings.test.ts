import { describe, expect, it } from "vitest";
import { watchTable } from "../../../src/postgres/sources.ts";
import { refusal, servers, WatchedDatabase } from "./watched-database.ts";

describe.each(servers)("what is set on $name", ({ cluster }) => {
  it("stays when a table is watched again with something else, and is the default again with reset", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    const { client } = database;
    await database.run("create table t (id int primary key, code text not null, a text, b text, c text)");
    await watchTable(client, {
      ...{ table: "t", topic: "things.{a}", keyColumns: ["code"], exclude: ["b"] },
      ...{ beforeValues: false, captureTruncate: false, capture: "strict" },
    });
    const set = {
      ...{ topic: "things.{a}", keyColumns: ["code"], excludedColumns: ["b"], includedColumns: undefined },
      ...{ beforeValues: false, captureTruncate: false, capture: "strict", problems: [] },
    };
    expect(await watchTable(client, { table: "t" })).toMatchObject(set);
    expect(await watchTable(client, { table: "t", exclude: ["c"] })).toMatchObject({ ...set, excludedColumns: ["c"] });
    expect(await watchTable(client, { table: "t", exclude: [] })).toMatchObject({ ...set, excludedColumns: [] });
    expect(await watchTable(client, { table: "t", include: ["c"] })).toMatchObject({
      ...{ ...set, excludedColumns: [] },
      includedColumns: ["code", "a", "c"],
    });
    expect(await watchTable(client, { table: "t", beforeValues: true, captureTruncate: true })).toMatchObject({
      ...{ topic: "things.{a}", includedColumns: ["code", "a", "c"], capture: "strict" },
      ...{ beforeValues: true, captureTruncate: true },
    });
    await database.run("alter table t drop column c");
    expect(await watchTable(client, { table: "t" })).toMatchObject({ includedColumns: ["code", "a"], problems: [] });
    expect(await watchTable(client, { table: "t", reset: true })).toMatchObject({
      ...{ topic: "t", keyColumns: ["id"], excludedColumns: [], includedColumns: undefined },
      ...{ beforeValues: true, captureTruncate: true, capture: "trigger", problems: [] },
    });
  });

  it("is never an excluded column less because that one has another name now", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (id int primary key, secret text)",
      "select millrace.watch('t', exclude => '{secret}')",
      "alter table t rename secret to open",
    );
    expect(await refusal(database.run("select millrace.watch('t')"))).toMatchObject({
      code: "42703",
      message: "public.t has no column secret for the excluded columns",
    });
    await database.run("select millrace.watch('t', exclude => '{open}')", "insert into t values (1, 'x')");
    expect((await database.written()).at(-1)).toMatchObject({ operation: "I", after: '{"id":1}', headers: null });
  });
});

describe.each(servers)("keys on $name", ({ cluster }) => {
  it("are the index of the replica identity where there is no primary key", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      `create table t (a int not null, "B b" text not null, v text)`,
      `create unique index by_both on t ("B b", a) include (v)`,
      "alter table t replica identity using index by_both",
      "select millrace.watch('t')",
      "insert into t values (1, 'x', 'v')",
    );
    expect(await database.written()).toMatchObject([{ key: '["x",1]' }]);
    await database.run(
      "alter table t add primary key (a)",
      "select millrace.watch('t', reset => true)",
      "delete from t",
    );
    expect((await database.written()).at(-1)).toMatchObject({ operation: "D", key: "1" });
  });

  it("are asked for with what they could be; REPLICA IDENTITY FULL is none, and is told why", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      `create table t (a int not null, "B" int not null, c int not null, d int unique, e int not null)`,
      `create unique index on t ("B", c)`,
      "create unique index on t (a)",
      "create unique index on t (c) where c > 0",
      "create unique index on t ((e + 1))",
      "alter table t add constraint later unique (e) deferrable",
      "create table bare (a int, b int)",
      "alter table bare replica identity full",
    );
    expect(await refusal(database.run("select millrace.watch('t')"))).toEqual({
      code: "22023",
      message: "public.t has no primary key",
      hint: "Unique and never null are: millrace.watch(..., key_columns => '{a}' or key_columns => '{B,c}').",
    });
    expect(await refusal(database.run("select millrace.watch('bare')"))).toMatchObject({
      message: "public.bare has no primary key",
      hint: expect.stringContaining("REPLICA IDENTITY FULL is no key") as string,
    });
    await database.run(`select millrace.watch('t', key_columns => '{B,c}')`, "insert into t values (1, 2, 3, null, 4)");
    expect(await database.written()).toMatchObject([{ key: "[2,3]" }]);
  });
});
