import type pg from "pg";
import { describe, expect, it } from "vitest";
import { listSources } from "../../../src/postgres/sources.ts";
import type { TestCluster } from "../../support/cluster.ts";
import { outline, refusal, servers, WatchedDatabase } from "./watched-database.ts";

/** A victim's watched table, and a stranger with all that a role without rights here can have. */
interface Scene extends AsyncDisposable {
  readonly database: WatchedDatabase;
  readonly victim: pg.Client;
  readonly mallory: pg.Client;
  readonly name: string;
}

async function scene(cluster: TestCluster, capability?: "watcher" | "writer"): Promise<Scene> {
  const database = await WatchedDatabase.create(cluster);
  const tag = await database.value<number>("select pg_backend_pid()");
  const name = `mallory_${tag}`;
  await database.run(
    `create role victim_${tag} login; create role ${name} login`,
    `grant create, usage on schema public to victim_${tag}, ${name}`,
    `select millrace.allow('victim_${tag}', 'watcher')`,
    "create table loot (who text, path text); grant all on loot to public",
  );
  if (capability !== undefined) await database.run(`select millrace.allow('${name}', '${capability}')`);
  const victim = await database.session(`victim_${tag}`);
  const mallory = await database.session(name);
  return { database, victim, mallory, name, [Symbol.asyncDispose]: () => database[Symbol.asyncDispose]() };
}

/** Types of Mallory's, each with casts that take note of whose rights they got and plant a search path for what runs next. */
const evilTypes = `
  create type mood as enum ('sad', 'glad');
  create type span as range (subtype = int4);
  create type pair as (a int, m mood);
  create domain glad as mood;
  do $$
  declare t text; target text;
  begin
    foreach t in array '{mood,span,pair,_mood,_pair}'::text[] loop
      foreach target in array '{json,jsonb,text}'::text[] loop
        execute format($f$create function evil_%1$s_%2$s(%1$I) returns %2$I language plpgsql as $e$
          begin
            insert into public.loot values (current_user, current_setting('search_path'));
            perform set_config('search_path', 'public, pg_catalog', false);
            return '"forged"';
          end $e$ $f$, t, target);
        execute format('create cast (%1$I as %2$I) with function evil_%1$s_%2$s(%1$I) as implicit', t, target);
      end loop;
    end loop;
  end $$;
  create function public.octet_length(text) returns int language plpgsql as $$
  begin insert into public.loot values (current_user, 'planted'); return 1; end $$;
  grant usage on type mood, span, pair, glad to public`;

const rowOfEvil = `'glad', '[1,5)', '(1,sad)', '{glad,sad}', '{"(2,glad)",NULL}', 'sad'`;
const imageOfEvil = `"k":"glad","s":"[1,5)","p":{"a":1,"m":"sad"},"ms":["glad","sad"],"ps":[{"a":2,"m":"glad"},null],"d":"sad"`;

async function assertNotRobbed({ database }: Scene): Promise<void> {
  expect((await database.client.query("select * from loot")).rows).toEqual([]);
}

