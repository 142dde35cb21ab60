import { describe, expect, it } from "vitest";
import { refusal, servers, WatchedDatabase } from "./watched-database.ts";

const refusedKinds: readonly (readonly [target: string, message: string])[] = [
  ["a_view", "a_view is a view: it cannot be watched"],
  ["a_matview", "a_matview is a materialized view: it cannot be watched"],
  ["a_foreign", "a_foreign is a foreign table: it cannot be watched"],
  ["a_temporary", "a_temporary is a temporary table: it cannot be watched"],
  ["an_unlogged", "an_unlogged is an unlogged table: it cannot be watched"],
  ["a_sequence", "a_sequence is a sequence: it cannot be watched"],
  ["an_index", "an_index is not a table: it cannot be watched"],
  ["mixed", "mixed is a table with a foreign or unlogged partition: it cannot be watched"],
  ["pg_class", "pg_class is a system catalog: it cannot be watched"],
  ["information_schema.sql_features", "information_schema.sql_features is a system catalog: it cannot be watched"],
  ["millrace.outbox", "millrace.outbox is one of Millrace's own: it cannot be watched"],
  ["millrace.source", "millrace.source is one of Millrace's own: it cannot be watched"],
];

const refusedArguments: readonly (readonly [parameters: string, code: string, message: string])[] = [
  ["null", "22004", "millrace.watch needs a table"],
  ["'no_key'", "22023", "public.no_key has no primary key"],
  ["'no_key', key_columns => '{}'", "22023", "public.no_key has no primary key"],
  ["'no_key', key_columns => '{a}'", "22004", "key column a of public.no_key may be null"],
  ["'t', key_columns => '{id,nope}'", "42703", "public.t has no column nope for the key"],
  ["'t', key_columns => '{xmin}'", "42703", "public.t has no column xmin for the key"],
  ["'t', topic => 't.{nope}'", "42703", "public.t has no column nope for the topic"],
  ["'t', include => '{nope}'", "42703", "public.t has no column nope for the included columns"],
  ["'t', exclude => '{v,nope}'", "42703", "public.t has no column nope for the excluded columns"],
  ["'t', exclude => '{id}'", "22023", "a column of the key or the topic of public.t cannot be excluded"],
  [
    "'t', topic => 't.{v}', exclude => '{v}'",
    "22023",
    "a column of the key or the topic of public.t cannot be excluded",
  ],
  ["'t', topic => ''", "22023", "topic '' is neither a topic nor a template"],
  ["'t', topic => 'a b'", "22023", "topic 'a b' is neither a topic nor a template"],
  ["'t', topic => 'a.{v'", "22023", "topic 'a.{v' is neither a topic nor a template"],
  ["'t', topic => 'a.{}'", "22023", "topic 'a.{}' is neither a topic nor a template"],
  ["'t', topic => 'a.*'", "22023", "topic 'a.*' is neither a topic nor a template"],
  ["'t', topic => 'taken'", "23505", "topic 'taken' belongs to the watched table public.other"],
  ["'t', topic => '{v}'", "23505", "topic '{v}' belongs to the watched table public.other"],
  ["'t', topic => 'ta{v}'", "23505", "topic 'ta{v}' belongs to the watched table public.other"],
];

