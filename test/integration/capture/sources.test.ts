import { describe, expect, it } from "vitest";
import { FeedError } from "../../../src/core/errors.ts";
import { listSources, unwatchTable, watchTable } from "../../../src/postgres/sources.ts";
import { refusal, servers, WatchedDatabase } from "./watched-database.ts";

async function failure(promise: Promise<unknown>): Promise<FeedError> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof FeedError) return error;
    throw error;
  }
  throw new Error("it was expected to fail");
}

describe.each(servers)("sources on $name", ({ cluster }) => {
  it("are watched, listed and unwatched by name, with what is wrong said in sentences", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    const { client } = database;
    await database.run(`create schema shop; create table shop."Order Items" (id int primary key, region text, v text)`);

    const source = await watchTable(client, { table: `shop."Order Items"`, topic: "items.{region}", exclude: ["v"] });

    expect(source).toMatchObject({
      table: `shop."Order Items"`,
      topic: "items.{region}",
      keyColumns: ["id"],
      includedColumns: undefined,
      excludedColumns: ["v"],
      beforeValues: true,
      captureTruncate: true,
      problems: [],
    });
    expect(await listSources(client)).toEqual([source]);
    await unwatchTable(client, `shop."Order Items"`);
    expect(await listSources(client)).toEqual([]);
    expect(await failure(unwatchTable(client, `shop."Order Items"`))).toMatchObject({ code: "SOURCE_NOT_FOUND" });
    for (const table of ["nowhere", "a.b.c.d", "", 'un"closed']) {
      expect(await failure(watchTable(client, { table }))).toMatchObject({
        code: "INVALID_REQUEST",
        message: `There is no table ${table} that this role can see.`,
      });
    }
    expect(await failure(watchTable(client, { table: "pg_class" }))).toMatchObject({
      code: "INVALID_REQUEST",
      message: "pg_class is a system catalog: it cannot be watched.",
    });
  });

  it("try again for a lock, tell who holds it, and give up with a sentence", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run("create table t (id int primary key)");
    const writer = await database.session();
    await writer.query("begin; insert into t values (1)");
    const { rows } = await writer.query<{ pid: number }>("select pg_backend_pid() as pid");
    const told = `Could not lock public.t within 1 s: pid ${rows[0]?.pid} in the way`;
    const waits: string[] = [];

    const refused = await failure(
      watchTable(database.client, { table: "t" }, { lockAttempts: 2, onWait: (sentence) => waits.push(sentence) }),
    );

    expect(refused).toMatchObject({ code: "DATABASE_UNAVAILABLE", message: `${told}, 2 times.` });
    expect(waits).toEqual([`${told}.`]);
    const watched = watchTable(database.client, { table: "t" }, { onWait: () => void writer.query("commit") });
    expect(await watched).toMatchObject({ table: "public.t", problems: [] });
    expect(await database.written()).toEqual([]);
  });

  it("say what a role lacks, and how it gets it", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    const role = `owner_${await database.value<number>("select pg_backend_pid()")}`;
    await database.run(`create role ${role} login`, `grant create on schema public to ${role}`);
    const owner = await database.session(role);
    await owner.query("create table t (id int primary key)");
    expect(await failure(watchTable(owner, { table: "t" }))).toMatchObject({
      code: "INVALID_REQUEST",
      action: expect.stringContaining("millrace.allow") as string,
    });
    await database.run(`select millrace.allow('${role}', 'watcher')`);
    expect(await watchTable(owner, { table: "t" })).toMatchObject({ table: "public.t" });
  });

  it("whose capture is off, missing, bypassed or out of date say so", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table fine (id int primary key)",
      "create table off (id int primary key)",
      "create table origin (id int primary key)",
      "create table gone (id int primary key)",
      "create table untruncated (id int primary key)",
      "create table renamed (id int primary key)",
      "create table parts (id int primary key) partition by list (id)",
      "create table parts_1 partition of parts for values in (1)",
    );
    for (const table of ["fine", "off", "origin", "gone", "untruncated", "renamed", "parts"]) {
      await watchTable(database.client, { table });
    }
    await database.run(
      "alter table off disable trigger all",
      `alter table origin enable trigger "!millrace_row"`,
      "drop table gone",
      `drop trigger "!millrace_truncate" on untruncated`,
      "alter table renamed rename id to number",
      "alter table renamed rename to called",
      `alter table parts_1 enable replica trigger "!millrace_row"`,
    );
    const problems = new Map(
      (await listSources(database.client)).map((source) => [source.watchedAs, source.problems.map(({ kind }) => kind)]),
    );
    expect(Object.fromEntries(problems)).toEqual({
      "public.fine": [],
      "public.off": ["TRIGGER_OFF", "TRUNCATE_UNSEEN"],
      "public.origin": ["TRIGGER_OFF"],
      "public.gone": ["TABLE_GONE"],
      "public.untruncated": ["TRUNCATE_UNSEEN"],
      "public.renamed": ["COLUMN_GONE"],
      "public.parts": ["TRIGGER_OFF"],
    });
    await unwatchTable(database.client, "public.gone");
    for (const table of ["off", "origin", "untruncated", "called", "parts"]) {
      await watchTable(database.client, { table });
    }
    expect((await listSources(database.client)).flatMap((source) => source.problems)).toEqual([]);
  });

  it("whose table was replaced, as a restore does, say that nothing is captured, and how it is again", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run("create table t (id int primary key)");
    await watchTable(database.client, { table: "t" });
    const oid = await database.value<number>("'t'::regclass::oid");
    await database.run(
      "drop table t",
      "create table t (id int primary key)",
      `create trigger "!millrace_row" after insert or update or delete on t for each row execute function millrace.capture_${oid}()`,
      `alter table t enable always trigger "!millrace_row"`,
      "insert into t values (1)",
    );
    expect(await database.written()).toEqual([]);
    const [source] = await listSources(database.client);
    expect(source?.problems.map(({ kind }) => kind)).toEqual(["TABLE_REPLACED"]);
    expect(source?.problems[0]?.action).toContain("`millrace unwatch public.t`, then `millrace watch public.t`");

    await unwatchTable(database.client, "public.t");
    expect(await watchTable(database.client, { table: "public.t" })).toMatchObject({ problems: [] });
    await database.run("insert into t values (2)");
    expect((await database.written()).map(({ key }) => key)).toEqual(["2"]);
    expect(await listSources(database.client)).toHaveLength(1);
  });

  it("are watched and unwatched by a role whose transactions are serializable and read only by default", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    const role = `careful_${await database.value<number>("select pg_backend_pid()")}`;
    await database.run(
      `create role ${role} login`,
      `grant create, usage on schema public to ${role}`,
      `select millrace.allow('${role}', 'watcher')`,
      "create table t (id int primary key)",
      `alter table t owner to ${role}`,
      `alter role ${role} set default_transaction_read_only = on`,
      `alter role ${role} set default_transaction_isolation = serializable`,
    );
    const owner = await database.session(role);
    expect(await watchTable(owner, { table: "t" })).toMatchObject({ table: "public.t", problems: [] });
    await unwatchTable(owner, "t");
    expect(await listSources(owner)).toEqual([]);
  });

  it("cannot take a topic behind the back of a snapshot that does not show its source", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run("create table a (id int primary key)", "create table b (id int primary key)");
    const early = await database.session();
    await early.query("begin isolation level repeatable read; select 1");
    await watchTable(database.client, { table: "a", topic: "orders" });
    expect(await refusal(early.query("select millrace.watch('b', 'orders')"))).toMatchObject({
      code: "40001",
      hint: "Try again, in a transaction that begins now.",
    });
    await early.query("rollback");
    await early.query("set default_transaction_isolation = serializable");
    expect(await refusal(early.query("select millrace.watch('b', 'orders')"))).toMatchObject({ code: "23505" });
  });
});