describe.each(servers)("a cast to json of a stranger's on $name", ({ cluster }) => {
  it.each([
    ["all columns", ""],
    ["excluded ones", ", exclude => '{secret}'"],
    ["included ones", ", include => '{k,s,p,ms,ps,d}'"],
    ["strict capture", ", capture => 'strict'"],
    ["a key and a topic of that type", ", key_columns => '{k}', topic => 't.{d}.{k}'"],
  ])("is never run, with %s", async (_, settings) => {
    await using here = await scene(await cluster());
    const { database, victim, mallory } = here;
    await mallory.query(evilTypes);
    await victim.query(
      "create table t (id int primary key, k mood not null, s span, p pair, ms mood[], ps pair[], d glad, secret mood, word text)",
    );
    await victim.query(`select millrace.watch('t'${settings})`);
    // A word with an escape that Postgres' own JSON operators refuse takes the slow way for keys and topics.
    await victim.query(`insert into t values (1, ${rowOfEvil}, null, 'plain'), (2, ${rowOfEvil}, null, E'\\x01')`);
    await victim.query("update t set word = word || '!'");
    await victim.query("delete from t");
    await assertNotRobbed(here);
    const written = await database.written();
    expect(written).toHaveLength(6);
    for (const { before, after, headers } of written) {
      expect(after ?? before).toContain(imageOfEvil);
      expect(headers).toBeNull();
    }
    // The trap is real: whoever calls row_to_json steps into it.
    await victim.query(`insert into t values (1, ${rowOfEvil}); select row_to_json(t) from t`);
    expect(await database.value<number>("select count(*)::int from loot")).toBeGreaterThan(0);
  });

  it("is not run for columns that come later, in the session that knows the table and in an older snapshot", async () => {
    await using here = await scene(await cluster());
    const { database, victim, mallory } = here;
    await mallory.query(evilTypes);
    await victim.query(
      "create table t (id int primary key, word text); insert into t values (1, 'a'), (2, 'b'), (3, 'c')",
    );
    await victim.query("select millrace.watch('t')");
    await victim.query("update t set word = 'x' where id = 1");
    const older = await database.session((await victim.query("select current_user as name")).rows[0].name);
    await older.query("begin isolation level repeatable read; select count(*) from pg_class");
    await victim.query("alter table t add column k mood default 'glad', add column p pair default '(1,sad)'");
    await victim.query("alter table t alter word type mood using 'sad'");
    await victim.query("update t set id = id where id = 1");
    await older.query("insert into t values (4, 'sad', 'sad', '(2,glad)')");
    await older.query("commit");
    await victim.query("select millrace.watch('t')");
    await victim.query("update t set id = id where id = 1");
    await assertNotRobbed(here);
    const images = (await database.written()).filter(({ operation }) => operation !== "M").map(({ after }) => after);
    const altered = '{"id":1,"word":"sad","k":"glad","p":{"a":1,"m":"sad"}}';
    expect(images.slice(0, 2)).toEqual(['{"id":1,"word":"x"}', altered]);
    expect(images[2]).toContain('{"id":4,"word":"sad","k":"sad","p":');
    expect(images.at(-1)).toBe(altered);
  });

  it("is not run of a type that gets new attributes after the table was watched", async () => {
    await using here = await scene(await cluster());
    const { database, victim, mallory } = here;
    await mallory.query("create type plain as (a int, b text)");
    await victim.query("create table t (id int primary key, p plain, ps plain[])");
    await victim.query("select millrace.watch('t')");
    await victim.query(`insert into t values (1, '(1,x)', '{"(2,y)"}')`);
    await mallory.query(evilTypes);
    await mallory.query("alter type plain add attribute m mood cascade");
    await victim.query("update t set p = '(1,x,glad)', ps = '{\"(2,y,sad)\"}'");
    await assertNotRobbed(here);
    expect((await database.written()).map(({ after }) => after)).toEqual([
      '{"id":1,"p":{"a":1,"b":"x"},"ps":[{"a":2,"b":"y"}]}',
      '{"id":1,"p":{"a":1,"b":"x","m":"glad"},"ps":[{"a":2,"b":"y","m":"sad"}]}',
    ]);
  });

  it("is not run where a stranger's own table is watched and altered in every way", async () => {
    await using here = await scene(await cluster(), "watcher");
    const { database, mallory, name } = here;
    await mallory.query(evilTypes);
    await mallory.query("create table own (id int primary key, v int, w text)");
    await mallory.query(
      "create function evil_row(own) returns json language plpgsql as $$ begin insert into loot values (current_user, 'row'); return '{}'; end $$",
    );
    await mallory.query("create cast (own as json) with function evil_row(own) as implicit");
    await mallory.query("create cast (own as text) with inout as implicit");
    await mallory.query("select millrace.watch('own', topic => 'own.{w}')");
    for (const change of [
      "insert into own values (1, 1, 'a')",
      "alter table own alter v type mood using 'sad'",
      "update own set v = 'glad'",
      "alter table own rename v to x",
      "update own set x = 'sad'",
      "alter table own alter w type mood using 'sad'",
      "update own set x = 'glad'",
      "alter table own alter id type text",
      "update own set x = 'sad'",
    ]) {
      await mallory.query(change);
    }
    expect((await database.client.query("select * from loot where who <> $1", [name])).rows).toEqual([]);
    const changes = (await database.written()).filter(({ operation }) => operation !== "M");
    expect(changes.map(({ topic }) => topic)).toEqual(["own.a", "own.a", "own.a", "own.sad", "own.sad"]);
  });

  it("is run where only a superuser can have made it", async () => {
    await using here = await scene(await cluster());
    await here.database.run(
      "create extension hstore",
      "create table t (id int primary key, h hstore)",
      "select millrace.watch('t')",
      "insert into t values (1, 'a=>1')",
    );
    expect(await here.database.written()).toMatchObject([{ after: '{"id":1,"h":{"a": "1"}}' }]);
  });
});

