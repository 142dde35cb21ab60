import { describe, expect, it } from "vitest";
import { outline, servers, WatchedDatabase } from "./watched-database.ts";

describe.each(servers)("changes on $name", ({ cluster }) => {
  it("G4 tell of a key or a topic that changes as DELETE at the old place and INSERT at the new, adjacent", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (a text, b int, region text, v int, primary key (a, b))",
      "select millrace.watch('t', topic => 'shop.{region}.t')",
      `insert into t values ('x "1"', 7, 'eu', 1), ('y', 8, 'eu', 1)`,
      "update t set v = 2",
      "update t set region = 'us', v = 3",
      "update t set b = b + 100 where a = 'y'",
      "update t set v = v where a = 'y'",
      "delete from t where a = 'y'",
    );
    const x = '["x \\"1\\"",7]';
    expect(outline(await database.written())).toEqual([
      `I shop.eu.t ${x}`,
      `I shop.eu.t ["y",8]`,
      `U shop.eu.t ${x}`,
      `U shop.eu.t ["y",8]`,
      `D shop.eu.t ${x}`,
      `I shop.us.t ${x}`,
      `D shop.eu.t ["y",8]`,
      `I shop.us.t ["y",8]`,
      `D shop.us.t ["y",8]`,
      `I shop.us.t ["y",108]`,
      `U shop.us.t ["y",108]`,
      `D shop.us.t ["y",108]`,
    ]);
  });

  it("spell topic values so that each is one token, and one that is too long does not fail the writer", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (id int primary key, v text, w text)",
      "select millrace.watch('t', topic => 't.{v}-{w}')",
      "insert into t values (1, 'a.b', 'ä ✓'), (2, null, ''), (3, '%null', '{v}'), (4, repeat('x', 256), 'y'), (5, E'\\x01', 'z')",
      "insert into t values (6, repeat('x', 200), repeat('y', 200))",
    );
    expect((await database.written()).map(({ topic }) => topic)).toEqual([
      "t.a%2Eb-%C3%A4%20%E2%9C%93",
      "t.%null-%empty",
      "t.%25null-%7Bv%7D",
      "t.%long-y",
      "t.%01-z",
      "t.%long-%long",
    ]);
  });

  it("tell of TRUNCATE with the source's topic and no key, unless asked not to", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (id int primary key, region text)",
      "create table quiet (id int primary key)",
      "select millrace.watch('t', topic => 't.{region}')",
      "select millrace.watch('quiet')",
      "select millrace.watch('quiet', capture_truncate => false)",
      "truncate t, quiet",
    );
    expect(outline(await database.written())).toEqual(["T t.{region} -"]);
  });

  it("are captured with names that need quotes, and columns dropped and added", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      `create schema "My Shop"`,
      `create table "My Shop"."Order's @ %1$s" ("The ""Id""" int, gone int, "a{b" text default '', primary key ("The ""Id"""))`,
      `alter table "My Shop"."Order's @ %1$s" drop column gone`,
      `select millrace.watch('"My Shop"."Order''s @ %1$s"')`,
      `insert into "My Shop"."Order's @ %1$s" values (1)`,
      `alter table "My Shop"."Order's @ %1$s" add column later int default 5`,
      `update "My Shop"."Order's @ %1$s" set later = 6`,
    );
    expect((await database.written()).map(({ topic, key, before, after }) => [topic, key, before, after])).toEqual([
      ["Order%27s%20%40%20%251%24s", "1", null, `{"The \\"Id\\"":1,"a{b":""}`],
      [
        "Order%27s%20%40%20%251%24s",
        "1",
        `{"The \\"Id\\"":1,"a{b":"","later":5}`,
        `{"The \\"Id\\"":1,"a{b":"","later":6}`,
      ],
    ]);
  });

  it("of partitions are their parent's, also of one that is attached later", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (id int primary key, v text) partition by range (id)",
      "create table t1 partition of t for values from (0) to (10)",
      "create table t2 partition of t for values from (10) to (20) partition by list (id)",
      "create table t2x partition of t2 default",
      "select millrace.watch('t')",
      "create table t3 partition of t for values from (20) to (30)",
      "create table t4 (v text, id int not null)",
      "alter table t attach partition t4 for values from (30) to (40)",
      "set session_replication_role = replica",
      "insert into t values (1, 'a'), (11, 'b'), (21, 'c'), (31, 'd')",
      "insert into t1 values (2, 'e')",
      "update t set id = 12 where id = 1",
      "truncate t",
    );
    expect(outline(await database.written())).toEqual([
      "I t 1",
      "I t 11",
      "I t 21",
      "I t 31",
      "I t 2",
      "D t 1",
      "I t 12",
      "T t -",
    ]);
  });

  it("of a table that is not what it was are written as well as they can be, with a header, and show nothing excluded", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (id int primary key, region text, secret text, v text)",
      "select millrace.watch('t', topic => 't.{region}', exclude => '{secret}')",
      "alter table t rename secret to open",
      "insert into t values (1, 'eu', 'hidden', 'v')",
      "alter table t rename region to area",
      "insert into t values (2, 'eu', 'hidden', E'v\\x01')",
      "alter table t rename id to number",
      "update t set v = 'w' where number = 1",
    );
    const written = await database.written();
    expect(written).toMatchObject([
      { operation: "I", topic: "t.eu", key: "1", after: '{"id":1,"region":"eu"}' },
      { operation: "I", topic: "t.%gone", key: "2", after: '{"id":2}' },
      { operation: "U", topic: "t.%gone", key: null, before: "{}", after: "{}" },
    ]);
    for (const { headers } of written) expect(headers).toContain("millrace-drift");
    expect(JSON.stringify(written)).not.toContain("hidden");
  });

  it("G1 are captured from roles without any rights here, whatever their session is set to", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    const app = `app_${await database.value<string>("select pg_backend_pid()")}`;
    await database.run(
      `create role ${app} login`,
      "create table t (id int primary key, v text)",
      `grant insert, update, delete, truncate, select on t to ${app}`,
      "select millrace.watch('t')",
    );
    const writer = await database.session(app);
    await writer.query("set search_path = ''; set plan_cache_mode = force_generic_plan; set enable_indexscan = off");
    await writer.query("insert into public.t values (1, 'a')");
    await database.run(
      `grant create on schema public to ${app}`,
      "set session_replication_role = replica",
      "update t set v = 'b'",
      "set session_replication_role = local",
      "delete from t",
      "reset session_replication_role",
    );
    await writer.query("truncate public.t");
    expect(outline(await database.written())).toEqual(["I t 1", "U t 1", "D t 1", "T t -"]);
    await expect(writer.query("select * from millrace.outbox")).rejects.toMatchObject({ code: "42501" });
    await expect(writer.query("select millrace.emit('x')")).rejects.toMatchObject({ code: "42501" });
  });

  it("G2 happen if their (sub)transaction does: savepoints, PL/pgSQL handlers, two-phase commit", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (id int primary key)",
      "select millrace.watch('t')",
      "begin; insert into t values (1); savepoint a; insert into t values (2); rollback to a; insert into t values (3); commit",
      "do $$ begin insert into t values (4); begin insert into t values (5); perform 1/0; exception when others then null; end; end $$",
      "begin; insert into t values (6)",
      "prepare transaction 'kept'",
      "begin; insert into t values (7)",
      "prepare transaction 'dropped'",
      "rollback prepared 'dropped'",
    );
    expect(outline(await database.written())).toEqual(["I t 1", "I t 3", "I t 4"]);
    await database.run("commit prepared 'kept'");
    expect(outline(await database.written())).toEqual(["I t 1", "I t 3", "I t 4", "I t 6"]);
  });

  it.each(["repeatable read", "serializable"])(
    "G1 of a %s transaction whose snapshot is older than the watch are captured all the same",
    async (level) => {
      await using database = await WatchedDatabase.create(await cluster());
      await database.run("create table t (id int primary key)");
      const writer = await database.session();
      await writer.query(`begin isolation level ${level}`);
      await writer.query("select count(*) from pg_class");
      await database.run("select millrace.watch('t', topic => 'early')", "select millrace.watch('t', topic => 'late')");
      await writer.query("insert into t values (1)");
      await writer.query("commit");
      expect(outline(await database.written())).toEqual(["I late 1"]);
    },
  );

  it("G4 come before those that a user's own trigger makes in answer to them", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (id int primary key, v int)",
      `create function bump() returns trigger language plpgsql as $$
       begin update t set v = v + 1 where id = new.id and v < 3; return null; end $$`,
      `create trigger " a" after insert on t for each row execute function bump()`,
    );
    const warnings: string[] = [];
    database.client.on("notice", ({ message }) => warnings.push(message ?? ""));
    await database.run("select millrace.watch('t')");
    expect(warnings).toEqual([
      'trigger " a" may change rows of public.t while a statement is changing them: then the older change of a row is told last',
      'trigger " a" of public.t fires before capture: what it changes is told before the change that it answers',
    ]);
    await database.run(`alter trigger " a" on t rename to "aaa"`, "insert into t values (1, 1)");
    expect((await database.written()).map(({ operation, after }) => `${operation} ${after}`)).toEqual([
      'I {"id":1,"v":1}',
      'U {"id":1,"v":2}',
    ]);
  });
});
