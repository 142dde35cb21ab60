import { describe, expect, it } from "vitest";
import { refusal, servers, WatchedDatabase } from "../capture/watched-database.ts";
import { look, pollBatch } from "./polled-database.ts";

const table = "create table t (id int primary key, updated_at timestamptz not null default now())";

const kinds: readonly (readonly [kind: string, statement: string])[] = [
  ["a view", "create view x as select 1 as id, now() as updated_at"],
  ["a materialized view", "create materialized view x as select 1 as id, now() as updated_at"],
  ["a temporary table", "create temporary table x (id int primary key, updated_at timestamptz)"],
  ["an unlogged table", "create unlogged table x (id int primary key, updated_at timestamptz)"],
  [
    "a foreign table",
    "create foreign data wrapper w; create server s foreign data wrapper w; create foreign table x (id int, updated_at timestamptz) server s",
  ],
  ["a sequence", "create sequence x"],
];

const mistakes: readonly (readonly [what: string, statement: string, code: string])[] = [
  ["a column that is not there", "select millrace.poll('t', 'changed_at')", "42703"],
  ["a column of another type", "select millrace.poll('t', 'v')", "42804"],
  ["a deletion by text", "select millrace.poll('t', 'updated_at', deleted => 'v')", "42804"],
  ["a key that may be null", "select millrace.poll('t', 'updated_at', key_columns => '{v}')", "22004"],
  ["an excluded key", "select millrace.poll('t', 'updated_at', exclude => '{id}')", "22023"],
  ["an interval of nothing", "select millrace.poll('t', 'updated_at', every => '0')", "23514"],
  ["a topic that is taken", "select millrace.poll('t', 'updated_at', topic => 'other')", "23505"],
  ["a table that triggers watch", "select millrace.poll('other', 'updated_at')", "22023"],
];

async function withRoles(database: WatchedDatabase, ...names: readonly string[]): Promise<readonly string[]> {
  const suffix = `${process.pid}_${Math.random().toString(36).slice(2, 8)}`;
  const roles = names.map((name) => `${name}_${suffix}`);
  for (const role of roles) await database.run(`create role ${role} login`);
  return roles;
}

