import { execFile } from "node:child_process";
import { promisify } from "node:util";
import pg from "pg";
import { describe, expect, it } from "vitest";
import { listSources } from "../../../src/postgres/sources.ts";
import { createPostgresStore } from "../../../src/postgres/store.ts";
import { createCluster, debian15Available, type TestCluster } from "../../support/cluster.ts";
import { refusal, servers, WatchedDatabase } from "../capture/watched-database.ts";

const never = new AbortController().signal;

describe.each(servers)("the schema on $name", ({ cluster }) => {
  it("is open to nobody who was not allowed", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run("create table t (id int primary key)", "select millrace.watch('t')");
    expect(
      await database.value(`
        select coalesce(json_agg(name), '[]') from (
          select p.oid::regprocedure::text as name, coalesce(p.proacl, acldefault('f', p.proowner)) as acl
          from pg_proc p where p.pronamespace = 'millrace'::regnamespace
          union all select c.relname, c.relacl from pg_class c where c.relnamespace = 'millrace'::regnamespace
          union all select n.nspname, n.nspacl from pg_namespace n where n.nspname = 'millrace') x
        where exists (select from aclexplode(x.acl) a where a.grantee = 0)`),
    ).toEqual([]);
    expect(
      await database.value(`
        select coalesce(json_agg(p.oid::regprocedure::text), '[]') from pg_proc p
        where p.pronamespace = 'millrace'::regnamespace and p.prosecdef
          and not 'search_path=pg_catalog, pg_temp' = any (p.proconfig)`),
    ).toEqual([]);
  });

  it("says of each of its tables, columns and functions what it is", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    expect(
      await database.value(`
        select coalesce(json_agg(name), '[]') from (
          select p.oid::regprocedure::text as name, obj_description(p.oid, 'pg_proc') as said
          from pg_proc p where p.pronamespace = 'millrace'::regnamespace
          union all select c.relname, obj_description(c.oid, 'pg_class') from pg_class c
          where c.relnamespace = 'millrace'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
          union all select concat(c.relname, '.', a.attname), col_description(c.oid, a.attnum)
          from pg_class c join pg_attribute a on a.attrelid = c.oid
          where c.relnamespace = 'millrace'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
            and a.attnum > 0 and not a.attisdropped) x
        where said is null`),
    ).toEqual([]);
  });

  it("lets a server read, tick and publish, and write nothing else", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    const role = `limited_${process.pid}`;
    await database.run(`create role ${role} login`, `select millrace.allow('${role}', 'server')`);
    const server = await database.session(role);
    for (const statement of [
      "insert into millrace.outbox (topic, operation) values ('forged', 'M')",
      "delete from millrace.outbox",
      "update millrace.tick set count = 0",
      "delete from millrace.tick",
      "insert into millrace.epoch select * from millrace.epoch",
      "update millrace.source set topic = 'mine'",
      "select nextval('millrace.outbox_seq')",
      "select millrace.settle(true)",
      "select millrace.allow('postgres', 'writer')",
    ]) {
      expect(await refusal(server.query(statement)), statement).toMatchObject({ code: "42501" });
    }
    await server.query("select millrace.emit('notes')");
    await server.query("begin isolation level read committed; set local synchronous_commit = on");
    expect((await server.query<{ head: string }>("select head from millrace.tick()")).rows).toEqual([{ head: "1" }]);
    await server.query("commit");
  });

  it.each([
    ["SQL_ASCII", "refused"],
    ["EUC_JP", "refused"],
    ["LATIN1", "captured"],
  ])("in a database in %s is %s", async (encoding, outcome) => {
    const server = await cluster();
    const name = `in_${encoding.toLowerCase()}_${process.pid}`;
    const admin = new pg.Client({ connectionString: server.url() });
    await admin.connect();
    const { rows } = await admin.query<{ provider: string }>(
      "select case when current_setting('server_version_num')::int >= 150000 then 'locale_provider libc' else '' end as provider",
    );
    await admin.query(
      `create database ${name} template template0 encoding '${encoding}' locale 'C' ${rows[0]?.provider ?? ""}`,
    );
    await admin.end();
    if (outcome === "refused") {
      await expect(WatchedDatabase.open(server, server.url(name))).rejects.toMatchObject({
        code: "INVALID_REQUEST",
        message: expect.stringContaining(encoding) as string,
        action: expect.stringContaining("UTF8") as string,
      });
      return;
    }
    await using database = await WatchedDatabase.open(server, server.url(name));
    await database.run(
      "create table t (id int primary key, region text)",
      "select millrace.watch('t', 't.{region}')",
      "insert into t values (1, 'Zürich')",
    );
    expect(await database.written()).toMatchObject([{ topic: "t.Z%C3%BCrich", after: '{"id":1,"region":"Zürich"}' }]);
  });
});

const dumpers: readonly { readonly name: string; readonly folder: string }[] = debian15Available()
  ? [{ name: "debian-15", folder: "/usr/lib/postgresql/15/bin" }]
  : [];

describe.each(dumpers)("a dump made by $name", ({ folder }) => {
  it("that is restored is refused by who must not begin an epoch, in another database and in its own, and its tables are not known yet", async () => {
    await using cluster = await createCluster({ binaries: "debian-15" });
    const own = await dumped(cluster);
    const dump = await promisify(execFile)(`${folder}/pg_dump`, ["--format=plain", own], { maxBuffer: 2 ** 26 });
    const other = await cluster.createDatabase();
    const admin = new pg.Client({ connectionString: own });
    await admin.connect();
    await admin.query("drop schema millrace cascade; drop table public.t");
    await admin.end();
    for (const url of [own, other]) {
      await restore(`${folder}/psql`, url, dump.stdout);
      const store = createPostgresStore({ url, directUrl: false, newEpoch: "refuse" });
      await expect(store.start(never)).rejects.toMatchObject({
        code: "INVALID_REQUEST",
        message: expect.stringContaining("is a copy") as string,
      });
      const client = new pg.Client({ connectionString: url });
      await client.connect();
      expect((await listSources(client)).flatMap(({ problems }) => problems.map(({ kind }) => kind))).toEqual([
        "TABLE_REPLACED",
      ]);
      await client.end();
    }
  });
});

async function dumped(cluster: TestCluster): Promise<string> {
  await using database = await WatchedDatabase.create(cluster);
  await database.run(
    "create table public.t (id int primary key)",
    "select millrace.watch('public.t')",
    "insert into public.t values (1)",
  );
  return database.url;
}

async function restore(psql: string, url: string, script: string): Promise<void> {
  const restoring = promisify(execFile)(psql, ["--quiet", "--no-psqlrc", "--set=ON_ERROR_STOP=1", url]);
  restoring.child.stdin?.end(script);
  await restoring;
}
