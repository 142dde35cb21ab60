import pg from "pg";
import { describe, expect, test } from "vitest";
import { migrate } from "../../../src/postgres/migrate.ts";
import { listSources } from "../../../src/postgres/sources.ts";
import { createPostgresStore } from "../../../src/postgres/store.ts";
import { createCluster, debian15Available, type TestCluster } from "../../support/cluster.ts";
import { query } from "../../support/restores.ts";
import { refusal } from "../capture/watched-database.ts";
import { never } from "../ordering/stage.ts";
import { dumpOf, restoreInto } from "./dumps.ts";
import { judge, readFeed } from "./history.ts";

/** A shop's database, dumped; and an empty one in a cluster where the same oids are others'. */
async function dumpedShop(...options: readonly string[]): Promise<{
  readonly source: TestCluster;
  readonly target: TestCluster;
  readonly url: string;
  readonly script: string;
}> {
  const source = await createCluster({ binaries: "debian-15" });
  const origin = await source.createDatabase();
  await query(origin, "create role shop login; create role stranger login");
  await migrate(origin);
  await query(origin, "grant create on schema public to shop, stranger");
  await query(origin, "select millrace.allow('shop', 'watcher'), millrace.allow('stranger', 'watcher')");
  const shop = source.url(new URL(origin).pathname.slice(1), "shop");
  for (const table of ["orders", '"Order Items"', "renamed", "third"]) {
    await query(shop, `create table ${table} (id int primary key, n int)`);
    await query(shop, `select millrace.watch('${table}')`);
  }
  await query(shop, "create table parts (id int primary key, n int) partition by range (id)");
  await query(shop, "create table parts_1 partition of parts for values from (1) to (9)");
  await query(shop, "select millrace.watch('parts')");
  await query(shop, "alter table renamed rename to other");
  await query(shop, "insert into orders values (1, 1)");
  await readFeed(origin);
  const script = await dumpOf(origin, ...options);
  const target = await createCluster({ binaries: "debian-15" });
  await query(target.url(), "create role millrace_owner; create role shop login; create role stranger login");
  return { source, target, url: await target.createDatabase(), script };
}

/** Names of tables by the sources that they are, and what is wrong with them. */
async function sourcesOf(url: string): Promise<readonly string[]> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return (await listSources(client)).map(({ watchedAs, table, problems }) =>
      [watchedAs, table ?? "nothing", ...problems.map(({ kind }) => kind)].join(" "),
    );
  } finally {
    await client.end();
  }
}

const all = [
  'public."Order Items" public."Order Items"',
  "public.orders public.orders",
  "public.parts public.parts",
  "public.renamed public.other",
  "public.third public.third",
];

