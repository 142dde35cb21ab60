import type pg from "pg";
import { expect, test } from "vitest";
import { createPool } from "../../../src/postgres/database.ts";
import { doctor } from "../../../src/postgres/doctor.ts";
import { listSources } from "../../../src/postgres/sources.ts";
import { createPostgresStore } from "../../../src/postgres/store.ts";
import { why } from "../../../src/postgres/why.ts";
import { servers, WatchedDatabase } from "../capture/watched-database.ts";

const never = new AbortController().signal;

/** Each matches the arguments of a statement of Millrace's better than what it takes the name of. */
const planted = `
  create function public.concat_ws(text, bigint, bigint, bigint, bigint, pg_snapshot) returns text
    language plpgsql as 'begin raise exception $$planted$$; end';
  create function public.times(numeric, integer) returns numeric
    language plpgsql as 'begin raise exception $$planted$$; end';
  create function public.times(double precision, integer) returns double precision
    language plpgsql as 'begin raise exception $$planted$$; end';
  create function public.times(bigint, interval) returns interval
    language plpgsql as 'begin raise exception $$planted$$; end';
  create function public.join(text[], text[]) returns text[]
    language plpgsql as 'begin raise exception $$planted$$; end';
  create function public.join(text, integer) returns text
    language plpgsql as 'begin raise exception $$planted$$; end';
  create function public.join(text, oid) returns text
    language plpgsql as 'begin raise exception $$planted$$; end';
  create operator public.* (leftarg = numeric, rightarg = integer, function = public.times);
  create operator public.* (leftarg = double precision, rightarg = integer, function = public.times);
  create operator public.* (leftarg = bigint, rightarg = interval, function = public.times);
  create operator public.|| (leftarg = text[], rightarg = text[], function = public.join);
  create operator public.|| (leftarg = text, rightarg = integer, function = public.join);
  create operator public.|| (leftarg = text, rightarg = oid, function = public.join);
  create function public.unnest(text[]) returns text
    language plpgsql as 'begin raise exception $$planted$$; end';
  create function public.unnest(smallint[]) returns smallint
    language plpgsql as 'begin raise exception $$planted$$; end';
  create function public.unnest(xid8[]) returns xid8
    language plpgsql as 'begin raise exception $$planted$$; end';
  create function public.format(text, name, name) returns text
    language plpgsql as 'begin raise exception $$planted$$; end'`;

test.each(servers)("functions planted in the search path are not run by a server, on $name", async ({ cluster }) => {
  await using database = await WatchedDatabase.create(await cluster());
  const [server, stranger] = [`server_${process.pid}`, `stranger_${process.pid}`];
  await database.run(
    `create role ${server} login`,
    `create role ${stranger} login`,
    `select millrace.allow('${server}', 'server')`,
    "grant usage, create on schema public to public",
    "create table public.orders (id int primary key, region text not null)",
    "select millrace.watch('public.orders', 'orders.{region}', include => '{id}')",
    `grant select on public.orders to ${server}`,
    "insert into public.orders values (1, 'eu')",
  );
  const plants = await database.session(stranger);
  await plants.query(planted);
  await expect(plants.query("select 1::bigint * interval '1 s'"), "the trap is set").rejects.toThrow("planted");

  const asServer = new URL(database.url);
  asServer.username = server;
  const store = createPostgresStore({ url: asServer.href, directUrl: false });
  const pool = createPool({ url: asServer.href, max: 2, idleMs: 0 });
  try {
    await store.start(never);
    const { xid } = await store.publish({ principal: "p", idempotencyKey: "k", events: [message] }, never);
    expect(await store.settled(xid, never)).toBe(2);
    expect(await store.bounds(never)).toEqual({ oldest: 1, head: 2 });
    expect((await store.advance(0, never))?.events.length).toBe(2);
    expect((await store.readAfter(0, never))?.events.length).toBe(2);
    const tick = await store.tickOf(2, never);
    expect(await store.tickAt(tick?.timeMicros ?? 0, never)).toEqual(tick);
    const snapshot = await store.snapshot({ wantsSource: () => true }, never);
    const rows = (await Array.fromAsync(snapshot.rows())).flatMap(({ events }) => events);
    await snapshot.close();
    expect(rows.map(({ topic }) => topic)).toEqual(["orders.eu"]);
    expect((await why(pool)).lastTick.head).toBe(2);
    expect((await doctor(pool)).filter(({ code }) => code === "CHECK_FAILED")).toEqual([]);
    expect((await listSources(pool)).map(({ table }) => table)).toEqual(["public.orders"]);
  } finally {
    await store.stop();
    await pool.end();
  }
});

const message = {
  topic: "notes",
  key: undefined,
  operation: "MESSAGE",
  payload: undefined,
  headers: {},
} as const;

test.each(servers)("what a role presets changes nothing that is read or told, on $name", async ({ cluster }) => {
  await using database = await WatchedDatabase.create(await cluster());
  const role = `preset_${process.pid}`;
  await database.run(
    `create role ${role} login`,
    `select millrace.allow('${role}', 'server')`,
    "create table public.orders (id int primary key)",
    "select millrace.watch('public.orders')",
    "insert into public.orders values (1)",
  );
  const seen = async () => {
    const url = new URL(database.url);
    url.username = role;
    const pool = createPool({ url: url.href, max: 2, idleMs: 0 });
    try {
      const [source] = await listSources(pool);
      const codes = (await doctor(pool)).map(({ code, severity }) => `${severity} ${code}`);
      return { createdAt: source?.createdAt.getTime(), table: source?.table, codes };
    } finally {
      await pool.end();
    }
  };
  const before = await seen();
  expect(before.createdAt).toBeGreaterThan(0);
  const client: pg.Client = database.client;
  for (const preset of [
    "datestyle = 'German, DMY'",
    "extra_float_digits = '-15'",
    "standard_conforming_strings = off",
    "quote_all_identifiers = on",
    "default_transaction_isolation = serializable",
    "default_transaction_read_only = on",
    "search_path = ''",
  ]) {
    await client.query(`alter role ${role} set ${preset}`);
  }
  expect(await seen()).toEqual(before);
});
