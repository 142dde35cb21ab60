import { describe, expect, it } from "vitest";
import { listSources } from "../../../src/postgres/sources.ts";
import { servers, WatchedDatabase } from "../capture/watched-database.ts";
import { mirror } from "./mirror.ts";

describe.each(servers)("G1 maintenance on $name", ({ cluster }) => {
  it("VACUUM FULL, CLUSTER, REINDEX and ANALYZE tell nothing and end no capture", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (id int primary key, v int)",
      "select millrace.watch('t')",
      "insert into t select n, n from generate_series(1, 1000) n",
      "delete from t where id > 10",
      "vacuum full t",
      "cluster t using t_pkey",
      "reindex table concurrently t",
      "analyze t",
      "vacuum (freeze) t",
      "update t set v = 0 where id = 1",
    );
    const told = await mirror(database, { table: "t" });
    expect(told).toHaveLength(1000 + 990 + 1);
    expect(told.at(-1)).toBe("UPDATE 1");
    expect((await listSources(database.client)).flatMap(({ problems }) => problems)).toEqual([]);
  });

  it("SET TABLESPACE, SET (fillfactor), statistics, storage and replica identity change nothing that is told", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    const space = `space_${await database.value<number>("select pg_backend_pid()")}`;
    await database.run(
      "set allow_in_place_tablespaces = on",
      `create tablespace ${space} location ''`,
      "create table t (id int primary key, v text)",
      "select millrace.watch('t')",
      "insert into t values (1, 'a')",
      `alter table t set tablespace ${space}`,
      "alter table t set (fillfactor = 50)",
      "alter table t alter v set statistics 10, alter v set storage external",
      "alter table t replica identity full",
      "update t set v = 'b'",
      "alter table t replica identity nothing",
      "update t set v = 'c'",
      "alter table t replica identity default",
      "alter table t set tablespace pg_default",
      "update t set v = 'd'",
      `drop tablespace ${space}`,
    );
    expect(await mirror(database, { table: "t" })).toEqual(["INSERT 1", "UPDATE 1", "UPDATE 1", "UPDATE 1"]);
  });

  it("indexes, other triggers, comments, grants and a new owner leave capture as it is", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    const owner = `owner_${await database.value<number>("select pg_backend_pid()")}`;
    await database.run(
      `create role ${owner} login`,
      "create table t (id int primary key, v text)",
      "select millrace.watch('t')",
      "create index concurrently on t (v)",
      "comment on table t is 'watched'",
      `grant all on t to ${owner}`,
      `alter table t owner to ${owner}`,
      "create function nothing() returns trigger language plpgsql as 'begin return null; end'",
      "create trigger zzz after insert on t for each row execute function nothing()",
    );
    const session = await database.session(owner);
    await session.query("insert into t values (1, 'a')");
    await session.query("alter table t disable trigger user");
    expect((await listSources(database.client))[0]?.problems.map(({ kind }) => kind)).toContain("TRIGGER_OFF");
    await session.query("insert into t values (2, 'unseen')");
    await session.query("alter table t enable trigger zzz");
    await session.query(
      `alter table t enable always trigger "!millrace_row", enable always trigger "!millrace_truncate"`,
    );
    await session.query("insert into t values (3, 'c')");
    const before = new Map([["2", '{"id":2,"v":"unseen"}']]);
    expect(await mirror(database, { table: "t", before })).toEqual(["INSERT 1", "INSERT 3"]);
    expect((await listSources(database.client)).flatMap(({ problems }) => problems)).toEqual([]);
  });
});