describe.each(servers)("millrace.watch on $name", ({ cluster }) => {
  it("refuses what is no ordinary table, says what it is, and leaves nothing behind", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create view a_view as select 1 as id",
      "create materialized view a_matview as select 1 as id",
      "create foreign data wrapper w; create server s foreign data wrapper w; create foreign table a_foreign (id int) server s",
      "create temporary table a_temporary (id int primary key)",
      "create unlogged table an_unlogged (id int primary key)",
      "create sequence a_sequence",
      "create table t (id int); create index an_index on t (id)",
      "create table mixed (id int) partition by list (id)",
      "create foreign table mixed_1 partition of mixed for values in (1) server s",
    );
    for (const [target, message] of refusedKinds) {
      expect(await refusal(database.run(`select millrace.watch('${target}')`))).toMatchObject({
        code: "42809",
        message: expect.stringContaining(message) as string,
        hint: "Watch an ordinary or partitioned table: changes are seen where rows are written and logged.",
      });
    }
    expect(await refusal(database.run("select millrace.watch(1234567::oid::regclass)"))).toMatchObject({
      code: "42P01",
    });
    expect(await database.value("select count(*)::int from millrace.source")).toBe(0);
    expect(await database.value("select count(*)::int from pg_trigger where tgname like '!%'")).toBe(0);
  });

  it("refuses wrong arguments, each with a sentence and a hint, and leaves nothing behind", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table no_key (a int, b int not null)",
      "create table t (id int primary key, v text)",
      "create table other (id int primary key)",
      "select millrace.watch('other', topic => 'taken')",
    );
    for (const [parameters, code, message] of refusedArguments) {
      const refused = await refusal(database.run(`select millrace.watch(${parameters})`));
      expect(refused).toMatchObject({ code, message });
      expect(refused.hint).not.toBe("");
    }
    expect(await database.value("select array_agg(name) from millrace.source")).toEqual(["public.other"]);
    await database.run(
      "select millrace.watch('no_key', key_columns => '{b}')",
      "select millrace.watch('t', topic => 'takes.{v}')",
    );
  });

  it("watches one partition tree once", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (id int primary key) partition by list (id)",
      "create table t1 partition of t for values in (1)",
      "select millrace.watch('t1')",
    );
    expect(await refusal(database.run("select millrace.watch('t')"))).toMatchObject({
      message: "public.t is a table with a partition that is watched: it cannot be watched",
      hint: "Unwatch public.t1 first: its changes are then told as those of public.t.",
    });
    await database.run("select millrace.unwatch('t1')", "select millrace.watch('t')");
    expect(await refusal(database.run("select millrace.watch('t1')"))).toMatchObject({
      message: "public.t1 is a partition of a watched table: it cannot be watched",
    });
  });

  it("changes a source when called again, in a savepoint too, and mends triggers that are not ours any more", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (id int primary key, v text)",
      "select millrace.watch('t')",
      "begin; savepoint a; select millrace.watch('t', topic => 'again', exclude => '{v}'); release a; commit",
      "insert into t values (1, 'x')",
      `drop trigger "!millrace_row" on t`,
      "create function nothing() returns trigger language plpgsql as 'begin return null; end'",
      `create trigger "!millrace_row" after insert on t for each row execute function nothing()`,
      "select millrace.watch('t', topic => 'mended')",
      "insert into t values (2, 'x')",
    );
    expect((await database.written()).filter(({ operation }) => operation === "I")).toMatchObject([
      { topic: "again", after: '{"id":1}' },
      { topic: "mended", after: '{"id":2}' },
    ]);
    expect(await database.value("select count(*)::int from millrace.source")).toBe(1);
  });

  it("G11 waits at most a second for the lock, so that writers do not queue, and names who holds it", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run("create table t (id int primary key)");
    const writer = await database.session();
    await writer.query("begin; insert into t values (1)");
    const { rows } = await writer.query<{ pid: number }>("select pg_backend_pid() as pid");
    expect(await refusal(database.run("select millrace.watch('t')"))).toMatchObject({
      code: "55P03",
      message: `could not lock public.t within 1 s: pid ${rows[0]?.pid} in the way`,
    });
    await writer.query("prepare transaction 'holds'");
    expect(await refusal(database.run("select millrace.watch('t')"))).toMatchObject({
      message: "could not lock public.t within 1 s: a prepared transaction in the way",
    });
    await database.run("commit prepared 'holds'", "select millrace.watch('t')");
  });

  it("unwatches: nothing is captured, nothing is left on the table, and what is written stays", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run("create table t (id int primary key)", "select millrace.watch('t')", "insert into t values (1)");
    expect(await database.value("select millrace.unwatch('t')")).toBe(true);
    expect(await database.value("select millrace.unwatch('t')")).toBe(false);
    await database.run("insert into t values (2)", "truncate t");
    expect(await database.written()).toMatchObject([{ operation: "I", key: "1" }]);
    expect(await database.value("select count(*)::int from pg_trigger where tgrelid = 't'::regclass")).toBe(0);
    expect(await database.value("select count(*)::int from pg_proc where proname ~ '^capture_[0-9]'")).toBe(0);
    await database.run("select millrace.watch('t')");
    const oid = await database.value<number>("select 't'::regclass::oid");
    await database.run("drop table t");
    expect(await database.value(`select millrace.unwatch('${oid}')`)).toBe(true);
  });

  it("is for the table's owner: nobody else becomes the author of its events", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    const tag = await database.value<number>("select pg_backend_pid()");
    const [owner, mallory] = [`owner_${tag}`, `mallory_${tag}`];
    await database.run(
      `create role ${owner} login; create role ${mallory} login`,
      `grant create on schema public to ${owner}, ${mallory}`,
      `select millrace.allow('${owner}', 'watcher'), millrace.allow('${mallory}', 'watcher')`,
    );
    const own = await database.session(owner);
    await own.query(`create table t (id int primary key, secret text); grant all on t to ${mallory}`);
    await own.query("select millrace.watch('t', exclude => '{secret}')");
    const before = await database.value("select to_jsonb(s) from millrace.source s");
    const oid = await database.value<number>("select 't'::regclass::oid");

    const other = await database.session(mallory);
    const attempts = [
      "select millrace.watch('t')",
      "select millrace.unwatch('t')",
      "select millrace.register_source('t', 'mine', null, null, null, true, true, null, true)",
      "select millrace.release_source('t'::regclass)",
      `create or replace trigger "!millrace_row" after insert on t for each row execute function millrace.capture_${oid}();
       select millrace.register_source('t', 'mine', null, null, null, true, true, null, true)`,
      "select millrace.install_triggers('t', true, false)",
      `create or replace function millrace.capture_${oid}() returns trigger language plpgsql as 'begin return null; end'`,
      "insert into millrace.source (relid, name, topic, key_columns) values (1, 'x', 'x', '{x}')",
      "select millrace.allow(current_role::regrole, 'server')",
      `alter table t disable trigger "!millrace_row"`,
    ];
    for (const attempt of attempts) {
      await other.query("begin");
      const { code } = await refusal(other.query(attempt));
      expect([attempt, code]).toEqual([attempt, "42501"]);
      await other.query("rollback");
    }
    // A trigger function of another's source on a table of one's own tells nothing; a topic of another's cannot be had.
    await other.query("create table mine (id int primary key, secret text)");
    await other.query(
      `create trigger forged after insert on mine for each row execute function millrace.capture_${oid}()`,
    );
    await other.query("insert into mine values (1, 'x')");
    await expect(other.query("select millrace.watch('mine', topic => 't')")).rejects.toMatchObject({ code: "23505" });
    expect(await database.value("select to_jsonb(s) from millrace.source s")).toEqual(before);
    expect(await database.written()).toEqual([]);
    await own.query("insert into t values (1, 'x')");
    expect(await database.written()).toMatchObject([{ topic: "t", after: '{"id":1}' }]);
  });
});

