import { describe, expect, it } from "vitest";
import { servers, WatchedDatabase } from "../capture/watched-database.ts";
import { look, pollBatch } from "./polled-database.ts";

const orders = [
  `create table orders (id int primary key, region text, state text, secret text,
    updated_at timestamptz not null default now(), deleted_at timestamptz)`,
  "create index on orders (updated_at)",
];
/** What an application does. */
const change = (id: number, state: string) =>
  `update orders set state = '${state}', updated_at = now() where id = ${id}`;

describe.each(servers)("polling on $name", ({ cluster }) => {
  it("tells what was inserted, updated and softly deleted since it was asked for, each once, with the row as it is", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      ...orders,
      "insert into orders values (1, 'eu', 'new'), (2, 'us', 'new')",
      "select millrace.poll('orders', 'updated_at', deleted => 'deleted_at')",
      // A time of change that does not rise shows nothing.
      "insert into orders values (3, 'eu', 'new', null, '2024-01-01 00:00:00+00')",
      "insert into orders values (4, 'eu', 'new')",
      change(1, "paid"),
      change(1, "sent"),
      "update orders set deleted_at = now(), updated_at = now() where id = 2",
    );
    expect(await look(database)).toEqual(["U orders 4", "U orders 1", "D orders 2"]);
    expect(await look(database)).toEqual([]);
    const [inserted, updated, deleted] = await database.written();
    expect(JSON.parse(inserted?.after ?? "")).toMatchObject({ id: 4, state: "new" });
    expect(JSON.parse(updated?.after ?? "")).toMatchObject({ id: 1, state: "sent" });
    expect(updated).toMatchObject({ before: null, headers: null });
    expect(deleted).toMatchObject({ before: null, after: null });
    await database.run("update orders set deleted_at = null, updated_at = now() where id = 2");
    expect(await look(database)).toEqual(["U orders 2"]);
  });

  it("tells a transaction that committed after later ones were told, also what it wrote within savepoints", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(...orders, "select millrace.poll('orders', 'updated_at', overlap => '0')");
    const late = await database.session();
    await late.query("begin; insert into orders values (1)");
    await late.query("savepoint a; insert into orders values (2); release a");
    await late.query("savepoint b; insert into orders values (3)");
    await database.run("insert into orders values (10)");
    expect(await look(database)).toEqual(["U orders 10"]);
    await database.run("insert into orders values (11)");
    expect(await look(database)).toEqual(["U orders 11"]);
    await late.query("savepoint c; insert into orders values (4); rollback to c; commit");
    expect(await look(database)).toEqual(["U orders 1", "U orders 2", "U orders 3"]);
    expect(await look(database)).toEqual([]);
    expect(await database.value("select count(*)::int from millrace.poll_told")).toBe(0);
  });

  it("tells prepared transactions when they commit", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(...orders, "select millrace.poll('orders', 'updated_at', overlap => '0')");
    const other = await database.session();
    await other.query("begin; insert into orders values (1); prepare transaction 'late'");
    await database.run("insert into orders values (2)");
    expect(await look(database)).toEqual(["U orders 2"]);
    expect(await look(database)).toEqual([]);
    await other.query("commit prepared 'late'");
    expect(await look(database)).toEqual(["U orders 1"]);
  });

  it("tells a transaction that drew its time long before it wrote, within the overlap", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(...orders, "select millrace.poll('orders', 'updated_at', overlap => '1 minute')");
    const late = await database.session();
    await late.query("begin; select now()");
    await database.run("insert into orders values (10)");
    expect(await look(database)).toEqual(["U orders 10"]);
    await late.query("insert into orders values (1); commit");
    expect(await look(database)).toEqual(["U orders 1"]);
  });

  it("cuts a look anywhere, also among rows of one moment, and tells each row once", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      ...orders,
      "select millrace.poll('orders', 'updated_at')",
      "insert into orders select g, 'eu', 'new' from generate_series(1, 250) g",
    );
    expect(await pollBatch(database, database.client, { maxRows: 100 })).toEqual({ told: 100, more: true });
    await database.run(change(10, "changed meanwhile"), "insert into orders values (900)");
    const told = await look(database, { maxRows: 100 });
    expect(told.length).toBe(150 + 2);
    const keys = (await database.written()).map(({ key }) => Number(key));
    expect(new Set(keys)).toEqual(new Set([...Array.from({ length: 250 }, (_, i) => i + 1), 900]));
    expect(await look(database)).toEqual([]);
    await database.run("update orders set state = 'again', updated_at = now()");
    expect(new Set(await look(database, { maxBytes: 1 })).size).toBe(251);
    expect(await look(database)).toEqual([]);
  });

  it("follows a number, and finds lower ones that commit later", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create sequence revision",
      `create table notes ("Key" text not null, part int not null, v text, rev int not null default nextval('revision'),
        gone boolean, primary key ("Key", part))`,
      "create index on notes (rev)",
      "insert into notes values ('a', 1), ('b', 1)",
      `select millrace.poll('notes', 'rev', topic => 'notes.{Key}', deleted => 'gone')`,
    );
    const late = await database.session();
    await late.query("begin; update notes set v = 'late', rev = nextval('revision') where part = 1 and \"Key\" = 'a'");
    await database.run("update notes set gone = true, rev = nextval('revision') where \"Key\" = 'b'");
    expect(await look(database)).toEqual(['D notes.b ["b",1]']);
    await late.query("commit");
    expect(await look(database)).toEqual(['U notes.a ["a",1]']);
  });

  it("leaves out and includes columns, and shows none of them", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      ...orders,
      "select millrace.poll('orders', 'updated_at', exclude => '{secret,updated_at,deleted_at}')",
      "insert into orders values (1, 'eu', 'new', 'hidden')",
    );
    await look(database);
    await database.run(
      "select millrace.poll('orders', 'updated_at', include => '{state}', topic => 'orders.{region}')",
      change(1, "paid"),
    );
    await look(database);
    expect((await database.written()).map(({ topic, after }) => `${topic} ${after}`)).toEqual([
      'orders {"id":1,"region":"eu","state":"new"}',
      'orders.eu {"id":1,"region":"eu","state":"paid"}',
    ]);
  });

  it("goes on where it was when it is asked for again, and tells nothing twice", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      ...orders,
      "select millrace.poll('orders', 'updated_at')",
      "insert into orders values (1)",
      "select millrace.poll('orders', 'updated_at', topic => 'shop')",
    );
    expect(await look(database)).toEqual(["U shop 1"]);
    await database.run("insert into orders values (2)", "select millrace.poll('orders', 'updated_at')");
    expect(await look(database)).toEqual(["U orders 2"]);
    await database.run("alter table orders add column rev bigserial", "insert into orders values (3)");
    await database.run("select millrace.poll('orders', 'rev')");
    expect(await look(database)).toContain("U orders 3");
    expect(await look(database)).toEqual([]);
  });

  it("is not blinded by a row of the far future", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      ...orders,
      "select millrace.poll('orders', 'updated_at', overlap => '0')",
      "insert into orders values (1, 'eu', 'new', null, '2999-01-01')",
    );
    expect(await look(database)).toEqual(["U orders 1"]);
    await database.run("insert into orders values (2)");
    expect(await look(database)).toEqual(["U orders 2"]);
    expect(await look(database)).toEqual([]);
  });

  it("sees partitioned tables whole, rows that moved among them, and what VACUUM FULL and FREEZE left", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table parts (id int, region text, updated_at timestamptz not null default now(), primary key (id, region)) partition by list (region)",
      "create table parts_eu partition of parts for values in ('eu')",
      "create table parts_us partition of parts for values in ('us')",
      "create index on parts (updated_at)",
      "select millrace.poll('parts', 'updated_at', key_columns => '{id}')",
      "insert into parts values (1, 'eu'), (2, 'us')",
    );
    expect(new Set(await look(database))).toEqual(new Set(["U parts 1", "U parts 2"]));
    await database.run("update parts set region = 'us', updated_at = now() where id = 1", "vacuum full parts_us");
    expect(await look(database)).toEqual(["U parts 1"]);
    await database.run("vacuum (freeze) parts_us");
    expect(await look(database)).toEqual([]);
  });
});
