import { describe, expect, it } from "vitest";
import { createFeed } from "../../../src/core/feed/feed-service.ts";
import { createPool } from "../../../src/postgres/database.ts";
import { announceSchemaChanges, createSchemaWatch } from "../../../src/postgres/schema-change/schema-watch.ts";
import { createPostgresStore } from "../../../src/postgres/store.ts";
import { Reader, select } from "../../contract/reader.ts";
import { refusal, servers, WatchedDatabase } from "../capture/watched-database.ts";
import { type Told, toldBy } from "./mirror.ts";

const signal = new AbortController().signal;

/** One look of a server's; what it announced. */
async function look(database: WatchedDatabase): Promise<readonly unknown[]> {
  const pool = createPool({ url: database.url, max: 1, idleMs: 1000 });
  try {
    return (await announceSchemaChanges(pool, signal)).map(({ change }) => change);
  } finally {
    await pool.end();
  }
}

async function messages(database: WatchedDatabase): Promise<readonly Told[]> {
  return (await toldBy(database)).filter(({ operation }) => operation === "MESSAGE");
}

/** DDL on a watched table `t (id, v, mood, region)`, and what is told of it. */
const announced: readonly (readonly [ddl: string, change: object])[] = [
  [
    "alter table t add column n int not null default 5",
    { columns: { added: [{ column: "n", type: "integer", notNull: true }] }, rowsChanged: true },
  ],
  ["alter table t drop column v", { columns: { dropped: ["v"] }, rowsChanged: true }],
  ["alter table t rename v to w", { columns: { renamed: [{ from: "v", to: "w" }] }, rowsChanged: true }],
  [
    "alter table t alter v type varchar(9)",
    {
      columns: {
        changed: [
          {
            column: "v",
            from: { type: "text", notNull: false },
            to: { type: "character varying(9)", notNull: false },
            computed: false,
          },
        ],
      },
      rowsChanged: true,
    },
  ],
  [
    'alter table t alter v type text collate "C"',
    {
      columns: {
        changed: [
          {
            column: "v",
            from: { type: "text", notNull: false },
            to: { type: "text", notNull: false, collation: '"C"' },
            computed: false,
          },
        ],
      },
      rowsChanged: false,
    },
  ],
  [
    "alter table t alter v set not null",
    {
      columns: {
        changed: [
          { column: "v", from: { type: "text", notNull: false }, to: { type: "text", notNull: true }, computed: false },
        ],
      },
      rowsChanged: false,
    },
  ],
  [
    "alter table t alter twice drop expression",
    { columns: { changed: [expect.objectContaining({ column: "twice", computed: true })] }, rowsChanged: true },
  ],
  ["alter type mood rename value 'ok' to 'fine'", { types: ["public.mood"], rowsChanged: true }],
  ["alter type mood add value 'glad' before 'ok'", { types: ["public.mood"], rowsChanged: false }],
  ["alter type place add attribute zip text cascade", { types: ["public.place"], rowsChanged: true }],
  ["alter table t drop constraint t_pkey", { primaryKey: [], rowsChanged: false }],
  [
    "alter table t rename to u",
    { table: "public.u", renamed: { from: "public.t", to: "public.u" }, rowsChanged: false },
  ],
  ["alter table t set unlogged", { unlogged: true, rowsChanged: false }],
  [
    "alter table t rename region to area",
    {
      columns: { renamed: [{ from: "region", to: "area" }] },
      degraded: ["a column of the topic is gone"],
      rowsChanged: true,
    },
  ],
  [
    "alter table t rename id to number",
    {
      columns: { renamed: [{ from: "id", to: "number" }] },
      degraded: ["a key column is gone"],
      rowsChanged: true,
    },
  ],
  [
    "alter table t rename secret to open",
    {
      columns: { dropped: ["mood", "place", "twice", "v"] },
      degraded: ["an excluded column is gone: only key and topic columns are shown"],
      rowsChanged: true,
    },
  ],
  ["drop table t", { gone: true, rowsChanged: true }],
];

const unsaid = [
  "vacuum full t",
  "cluster t using t_pkey",
  "analyze t",
  "create index on t (v)",
  "alter table t alter v set default 'x'",
  "alter table t alter secret type varchar(7)",
  "alter table t replica identity full",
  "alter table t add check (length(v) < 100)",
  "grant select on t to public",
  "comment on column t.v is 'x'",
];

async function watched(database: WatchedDatabase): Promise<void> {
  await database.run(
    "create type mood as enum ('ok', 'sad')",
    "create type place as (city text)",
    `create table t (id int primary key, v text, mood mood, place place, region text, secret text,
       twice int generated always as (length(region) * 2) stored)`,
    "select millrace.watch('t', topic => 't.{region}', exclude => '{secret}')",
    "insert into t values (1, 'v', 'ok', row('Bern'), 'eu', 's')",
  );
}

