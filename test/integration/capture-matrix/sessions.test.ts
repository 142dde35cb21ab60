import { describe, expect, it } from "vitest";
import { refusal, servers, WatchedDatabase } from "../capture/watched-database.ts";
import { mirror } from "./mirror.ts";

describe.each(servers)("G1, G2 sessions on $name", ({ cluster }) => {
  it("a temporary table of the same name is another table: nothing of it is told", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (id int primary key, v text)",
      "select millrace.watch('t')",
      "create temp table t (like t including all)",
      "insert into t values (1, 'temporary')",
      "insert into public.t values (2, 'kept')",
      "update t set v = 'x'",
      "truncate t",
    );
    expect(await mirror(database, { table: "public.t", topic: "t" })).toEqual(["INSERT 2"]);
  });

  it("objects of the writer's, put before pg_catalog in his search path, do not reach capture", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (id int primary key, v text)",
      "select millrace.watch('t')",
      "create schema evil",
      "create function evil.row_to_json(record) returns json language plpgsql as 'begin raise exception ''reached''; end'",
      "create function evil.strpos(text, text) returns int language plpgsql as 'begin raise exception ''reached''; end'",
      "create function evil.octet_length(text) returns int language plpgsql as 'begin raise exception ''reached''; end'",
      "create table evil.outbox (like millrace.outbox)",
      "create function evil.differ(text, text) returns boolean language plpgsql as 'begin raise exception ''reached''; end'",
      "create operator evil.= (leftarg = text, rightarg = text, function = evil.differ)",
    );
    const writer = await database.session();
    await writer.query("set search_path = evil, public, pg_catalog");
    await writer.query("insert into public.t values (1, 'a')");
    await writer.query("update public.t set v = 'b'");
    expect(await mirror(database, { table: "t" })).toEqual(["INSERT 1", "UPDATE 1"]);
  });

  it("a writer that is cancelled, times out or breaks off tells nothing, and what it does next is told", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run("create table t (id int primary key, v int)", "select millrace.watch('t')");
    const writer = await database.session();
    await writer.query("set statement_timeout = '200ms'");
    expect(await refusal(writer.query("insert into t select n, 0 from generate_series(1, 100000000) n"))).toMatchObject(
      {
        code: "57014",
      },
    );
    await writer.query("begin");
    await writer.query("insert into t values (1, 1)");
    await writer.query("savepoint s");
    expect(
      await refusal(writer.query("insert into t select 2, count(*) from generate_series(1, 1000000000)")),
    ).toMatchObject({
      code: "57014",
    });
    await writer.query("rollback to s");
    await writer.query("insert into t values (3, 3)");
    await writer.query("commit");
    const broken = await database.session();
    broken.on("error", () => undefined);
    const { rows } = await broken.query<{ pid: number }>("select pg_backend_pid() as pid");
    await broken.query("begin; insert into t values (4, 4)");
    await database.client.query("select pg_terminate_backend($1, 10000)", [rows[0]?.pid]);
    expect(await mirror(database, { table: "t" })).toEqual(["INSERT 1", "INSERT 3"]);
  });

  it("a prepared transaction tells when it is committed, by whomever, and nothing when it is rolled back", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (id int primary key, v int)",
      "select millrace.watch('t')",
      "begin; insert into t values (1, 1); savepoint a; insert into t values (2, 2); rollback to a; insert into t values (3, 3)",
      "prepare transaction 'kept'",
      "begin; insert into t values (4, 4)",
      "prepare transaction 'dropped'",
      "insert into t values (5, 5)",
    );
    const other = await database.session();
    expect(await mirror(database, { table: "t" })).toEqual(["INSERT 5"]);
    await other.query("commit prepared 'kept'");
    await other.query("rollback prepared 'dropped'");
    expect(await mirror(database, { table: "t" })).toEqual(["INSERT 5", "INSERT 1", "INSERT 3"]);
  });

  it("SET ROLE, SECURITY DEFINER and row-level work of other roles are told alike", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    const role = `plain_${await database.value<number>("select pg_backend_pid()")}`;
    await database.run(
      `create role ${role} login`,
      "create table t (id int primary key, v int)",
      "select millrace.watch('t')",
      "create function add(n int) returns void language sql security definer set search_path = public as 'insert into t values (n, n)'",
      `set role ${role}`,
      "select add(1)",
      "reset role",
      `grant insert, select on t to ${role}`,
      `set role ${role}`,
      "insert into t values (2, 2)",
      "reset role",
    );
    expect(await mirror(database, { table: "t" })).toEqual(["INSERT 1", "INSERT 2"]);
  });

  it("sessions that write at once to one row tell in the order of its changes", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (id int primary key, v int)",
      "select millrace.watch('t')",
      "insert into t values (1, 0)",
    );
    const writers = await Promise.all(Array.from({ length: 4 }, () => database.session()));
    await Promise.all(
      writers.map(async (writer) => {
        for (let n = 0; n < 50; n += 1) await writer.query("update t set v = v + 1");
      }),
    );
    const told = await mirror(database, { table: "t" });
    expect(told).toHaveLength(201);
  });
});