describe.each(servers)("the schema on $name", ({ cluster }) => {
  it("is open to nobody but by millrace.allow, pins the search path of what runs as the owner, and explains what users call", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run("create table t (id int primary key)", "select millrace.watch('t')");
    const functions = "from pg_proc p where p.pronamespace = 'millrace'::regnamespace";
    expect(
      await database.value(`select array_agg(p.proname::text) ${functions}
        and exists (select from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a where a.grantee = 0)`),
    ).toBeNull();
    expect(
      await database.value(`select array_agg(p.proname::text) ${functions} and p.prosecdef
        and not coalesce('search_path=pg_catalog, pg_temp' = any (p.proconfig), false)`),
    ).toBeNull();
    expect(
      await database.value(`select array_agg(p.proname::text) ${functions} and obj_description(p.oid, 'pg_proc') is null
        and p.proname in ('emit', 'transaction', 'watch', 'unwatch', 'row_image', 'allow', 'deny')`),
    ).toBeNull();
    expect(
      await database.value(`select array_agg(c.relname::text) from pg_class c where c.relnamespace = 'millrace'::regnamespace
        and exists (select from aclexplode(c.relacl) a where a.grantee = 0)`),
    ).toBeNull();
    expect(
      await database.value(`select array_agg(distinct pg_get_userbyid(o)::text) from (
        select p.proowner ${functions} union all select c.relowner from pg_class c
        where c.relnamespace = 'millrace'::regnamespace) x(o)`),
    ).toEqual(["millrace_owner"]);
    const settings = `select array_agg(c order by c) from pg_proc p, unnest(p.proconfig) c where p.oid = `;
    expect(await database.value(`${settings} ('millrace.capture_' || 't'::regclass::oid)::regproc`)).toEqual(
      await database.value(`${settings} 'millrace.row_image(record, text[], text[])'::regprocedure`),
    );
  });
});