describe.runIf(debian15Available())("watched tables of a restored dump", () => {
  test.each([[[]], [["--no-owner"]]])(
    "are found by their triggers, with other oids, restored with %j",
    async (options) => {
      const { source, target, url, script } = await dumpedShop(...options);
      await using _ = source;
      await using __ = target;
      await restoreInto(url, script);
      await query(url, "insert into orders values (2, 1)");
      await query(url, 'insert into "Order Items" values (1, 1)');
      await query(url, "insert into parts values (1, 1)");
      await query(url, "insert into other values (1, 1)");
      const now = await readFeed(url);
      await judge(url, now, undefined, 0);
      const told = now.events
        .filter(({ operation }) => operation === "INSERT")
        .map(({ topic, key }) => `${topic} ${key}`);
      expect(told).toEqual(["orders 1", "orders 2", "Order%20Items 1", "parts 1", "renamed 1"]);
      expect(await sourcesOf(url)).toEqual(all);
      const kept =
        "select count(*)::int from pg_proc where proname like 'capture\\_%' and prorettype = 'trigger'::regtype";
      expect(await query(url, kept)).toEqual([[5]]);
      await query(url, "update other set n = 2; truncate parts; delete from third");
      expect((await readFeed(url)).events.slice(now.head).map(({ topic }) => topic)).toEqual(["renamed", "parts"]);
      await query(url, "select millrace.unwatch('third'), millrace.watch('orders', topic => 'anew')");
      expect(await sourcesOf(url)).toEqual(all.slice(0, 4));
    },
  );

  test("that took each other's oids are told apart", async () => {
    const { source, target, url, script } = await dumpedShop();
    await using _ = source;
    await using __ = target;
    await restoreInto(url, script);
    // As if the other cluster had given two tables the oids that the two others have here.
    await query(
      url,
      `do $$ declare a oid := 'public.orders'::regclass; b oid := 'public.third'::regclass; old_a oid; old_b oid;
       begin
         select relid into old_a from millrace.source where name = 'public.orders';
         select relid into old_b from millrace.source where name = 'public.third';
         execute format('alter function millrace.capture_%s() rename to capture_%s', old_a, b);
         execute format('alter function millrace.capture_%s() rename to capture_%s', old_b, a);
         update millrace.source set relid = b where name = 'public.orders';
         update millrace.source set relid = a where name = 'public.third';
       end $$`,
    );
    await readFeed(url);
    expect(await sourcesOf(url)).toEqual(all);
    const before = await readFeed(url);
    await query(url, "insert into orders values (7, 1)");
    await query(url, "insert into third values (8, 1)");
    const { events } = await readFeed(url);
    expect(events.slice(before.head).map(({ topic, key }) => `${topic} ${key}`)).toEqual(["orders 7", "third 8"]);
  });

  test("are nobody else's: a stranger's table with the name and the trigger is not taken for one", async () => {
    const { source, target, url, script } = await dumpedShop();
    await using _ = source;
    await using __ = target;
    await restoreInto(url, script);
    await query(url, "drop table orders");
    const stranger = target.url(new URL(url).pathname.slice(1), "stranger");
    await query(stranger, "create table orders (id int primary key, n int)");
    const [row] = await query(url, "select relid from millrace.source where name = 'public.orders'");
    const trigger = `create trigger "!millrace_row" after insert on orders for each row execute function millrace.capture_${row?.[0]}()`;
    await query(stranger, trigger);
    await query(stranger, "insert into orders values (666, 1)");
    const now = await readFeed(url);
    await query(stranger, "insert into orders values (667, 1)");
    const after = await readFeed(url);
    expect(
      after.events.filter(({ topic, operation }) => topic === "orders" && operation === "INSERT").map(({ key }) => key),
    ).toEqual(["1"]);
    expect(after.head).toBe(now.head);
    expect(await sourcesOf(url)).toContain("public.orders nothing TABLE_REPLACED");
  });

  test("cannot be watched or unwatched before the epoch has begun, and it is said why", async () => {
    const { source, target, url, script } = await dumpedShop();
    await using _ = source;
    await using __ = target;
    await restoreInto(url, script);
    await query(url, "create table fresh (id int primary key)");
    for (const statement of ["watch('fresh')", "watch('orders')"]) {
      expect(await refusal(query(url, `select millrace.${statement}`)), statement).toMatchObject({
        code: "MR003",
        hint: expect.stringContaining("begin_epoch") as string,
      });
    }
    expect(await query(url, "select count(*)::int from millrace.source")).toEqual([[5]]);
    await query(url, "select from millrace.begin_epoch()");
    await query(url, "select millrace.watch('fresh')");
    expect(await sourcesOf(url)).toContain("public.fresh public.fresh");
  });
});

describe.runIf(debian15Available())("a publication", () => {
  test("G1 G3 is done once across a restore, and answers with what can be waited for here", async () => {
    await using cluster = await createCluster({ binaries: "debian-15" });
    const origin = await cluster.createDatabase();
    await migrate(origin);
    const event = { topic: "t", key: "k", operation: "MESSAGE", payload: "{}", headers: {} } as const;
    const publishTo = async (url: string, idempotencyKey: string) => {
      const store = createPostgresStore({ url, directUrl: false });
      await store.start(never);
      const published = await store.publish({ events: [event], idempotencyKey, principal: "" }, never);
      const version = await store.settled(published.xid, never);
      const again = await store.publish({ events: [event], idempotencyKey, principal: "" }, never);
      await store.stop();
      return { published, version, again };
    };
    const first = await publishTo(origin, "before");
    expect(first).toMatchObject({
      published: { duplicate: false },
      version: 1,
      again: { version: 1, duplicate: true },
    });
    const script = await dumpOf(origin);
    await query(cluster.url(), "create database restored template template0");
    const url = cluster.url("restored");
    await restoreInto(url, script);
    const second = await publishTo(url, "before");
    expect(second).toMatchObject({ published: { duplicate: true }, version: 1, again: { duplicate: true } });
    expect([second.published.version, second.again.version]).toEqual([undefined, undefined]);
    expect(second.published.xid).not.toBe(first.published.xid);
    const third = await publishTo(url, "after");
    expect(third).toMatchObject({
      published: { duplicate: false },
      version: 2,
      again: { version: 2, duplicate: true },
    });
    expect((await readFeed(url)).head).toBe(2);
  });
});