describe.each(servers)("a stranger on $name", ({ cluster }) => {
  it.each([undefined, "writer", "watcher"] as const)(
    "with capability %s can call nothing that forges, reads or stops a source",
    async (capability) => {
      await using here = await scene(await cluster(), capability);
      const { database, victim, mallory } = here;
      await victim.query("create table t (id int primary key, v text); grant select, insert on t to public");
      await victim.query("select millrace.watch('t', topic => 't.{v}')");
      const oid = await database.value<number>("select 't'::regclass::oid");
      const before = await database.value("select jsonb_agg(s) from millrace.source s");
      const code = await database.value("select prosrc from pg_proc where proname = 'capture_' || 't'::regclass::oid");
      for (const attempt of [
        "set role millrace_owner",
        "set session authorization millrace_owner",
        `insert into millrace.outbox (topic, key, operation, after, source_id) values ('t.x', '1', 'I', '{}', 1)`,
        "select * from millrace.outbox",
        "update millrace.source set topic = 'x'",
        "delete from millrace.source",
        "truncate millrace.outbox",
        "lock millrace.outbox",
        "select millrace.emit('t.x', '1', '{}', null, 'INSERT')",
        "select millrace.tell_truncate(1, 't.x', 't'::regclass)",
        "select millrace.write_capture(s) from millrace.source s",
        "select millrace.adopt_sources()",
        `select millrace.capture_${oid}()`,
        `drop function millrace.capture_${oid}() cascade`,
        `alter function millrace.capture_${oid}() rename to gone`,
        `alter function millrace.capture_${oid}() owner to current_user`,
        `create or replace function millrace.capture_${oid}() returns trigger language plpgsql as 'begin return null; end'`,
        "create function millrace.evil() returns int language sql as 'select 1'",
        "create operator millrace.+ (leftarg = int, rightarg = int, function = int4pl)",
        `create trigger "!millrace_row" after insert on t for each row execute function millrace.capture_${oid}()`,
        `alter table t disable trigger "!millrace_row"`,
        `alter trigger "!millrace_row" on t rename to late`,
        `drop trigger "!millrace_row" on t`,
        "alter table t rename to u",
        "drop table t",
        "select millrace.watch('t')",
        "select millrace.unwatch('t')",
        "select millrace.release_source('t'::regclass)",
        "select millrace.allow(current_role::regrole, 'server')",
      ]) {
        await mallory.query("begin");
        const { code: state } = await refusal(mallory.query(attempt));
        expect([attempt, /^(42501|42939|0A000)$/.test(state)]).toEqual([attempt, true]);
        await mallory.query("rollback");
      }
      await mallory.query("set session_replication_role = origin").catch(() => undefined);
      expect(await database.value("select jsonb_agg(s) from millrace.source s")).toEqual(before);
      expect(await database.value("select prosrc from pg_proc where proname = 'capture_' || 't'::regclass::oid")).toBe(
        code,
      );
      await mallory.query("insert into t values (1, 'x')");
      expect(outline(await database.written())).toEqual(["I t.x 1"]);
      expect((await listSources(database.client)).flatMap(({ problems }) => problems)).toEqual([]);
    },
  );

  it("who may watch can put another's trigger function on a table of his, in every way, and tells nothing by it", async () => {
    await using here = await scene(await cluster(), "watcher");
    const { database, victim, mallory } = here;
    await victim.query("create table t (id int primary key, v text)");
    await victim.query("select millrace.watch('t')");
    const oid = await database.value<number>("select 't'::regclass::oid");
    const called = `execute function millrace.capture_${oid}`;
    await mallory.query(`
      create table mine (id int, v text);
      create table parts (id int, v text) partition by list (id);
      create table part partition of parts default;
      create trigger a after insert or update or delete on mine for each row ${called}();
      create trigger b after insert on mine for each row when (new.id > 0) ${called}('t', '${oid}', 'public');
      create trigger "!millrace_row" after insert or update or delete on mine for each row ${called}();
      create trigger "!millrace_truncate" after truncate on mine for each statement ${called}();
      create constraint trigger c after insert on mine deferrable initially deferred for each row ${called}();
      create trigger d after insert on parts for each row ${called}()`);
    await mallory.query(
      "insert into mine values (1, 'x'); insert into parts values (1, 'x'); update mine set v = 'y'; delete from mine",
    );
    await mallory.query("truncate mine");
    expect(await database.written()).toEqual([]);
    await mallory.query("select millrace.watch('mine', topic => 'mine', key_columns => '{id}')").catch(() => undefined);
    await victim.query("insert into t values (1, 'z')");
    expect(outline(await database.written())).toEqual(["I t 1"]);
  });

  it("gains nothing from functions and operators that he plants in the search path of a writer", async () => {
    await using here = await scene(await cluster());
    const { database, victim, mallory } = here;
    await mallory.query(`
      create function public.strpos(text, text) returns int language plpgsql as $$ begin insert into loot values (current_user, 'strpos'); return 0; end $$;
      create function public.row_to_json(record) returns json language plpgsql as $$ begin insert into loot values (current_user, 'row'); return '{}'; end $$;
      create function public.pg_typeof(int) returns regtype language plpgsql as $$ begin insert into loot values (current_user, 'typeof'); return 23; end $$;
      create function public.arrow(json, text) returns text language plpgsql as $$ begin insert into loot values (current_user, 'arrow'); return 1; end $$;
      create operator public.->> (leftarg = json, rightarg = text, function = public.arrow);
      create function public.ne(oid, int) returns bool language plpgsql as $$ begin insert into loot values (current_user, 'ne'); return true; end $$;
      create operator public.<> (leftarg = oid, rightarg = int, function = public.ne)`);
    await victim.query("create table t (id int primary key, v text)");
    await victim.query("set search_path = public, pg_catalog; select millrace.watch('t')");
    await victim.query("create temp table outbox (id int); create temp table source (id int)");
    await victim.query("insert into t values (1, 'x'); update t set v = 'y'; delete from t");
    await assertNotRobbed(here);
    expect(outline(await database.written())).toEqual(["I t 1", "U t 1", "D t 1"]);
  });

  it("with the right to make triggers on a table can put capture off, and sources says so", async () => {
    await using here = await scene(await cluster(), "watcher");
    const { database, victim, mallory, name } = here;
    await victim.query(`create table t (id int primary key); grant trigger on t to ${name}`);
    await victim.query("select millrace.watch('t')");
    const oid = await database.value<number>("select 't'::regclass::oid");
    const replaced = await mallory
      .query(
        `create or replace trigger "!millrace_row" after insert on t for each row when (false) execute function millrace.capture_${oid}()`,
      )
      .then(
        () => true,
        () => false,
      );
    expect((await listSources(database.client)).map(({ state }) => state)).toEqual([replaced ? "OFF" : "OK"]);
  });
});