describe.each(servers)("the rights to poll on $name", ({ cluster }) => {
  it("are those of a watcher who may read the table whole, and of nobody else", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    const [reader = "", stranger = ""] = await withRoles(database, "reader", "stranger");
    await database.run(
      table,
      `select millrace.allow('${reader}', 'watcher'), millrace.allow('${stranger}', 'watcher')`,
    );
    const asReader = await database.session(reader);
    const asStranger = await database.session(stranger);
    const poll = "select millrace.poll('t', 'updated_at')";
    expect(await refusal(asReader.query(poll))).toMatchObject({ code: "42501" });
    await database.run(`grant select on t to ${reader}`);
    await asReader.query(poll);
    expect(await refusal(asStranger.query(poll))).toMatchObject({ code: "42501" });
    expect(await refusal(asStranger.query("select millrace.unpoll('t')"))).toMatchObject({ code: "42501" });
    await database.run(`grant select on t to ${stranger}`);
    expect(await refusal(asStranger.query(poll))).toMatchObject({ code: "42501" });
    expect(await refusal(asStranger.query("delete from millrace.poll"))).toMatchObject({ code: "42501" });
    expect(
      await refusal(
        asStranger.query(
          "select millrace.poll_write(1, '{t}', '{1}', '{null}', '{f}', '{5}', '{5}', null, null, false)",
        ),
      ),
    ).toMatchObject({ code: "42501" });
    await database.run("insert into t values (1)");
    expect(await look(database)).toEqual(["U t 1"]);
    expect((await asReader.query("select millrace.unpoll('t') as ended")).rows).toEqual([{ ended: true }]);
    expect((await asReader.query("select millrace.unpoll('t') as ended")).rows).toEqual([{ ended: false }]);
  });

  it("are not had by calling the parts, nor through another's session", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    const [thief = ""] = await withRoles(database, "thief");
    await database.run(table, "create table bait (id int)", `select millrace.allow('${thief}', 'watcher')`);
    await database.run(`grant create on schema public to ${thief}`);
    const asThief = await database.session(thief);
    const register = (proof: string) =>
      `select millrace.register_poll('t', 'updated_at', null, null, null, null, null, '1 s', '1 min', ${proof}, 3, null, null, null, null)`;
    for (const proof of ["0", "lo_create(0)"]) {
      expect(await refusal(asThief.query(register(proof))), proof).toMatchObject({ code: "42501" });
    }
    // A superuser's large object of another transaction proves nothing.
    const old = await database.value<number>("select lo_create(0)");
    expect(await refusal(asThief.query(register(String(old))))).toMatchObject({ code: "42501" });
    await asThief.query(`
      create function public.trap() returns trigger language plpgsql security definer as $$
      begin perform millrace.poll('t', 'updated_at'); return new; end $$`);
    await database.run("create trigger trap before insert on bait for each row execute function public.trap()");
    expect(await refusal(database.client.query("insert into bait values (1)"))).toMatchObject({ code: "42501" });
    expect(await database.value("select count(*)::int from millrace.source")).toBe(0);
  });

  it("of a server are to tell of polled tables, on their own topics: not of those that triggers watch", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    const [server = ""] = await withRoles(database, "server");
    await database.run(
      table,
      "create table orders (id int primary key)",
      "select millrace.watch('orders'), millrace.poll('t', 'updated_at', topic => 'polled.{id}')",
      `select millrace.allow('${server}', 'server')`,
    );
    const asServer = await database.session(server);
    const id = await database.value<number>("select source_id from millrace.poll");
    await asServer.query(`select millrace.poll_claim(${id}, millrace.assert_epoch())`);
    const write = (topic: string) =>
      asServer.query(
        "select millrace.poll_write($1, array[$2], '{1}', '{null}', '{f}', '{5}', '{5}', null, null, true)",
        [id, topic],
      );
    expect(await refusal(write("orders"))).toMatchObject({ code: "42501" });
    expect(await refusal(write("polled.1.x"))).toMatchObject({ code: "42501" });
    await write("polled.%long");
    expect((await database.written()).map(({ topic }) => topic)).toEqual(["polled.%long"]);
  });

  it("do not let row security be passed by: not by who asks, and not by the server", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    const [reader = "", server = ""] = await withRoles(database, "reader", "server");
    await database.run(
      table,
      "alter table t enable row level security",
      "create function leak() returns boolean language plpgsql as $$ begin raise exception 'a policy ran'; end $$",
      "create policy p on t using (leak())",
      `grant select on t to ${reader}, ${server}`,
      `select millrace.allow('${reader}', 'watcher'), millrace.allow('${server}', 'server')`,
    );
    const asReader = await database.session(reader);
    expect(await refusal(asReader.query("select millrace.poll('t', 'updated_at')"))).toMatchObject({ code: "42501" });
    await database.run("select millrace.poll('t', 'updated_at')", "insert into t values (1)");
    const asServer = await database.session(server);
    expect((await refusal(pollBatch(database, asServer))).message).toContain("row-level security");
    await database.run(`alter role ${server} bypassrls`);
    const again = await database.session(server);
    expect(await pollBatch(database, again)).toMatchObject({ told: 1 });
  });

  it("need SELECT for the server's role, which polls with its own rights and none of Millrace's", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    const [server = ""] = await withRoles(database, "server");
    await database.run(table, "select millrace.poll('t', 'updated_at')", "insert into t values (1)");
    await database.run(`select millrace.allow('${server}', 'server')`);
    const asServer = await database.session(server);
    expect(await refusal(pollBatch(database, asServer))).toMatchObject({ code: "42501" });
    await database.run(`grant select on t to ${server}`);
    expect(await pollBatch(database, asServer)).toMatchObject({ told: 1 });
  });

  it("run no cast, domain, operator or view of a table's owner", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    const boom = "language plpgsql as $$ begin raise exception 'somebody''s code ran as %', current_user; end $$";
    await database.run(
      "create type mood as enum ('sad', 'glad')",
      `create function to_text(mood) returns text ${boom}`,
      "create cast (mood as text) with function to_text(mood) as implicit",
      `create function less(mood, mood) returns boolean ${boom}`,
      "create operator public.< (leftarg = mood, rightarg = mood, function = less)",
      "create domain named as text",
      "create table t (id mood, name named, updated_at timestamptz not null default now(), primary key (id, name))",
      "insert into t values ('sad', 'a')",
      "select millrace.poll('t', 'updated_at')",
      "insert into t values ('glad', 'b')",
      `create function checked(text) returns boolean ${boom}`,
      "alter domain named add check (public.checked(value)) not valid",
    );
    expect(await look(database, { maxRows: 1 })).toEqual(['U t ["glad","b"]']);
    await database.run("create view v as select 1 as id, now() as updated_at");
    expect(await refusal(database.client.query("select millrace.poll('v', 'updated_at')"))).toMatchObject({
      code: "42809",
    });
    // The table is replaced by a view behind the source's back.
    await database.run("alter table t rename to old", "create view t as select * from old where to_text(id) = ''");
    await database.run("update old set updated_at = now() where name = 'a'");
    expect(await look(database)).toEqual(['U t ["sad","a"]']);
  });

  it.each(kinds)("are refused for %s", async (_, statement) => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(statement);
    expect(
      await refusal(database.client.query("select millrace.poll('x', 'updated_at', key_columns => '{id}')")),
    ).toMatchObject({ code: "42809" });
  });

  it.each(mistakes)("are refused, with what to do, for %s", async (_, statement, code) => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (id int primary key, v text, updated_at timestamptz)",
      "create table other (id int primary key, updated_at timestamptz)",
      "select millrace.watch('other')",
    );
    expect((await refusal(database.client.query(statement))).code).toBe(code);
  });
});
