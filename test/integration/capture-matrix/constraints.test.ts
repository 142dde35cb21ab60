import { describe, expect, it } from "vitest";
import { refusal, servers, WatchedDatabase } from "../capture/watched-database.ts";
import { mirror, toldBy } from "./mirror.ts";

/** Two tables, each watched; `action` completes the foreign key from child to parent. */
async function family(database: WatchedDatabase, action: string): Promise<void> {
  await database.run(
    "create table parent (id int primary key, v text)",
    "insert into parent values (0, 'default')",
    `create table child (id int primary key, parent int default 0 references parent ${action})`,
    "select millrace.watch('parent')",
    "select millrace.watch('child')",
    "insert into parent values (1, 'a'), (2, 'b')",
    "insert into child values (10, 1), (11, 1), (20, 2)",
  );
}

const adam = new Map([["0", '{"id":0,"v":"default"}']]);

describe.each(servers)("G1 constraints on $name", ({ cluster }) => {
  it("ON DELETE CASCADE and ON UPDATE CASCADE tell of the children too", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await family(database, "on delete cascade on update cascade");
    await database.run("delete from parent where id = 1", "update parent set id = 3 where id = 2");
    const parents = await mirror(database, { table: "parent", before: adam });
    expect(parents.slice(2)).toEqual(["DELETE 1", "DELETE 2", "INSERT 3"]);
    const children = await mirror(database, { table: "child" });
    expect(children.slice(3)).toEqual(["DELETE 10", "DELETE 11", "UPDATE 20"]);
  });

  it("ON DELETE SET NULL and SET DEFAULT tell of the children as UPDATE", async () => {
    for (const action of ["set null", "set default"]) {
      await using database = await WatchedDatabase.create(await cluster());
      await family(database, `on delete ${action} on update ${action}`);
      await database.run("delete from parent where id = 1", "update parent set id = 3 where id = 2");
      await mirror(database, { table: "parent", before: adam });
      const children = await mirror(database, { table: "child" });
      expect(children.slice(3)).toEqual(["UPDATE 10", "UPDATE 11", "UPDATE 20"]);
    }
  });

  it("a cascade comes after the change that caused it", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await family(database, "on delete cascade");
    await database.run("delete from parent where id = 1");
    const told = (await toldBy(database)).map(({ operation, topic, key }) => `${operation} ${topic} ${key}`);
    expect(told.slice(-3)).toEqual(["DELETE parent 1", "DELETE child 10", "DELETE child 11"]);
  });

  it("a cascade within one table, and one whose key is the parent's, are told row by row", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (id int primary key, parent int references t on delete cascade on update cascade)",
      "create table extra (id int primary key references t on delete cascade on update cascade, v text)",
      "select millrace.watch('t')",
      "select millrace.watch('extra')",
      "insert into t values (1, null), (2, 1), (3, 2), (4, 1)",
      "insert into extra values (1, 'a'), (2, 'b')",
      "update t set id = 20 where id = 2",
      "delete from t where id = 1",
    );
    expect((await mirror(database, { table: "t" })).slice(4)).toEqual([
      ...["DELETE 2", "INSERT 20", "UPDATE 3"],
      ...["DELETE 1", "DELETE 4", "DELETE 20", "DELETE 3"],
    ]);
    expect((await mirror(database, { table: "extra" })).slice(2)).toEqual([
      ...["DELETE 2", "INSERT 20"],
      ...["DELETE 1", "DELETE 20"],
    ]);
  });

  it("deferred constraints tell at the statement, and nothing once the commit fails", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table a (id int primary key, b int not null)",
      "create table b (id int primary key, a int not null references a deferrable initially deferred)",
      "alter table a add foreign key (b) references b deferrable initially deferred",
      "select millrace.watch('a')",
      "select millrace.watch('b')",
      "begin; insert into a values (1, 1); insert into b values (1, 1); commit",
    );
    expect(await refusal(database.run("begin; insert into a values (2, 2); commit"))).toMatchObject({ code: "23503" });
    expect(await mirror(database, { table: "a" })).toEqual(["INSERT 1"]);
    expect(await mirror(database, { table: "b" })).toEqual(["INSERT 1"]);
  });

  it("TRUNCATE CASCADE tells of every watched table that it empties, RESTART IDENTITY too", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await family(database, "");
    await database.run("truncate parent restart identity cascade");
    expect((await mirror(database, { table: "parent", before: adam })).slice(2)).toEqual(["TRUNCATE"]);
    expect((await mirror(database, { table: "child" })).slice(3)).toEqual(["TRUNCATE"]);
  });

  it("statements that a constraint refuses tell nothing, whatever rows they wrote before", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (id int primary key, v int check (v < 5), during int4range, exclude using gist (during with &&))",
      "select millrace.watch('t')",
      "insert into t values (1, 1, '[1,3)')",
    );
    for (const [statement, code] of [
      ["insert into t values (2, 1), (1, 1)", "23505"],
      ["insert into t values (2, 1), (3, 9)", "23514"],
      ["insert into t values (2, 1, '[8,9)'), (3, 1, '[2,4)')", "23P01"],
      ["insert into t values (2, 1), (null, 1)", "23502"],
    ] as const) {
      expect(await refusal(database.run(statement))).toMatchObject({ code });
    }
    await database.run("insert into t values (3, 1, '[2,4)') on conflict do nothing");
    expect(await mirror(database, { table: "t" })).toEqual(["INSERT 1"]);
  });
});
