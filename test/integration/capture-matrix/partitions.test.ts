import { describe, expect, it } from "vitest";
import { listSources } from "../../../src/postgres/sources.ts";
import { refusal, servers, WatchedDatabase } from "../capture/watched-database.ts";
import { imagesByKey, mirror, toldBy } from "./mirror.ts";

/** Rows by region and, in Europe, by number. */
const tree = [
  "create table t (region text, id int, v int, primary key (region, id)) partition by list (region)",
  "create table t_eu partition of t for values in ('eu') partition by range (id)",
  "create table t_eu_1 partition of t_eu for values from (0) to (100)",
  "create table t_eu_2 partition of t_eu for values from (100) to (200)",
  "create table t_us partition of t for values in ('us')",
  "create table t_rest (v int, region text not null, id int not null)",
  "alter table t attach partition t_rest default",
];
const byRegion = { table: "t", key: ["region", "id"] };

describe.each(servers)("G1 partitions on $name", ({ cluster }) => {
  it("rows written to the root, to a branch or to a leaf are the root's", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      ...tree,
      "select millrace.watch('t')",
      "insert into t values ('eu', 1, 1), ('us', 1, 1), ('at sea', 1, 1)",
      "insert into t_eu values ('eu', 101, 1)",
      "insert into t_rest (region, id, v) values ('in space', 7, 7)",
      "update t_eu set v = 2",
      "delete from t_us",
    );
    // The default partition has its columns in another order.
    expect(await mirror(database, byRegion)).toEqual([
      ...['INSERT ["eu",1]', 'INSERT ["us",1]', 'INSERT ["at sea",1]', 'INSERT ["eu",101]', 'INSERT ["in space",7]'],
      ...['UPDATE ["eu",1]', 'UPDATE ["eu",101]', 'DELETE ["us",1]'],
    ]);
  });

  it("a row that moves to another partition is told as DELETE and INSERT, its key the same or not", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (id int, region text, v int) partition by list (region)",
      "create table t_eu partition of t for values in ('eu')",
      "create table t_us partition of t for values in ('us')",
      "alter table t alter id set not null",
      "select millrace.watch('t', key_columns => '{id}')",
      "insert into t values (1, 'eu', 1), (2, 'us', 2)",
      "update t set region = 'us', v = 3 where id = 1",
      "update t set region = 'eu', id = 4 where id = 2",
    );
    expect(await mirror(database, { table: "t" })).toEqual(
      "INSERT 1,INSERT 2,DELETE 1,INSERT 1,DELETE 2,INSERT 4".split(","),
    );
  });

  it("rows that come and go with ATTACH and DETACH are in no event; later ones of an attached partition are", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      ...tree,
      "select millrace.watch('t')",
      "create table t_asia (region text not null, id int not null, v int)",
      "insert into t_asia values ('asia', 1, 1)",
      "alter table t attach partition t_asia for values in ('asia')",
      "update t set v = 2 where region = 'asia'",
      "insert into t_asia values ('asia', 2, 2)",
      "insert into t values ('us', 1, 1)",
      "alter table t detach partition t_us",
      "insert into t_us values ('us', 2, 2)",
    );
    const came = new Map([['["asia",1]', '{"region":"asia","id":1,"v":1}']]);
    const told = (await toldBy(database)).map(({ operation, key }) => `${operation} ${key}`);
    expect(told).toEqual(['UPDATE ["asia",1]', 'INSERT ["asia",2]', 'INSERT ["us",1]']);
    await database.run("alter table t attach partition t_us for values in ('us')", "delete from t_us where id = 2");
    await expect(mirror(database, { ...byRegion, before: came })).rejects.toThrow(
      'DELETE t ["us",2]: the row was not that',
    );
    // Those that came since have no trigger of their own for TRUNCATE.
    const unseen = async () =>
      (await listSources(database.client)).flatMap(({ state, problems }) =>
        problems.map(({ kind }) => `${state} ${kind}`),
      );
    expect(new Set(await unseen())).toEqual(new Set(["DEGRADED TRUNCATE_UNSEEN"]));
    await database.run("select millrace.watch('t')");
    expect(await unseen()).toEqual([]);
  });

  it("a detached partition is an ordinary table: it may be watched, and no trigger of its root is left on it", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      ...tree,
      "select millrace.watch('t')",
      "alter table t detach partition t_us",
      "insert into t_us values ('us', 1, 1)",
      "select millrace.watch('t_us', key_columns => '{id}')",
      "insert into t_us values ('us', 2, 2)",
    );
    expect(await mirror(database, byRegion)).toEqual([]);
    const before = new Map([["1", '{"region":"us","id":1,"v":1}']]);
    expect(await mirror(database, { table: "t_us", before })).toEqual(["INSERT 2"]);
  });

  it("DETACH CONCURRENTLY ends with nothing captured of the partition, and leaves the root's capture", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (id int primary key, v int) partition by range (id)",
      "create table t_1 partition of t for values from (0) to (10)",
      "create table t_2 partition of t for values from (10) to (20)",
      "select millrace.watch('t')",
      "insert into t values (1, 1), (11, 1)",
      "alter table t detach partition t_1 concurrently",
      "insert into t_1 values (2, 2)",
      "update t set v = 3",
    );
    await expect(mirror(database, { table: "t" })).rejects.toThrow("1 rows differ, the first with key 1");
    expect((await toldBy(database)).map(({ operation, key }) => `${operation} ${key}`)).toEqual(
      "INSERT 1,INSERT 11,UPDATE 11".split(","),
    );
    expect(await listSources(database.client)).toMatchObject([{ state: "OK" }]);
  });

  it("a watched table cannot be attached, nor a partition watched, so that nothing is told twice", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      ...tree,
      "create table t_asia (region text not null, id int not null, v int)",
      "select millrace.watch('t')",
      "select millrace.watch('t_asia', key_columns => '{id}')",
    );
    expect(await refusal(database.run("select millrace.watch('t_us')"))).toMatchObject({
      message: "public.t_us is a partition of a watched table: it cannot be watched",
    });
    expect(await refusal(database.run("alter table t attach partition t_asia for values in ('asia')"))).toMatchObject({
      code: "42710",
    });
  });

  it("TRUNCATE of the root is one event; COPY into root and leaf tells every row", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      ...tree,
      "select millrace.watch('t')",
      "insert into t select 'eu', n, n from generate_series(0, 199) n",
      "truncate t",
      "insert into t_eu_2 values ('eu', 150, 0)",
    );
    expect((await mirror(database, byRegion)).slice(200)).toEqual(["TRUNCATE", 'INSERT ["eu",150]']);
  });

  it("TRUNCATE of a partition or a branch is announced with what it emptied, and the root's is one event", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      ...tree,
      "select millrace.watch('t')",
      "insert into t values ('eu', 1, 1), ('eu', 101, 1), ('us', 1, 1)",
      "truncate t_us",
      "truncate t_eu",
      "truncate t",
    );
    const told = (await toldBy(database)).slice(3);
    const emptied = told.map(({ after }) => {
      const payload = JSON.parse(after ?? "{}") as { partitions?: { truncated: { table: string }[] } };
      return payload.partitions?.truncated.map(({ table }) => table).join();
    });
    expect(told.map(({ operation }) => operation).join()).toMatch(/^MESSAGE,(MESSAGE,)+TRUNCATE$/);
    expect(emptied[0]).toBe("public.t_us");
    expect(emptied[1]).toBe("public.t_eu");
    expect(told[0]).toMatchObject({ topic: "t", key: undefined, headers: '{"millrace-schema": "changed"}' });
    expect(JSON.parse(told[0]?.after ?? "")).toMatchObject({ table: "public.t", rowsChanged: true });
  });

  it("rows of children by inheritance are not their parent's, neither in events nor in snapshots", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (id int primary key, v int)",
      "create table child (w int, primary key (id)) inherits (t)",
      "select millrace.watch('t')",
      "insert into t values (1, 1)",
      "insert into child values (2, 2, 2)",
      "update t set v = v + 1",
      "delete from t where id = 2",
      "insert into child values (3, 3, 3)",
      "select millrace.watch('child')",
      "update t set v = v + 1",
    );
    expect(await mirror(database, { table: "only t", topic: "t" })).toEqual(["INSERT 1", "UPDATE 1", "UPDATE 1"]);
    const before = new Map([["3", '{"id":3,"v":3,"w":3}']]);
    expect(await mirror(database, { table: "child", before })).toEqual(["UPDATE 3"]);
    expect((await imagesByKey(database, { table: "t" })).size).toBe(2);
  });

  it("foreign keys to and from partitioned tables cascade as between others", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      ...tree,
      "create table note (id int primary key, region text, t int, foreign key (region, t) references t on delete cascade on update cascade)",
      "select millrace.watch('t')",
      "select millrace.watch('note')",
      "insert into t values ('eu', 1, 1), ('us', 1, 1)",
      "insert into note values (1, 'eu', 1), (2, 'us', 1)",
      "update t set id = 5 where region = 'us'",
      "delete from t where region = 'eu'",
    );
    expect(await mirror(database, { table: "note" })).toEqual(["INSERT 1", "INSERT 2", "UPDATE 2", "DELETE 1"]);
    await mirror(database, byRegion);
  });

  it("a key update across partitions that a foreign key refers to is told as what it is, and cascades", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      ...tree,
      "create table note (id int primary key, region text, t int, foreign key (region, t) references t on update cascade)",
      "select millrace.watch('t')",
      "select millrace.watch('note')",
      "insert into t values ('eu', 1, 1)",
      "insert into note values (1, 'eu', 1)",
      "update t set region = 'us'",
    );
    expect((await mirror(database, byRegion)).slice(1)).toEqual(['DELETE ["eu",1]', 'INSERT ["us",1]']);
    expect(await mirror(database, { table: "note" })).toEqual(["INSERT 1", "UPDATE 1"]);
  });
});