describe.each(servers)("G10 changes of schema on $name", ({ cluster }) => {
  it.each(announced)("a change without events is announced on the source's topic: %s", async (ddl, change) => {
    await using database = await WatchedDatabase.create(await cluster());
    await watched(database);
    expect(await look(database)).toEqual([]);
    await database.run(ddl);
    const told = { table: "public.t", ...change };
    expect(await look(database)).toEqual([told]);
    expect(await look(database)).toEqual([]);
    const [message, ...more] = await messages(database);
    expect(more).toEqual([]);
    expect(message).toMatchObject({
      topic: "t.{region}",
      key: undefined,
      headers: '{"millrace-schema": "changed"}',
    });
    expect(JSON.parse(message?.after ?? "")).toEqual(told);
  });

  it("what changes no image is not announced: rewrites, indexes, defaults, excluded columns", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await watched(database);
    for (const ddl of unsaid) {
      await database.run(ddl);
      expect(await look(database), ddl).toEqual([]);
    }
  });

  it("partitions that come and go are announced, with whether rows came, also when they are back before anybody looks", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (id int primary key) partition by range (id)",
      "create table t_1 partition of t for values from (0) to (10)",
      "select millrace.watch('t')",
      "insert into t values (1)",
    );
    const one = { table: "public.t_1", bound: "FOR VALUES FROM (0) TO (10)" };
    const two = { table: "public.t_2", bound: "FOR VALUES FROM (10) TO (20)" };
    await database.run("create table t_2 partition of t for values from (10) to (20)");
    const seen = [...(await look(database))];
    await database.run("alter table t detach partition t_1");
    seen.push(...(await look(database)));
    await database.run("alter table t attach partition t_1 for values from (0) to (10)");
    seen.push(...(await look(database)));
    await database.run("alter table t detach partition t_1", "delete from t_1", "insert into t_1 values (2)");
    await database.run("alter table t attach partition t_1 for values from (0) to (10)", "drop table t_2");
    seen.push(...(await look(database)));
    const table = "public.t";
    expect(seen).toEqual([
      { table, partitions: { attached: [{ ...two, empty: true }] }, rowsChanged: false },
      { table, partitions: { detached: [{ ...one, dropped: false }] }, rowsChanged: true },
      { table, partitions: { attached: [{ ...one, empty: false }] }, rowsChanged: true },
      {
        table,
        partitions: { attached: [{ ...one, empty: false }], detached: [{ ...two, dropped: true }] },
        rowsChanged: true,
      },
    ]);
  });

  it("what changed since the last look is announced when the table is watched again, and nothing for unwatched ones", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await watched(database);
    await database.run(
      "alter table t rename id to number",
      "select millrace.watch('t', topic => 't.{region}', exclude => '{secret}', key_columns => '{number}')",
    );
    expect((await messages(database)).map(({ after }) => JSON.parse(after ?? ""))).toEqual([
      { table: "public.t", columns: { renamed: [{ from: "id", to: "number" }] }, rowsChanged: true },
    ]);
    await database.run("select millrace.unwatch('t')", "alter table t drop column v");
    expect(await look(database)).toEqual([]);
    expect(await database.value<string>("select count(*) from millrace.source_shape")).toBe("0");
    await database.run("select millrace.watch('t', topic => 't', key_columns => '{number}')");
    expect(await messages(database)).toHaveLength(1);
  });

  it("a table that a restore made anew is compared by its names, and only what differs is announced", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (gone int, id int not null, v text, twice int generated always as (id * 2) stored) partition by range (id)",
      "create table t_1 partition of t for values from (0) to (10)",
      "alter table t drop column gone",
      "select millrace.watch('t', key_columns => '{id}')",
      "alter schema public rename to before",
      "create schema public",
      "create table t (id int not null, v text, twice int generated always as (id * 2) stored) partition by range (id)",
      "create table t_1 partition of t for values from (0) to (10)",
      "update millrace.source set relid = 'public.t'::regclass",
    );
    expect(await messages(database)).toEqual([]);
    await database.run(
      "alter table before.t add column w int",
      "update millrace.source set relid = 'before.t'::regclass",
    );
    expect((await messages(database)).map(({ after }) => JSON.parse(after ?? ""))).toEqual([
      {
        table: "before.t",
        columns: { added: [{ column: "w", type: "integer", notNull: false }] },
        partitions: {
          attached: [{ table: "before.t_1", bound: "FOR VALUES FROM (0) TO (10)", empty: true }],
          detached: [{ table: "public.t_1", bound: "FOR VALUES FROM (0) TO (10)", dropped: false }],
        },
        renamed: { from: "public.t", to: "before.t" },
        rowsChanged: true,
      },
    ]);
  });

  it("the trigger function is written anew after a change, so that images are built the quick way again", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await watched(database);
    const knows = () =>
      database.value<boolean>(
        "select bool_and(prosrc like '%new.later%') from pg_proc where proname ~ '^capture_[0-9]+$'",
      );
    await database.run("alter table t add column later int");
    expect(await knows()).toBe(false);
    await look(database);
    expect(await knows()).toBe(true);
    await database.run("update t set later = 5");
    expect((await toldBy(database)).at(-1)?.after).toContain('"later":5');
  });

  it("a change is announced once, however many servers look, and in the order of the changes", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await watched(database);
    for (let n = 0; n < 5; n += 1) {
      await database.run(`alter table t add column c${n} int`);
      await Promise.all(Array.from({ length: 6 }, () => look(database)));
    }
    expect((await messages(database)).map(({ after }) => JSON.parse(after ?? "").columns.added[0].column)).toEqual(
      "c0,c1,c2,c3,c4".split(","),
    );
  });

  it("DDL that is not committed is not announced, and who looks does not wait for it for longer than a second", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await watched(database);
    const other = await database.session();
    await other.query("begin; alter table t add column c int");
    expect(await look(database)).toEqual([]);
    await other.query("rollback");
    expect(await look(database)).toEqual([]);
    expect(await messages(database)).toEqual([]);
  });

  it("the service announces by itself what changes while it runs, and ends when it is stopped", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await watched(database);
    const pool = createPool({ url: database.url, max: 1, idleMs: 1000 });
    let tell = (_: string) => {};
    const told = new Promise<string>((resolve) => {
      tell = resolve;
    });
    const service = createSchemaWatch({ pool, intervalMs: 20, report: (message) => tell(message) });
    await service.stop();
    const running = createSchemaWatch({ pool, intervalMs: 20, report: (message) => tell(message) });
    await running.start(signal);
    await database.run("alter table t drop column v");
    expect(await told).toBe(
      'The schema of public.t has changed; told on topic "t.{region}". Rows may have changed without events: a new snapshot shows them.',
    );
    await running.stop();
    await running.stop();
    await pool.end();
    expect(await messages(database)).toHaveLength(1);
  });

  it("an announcement reaches streams of some keys and of one topic of a template, and no others", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await watched(database);
    const store = createPostgresStore({ url: database.url, directUrl: false });
    await store.start(signal);
    const feed = createFeed({ store, wakeUp: store.wakeUp });
    await feed.start(signal);
    try {
      await using wanted = new Reader(feed, { selectors: [select(["t.us"], ["7"])] });
      await using other = new Reader(feed, { selectors: [select(["u.*"]), select([], [], ["INSERT"])] });
      await database.run("alter table t drop column v");
      await look(database);
      await database.run("insert into t (id, region) values (8, 'eu'), (7, 'us')");
      await wanted.gets(2);
      await other.gets(3);
      const told = (reader: Reader) => reader.events.map(({ operation, topic }) => `${operation} ${topic}`);
      expect(told(wanted)).toEqual(["MESSAGE t.{region}", "INSERT t.us"]);
      expect(told(other)).toEqual(["INSERT t.eu", "INSERT t.eu", "INSERT t.us"]);
    } finally {
      await feed.stop();
      await store.stop();
    }
  });

  it("nobody but a server can have anything announced, and it only ever says what the catalog says", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await watched(database);
    const suffix = await database.value<number>("select pg_backend_pid()");
    const [stranger, watcher, server] = ["stranger", "watcher", "server"].map((name) => `${name}_${suffix}`);
    await database.run(
      `create role ${stranger} login`,
      `create role ${watcher} login`,
      `create role ${server} login`,
      `select millrace.allow('${watcher}', 'watcher'), millrace.allow('${server}', 'server')`,
      `grant create on schema public to ${watcher}`,
    );
    const calls = [
      "select millrace.announce_schema_change(1)",
      "select millrace.changed_sources()",
      "select millrace.note_shape(s) from millrace.source s",
      "update millrace.source_shape set shape = '{}'",
      "insert into millrace.source_shape values (1, '{}')",
    ];
    for (const role of [stranger, watcher]) {
      const session = await database.session(role);
      for (const call of calls) expect(await refusal(session.query(call)), call).toMatchObject({ code: "42501" });
    }
    const session = await database.session(server);
    for (const call of calls.slice(2))
      expect(await refusal(session.query(call)), call).toMatchObject({ code: "42501" });
    await session.query("select millrace.announce_schema_change(1), millrace.announce_schema_change(99)");
    expect(await messages(database)).toEqual([]);
    const thief = await database.session(watcher);
    await thief.query("create table bait (id int, relid oid)");
    await thief.query("create trigger bait after insert on bait for each row execute function millrace.note_source()");
    await expect(thief.query("insert into bait values (1, 1)")).rejects.toThrow();
    expect(await messages(database)).toEqual([]);
  });
});
