import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Event } from "../../../src/core/event.ts";
import { tickEnd } from "../../../src/core/page.ts";
import type { SnapshotPlace } from "../../../src/core/ports.ts";
import { createPostgresStore, type PostgresStore } from "../../../src/postgres/store.ts";
import { createFeedDatabase, type FeedDatabase, forever } from "./feed-database.ts";
import { sequenceProblems } from "./hand-off.ts";

const writers = 8;
const journeys = 10;

/** Rows up to a cut, with what a client gets before them when it goes on from an earlier cut. */
interface Leg {
  /** Settled between the two snapshots. */
  readonly missed: readonly Event[];
  readonly kept: readonly Event[];
  readonly rows: readonly Event[];
}

interface Journey {
  readonly legs: readonly Leg[];
  /** Of the last snapshot. */
  readonly version: number;
}

const tables: readonly (readonly [name: string, key: string])[] = [
  ["account", "id::text"],
  ["member", `'["' || region || '",' || id || ']'`],
  ["parcel", `'[' || id || ',"' || region || '"]'`],
  ["device", "id::text"],
  ["word", "k"],
];

let database: FeedDatabase;
let store: PostgresStore;
let taken: readonly Journey[] = [];
let events: readonly Event[] = [];
const finally_ = new Map<string, ReadonlyMap<string, string>>();

const setUp = `
  create table account (id int primary key, n int not null);
  insert into account select i, 0 from generate_series(1, 60) i;
  create table member (region text not null, id bigint not null, n int not null, primary key (id, region));
  insert into member select (array['eu', 'us', 'as'])[i % 3 + 1], 9007199254740992 + i, 0 from generate_series(1, 60) i;
  create table parcel (id int not null, region text not null, n int not null, primary key (id, region)) partition by list (region);
  create table parcel_eu partition of parcel for values in ('eu');
  create table parcel_rest partition of parcel default;
  insert into parcel select i, (array['eu', 'us'])[i % 2 + 1], 0 from generate_series(1, 60) i;
  create table device (id uuid primary key, n int not null);
  insert into device select md5(i::text)::uuid, 0 from generate_series(1, 60) i;
  create table word (k text primary key, n int not null);
  insert into word select chr(96 + i % 26 + 1) || i, 0 from generate_series(1, 60) i;
  select millrace.watch('account'), millrace.watch('member', key_columns => '{region,id}'),
    millrace.watch('parcel', topic => 'parcel.{region}', key_columns => '{id,region}'),
    millrace.watch('device'), millrace.watch('word')`;

/** Changes of a row, of a key in either direction, of a partition; rows that come and go; all rows of a table gone. */
function statements(turn: number, writer: number): readonly string[] {
  const i = ((turn * 7 + writer * 13) % 60) + 1;
  const region = ["eu", "us", "as"][turn % 3];
  const all = [
    `update account set n = n + 1 where id = ${i}`,
    `update account set id = case when id > 100 then id - 100 else id + 100 end, n = n + 1 where id % 100 = ${i}`,
    `insert into account values (${200 + i}, 0) on conflict (id) do update set n = account.n + 1`,
    `delete from account where id = ${200 + i}`,
    `update member set n = n + 1 where id % 60 = ${i % 60}`,
    `update member set region = '${region}' where id = ${9007199254740992n + BigInt(i)}`,
    `update member set id = id + case when id % 2 = 0 then 61 else -61 end where id = ${9007199254740992n + BigInt(i)}`,
    `update parcel set region = '${turn % 2 === 0 ? "eu" : "us"}', n = n + 1 where id = ${i}`,
    `update parcel set id = -id where id = ${i}`,
    `insert into device values (md5('${i}x')::uuid, 0) on conflict (id) do update set n = device.n + 1`,
    `delete from device where id = md5('${i}x')::uuid`,
    `update word set k = reverse(k), n = n + 1 where k like '%${i}%'`,
    turn % 40 === 39 ? "truncate word" : `insert into word values ('${writer}w${i}', 0) on conflict do nothing`,
  ];
  return [all[turn % all.length] ?? "", all[(turn * 5 + writer) % all.length] ?? ""];
}

/** What may happen to whoever writes at random: a deadlock, a key that is taken, a row that moved away meanwhile. */
const expected = new Set(["40P01", "23505", "40001"]);

async function write(writer: number, more: () => boolean): Promise<void> {
  const session = await database.session();
  for (let turn = writer; more(); turn += 1) {
    try {
      await session.query("begin");
      for (const statement of statements(turn, writer)) await session.query(statement);
      await session.query(turn % 11 === 0 ? "rollback" : "commit");
    } catch (error) {
      if (!(error instanceof pg.DatabaseError) || !expected.has(error.code ?? "")) throw error;
      await session.query("rollback");
    }
  }
}

async function settledBetween(from: number, to: number): Promise<readonly Event[]> {
  const found: Event[] = [];
  for (let after = from; after < to; after = from + found.length) {
    const page = await store.readAfter(after, forever);
    if (page === undefined) throw new Error(`nothing after ${after}, up to ${to}`);
    found.push(...page.events.slice(0, to - after));
  }
  return found;
}

/** Takes a snapshot, leaves it after a few rows, goes on with another, and so on to the end. */
async function travel(step: number): Promise<Journey> {
  const legs: Leg[] = [];
  let place: SnapshotPlace | undefined;
  let version = 0;
  for (;;) {
    const reader = await store.snapshot({ wantsSource: () => true, after: place }, forever);
    try {
      if (place !== undefined && !reader.resumed) throw new Error("begun anew");
      const now = tickEnd(reader.tick);
      const missed: readonly Event[] = place === undefined ? [] : await settledBetween(version, now);
      const kept: readonly Event[] = place === undefined ? [] : await reader.concerning(missed, forever);
      version = now;
      const rows: Event[] = [];
      for await (const { part, events: batch } of reader.rows()) {
        const some = batch.slice(0, step - rows.length);
        rows.push(...some);
        const rowsBefore: number = place?.rows ?? 0;
        if (some.length > 0)
          place = { shape: reader.shape, sources: part, key: some.at(-1)?.key, rows: rowsBefore + some.length };
        if (rows.length >= step) break;
      }
      legs.push({ missed, kept, rows });
      if (rows.length < step) return { legs, version };
    } finally {
      await reader.close();
    }
  }
}

beforeAll(async () => {
  database = await createFeedDatabase();
  await database.sql(setUp);
  store = createPostgresStore({ url: database.url });
  await store.start(forever);
  let writing = true;
  const busy = Array.from({ length: writers }, (_, writer) => write(writer, () => writing));
  const ticking = (async () => {
    while (writing) await database.tick();
  })();
  try {
    const done: Journey[] = [];
    for (let at = 0; at < journeys; at += 1) done.push(await travel(11 + at * 3));
    taken = done;
  } finally {
    writing = false;
    await Promise.all([...busy, ticking]);
  }
  await database.tick();
  events = await settledBetween(0, (await store.bounds(forever)).head);
  for (const [name, key] of tables) {
    const rows = await database.sql<{ key: string; image: string }>(
      `select ${key} as key, row_to_json(t)::text as image from ${name} t`,
    );
    finally_.set(name, new Map(rows.map((row) => [row.key, row.image])));
  }
});

afterAll(async () => {
  await store.stop();
  await database[Symbol.asyncDispose]();
});

function problemsOf({ legs, version }: Journey): readonly string[] {
  const steps = legs.flatMap(({ kept, rows }) => [...kept, ...rows]);
  return sequenceProblems([...steps, ...events.filter((event) => event.version > version)], finally_);
}

describe("a snapshot that is cut again and again, while eight writers write", () => {
  it("G7 each version of each row is counted once, and the end is the tables", () => {
    for (const journey of taken) {
      expect(journey.legs.length).toBeGreaterThan(3);
      expect(problemsOf(journey)).toEqual([]);
    }
  });

  it("G7 the writing was such that a fault would have shown", () => {
    const legs = taken.flatMap((journey) => journey.legs);
    expect(legs.filter(({ missed, kept }) => kept.length > 0 && kept.length < missed.length).length).toBeGreaterThan(
      20,
    );
    expect(events.some(({ operation }) => operation === "TRUNCATE")).toBe(true);
    const topics = new Set(events.map(({ topic }) => topic));
    expect(topics.isSupersetOf(new Set(["account", "member", "parcel.eu", "parcel.us", "device", "word"]))).toBe(true);
  });

  /** Every journey with one of its legs changed: the faults of one leg, if any, must show. */
  function planted(change: (leg: Leg) => Leg): readonly (readonly string[])[] {
    return taken.flatMap(({ legs, version }) =>
      legs.flatMap((leg, at) => {
        const changed = change(leg);
        return changed === leg ? [] : [problemsOf({ legs: legs.with(at, changed), version })];
      }),
    );
  }

  it.each<readonly [string, (leg: Leg) => Leg]>([
    ["all that was missed kept", (leg) => (leg.kept.length === leg.missed.length ? leg : { ...leg, kept: leg.missed })],
    [
      "the first of what concerns it lost",
      (leg) => (leg.kept.length === 0 ? leg : { ...leg, kept: leg.kept.slice(1) }),
    ],
    [
      "the last of what concerns it twice",
      (leg) => (leg.kept.length === 0 ? leg : { ...leg, kept: [...leg.kept, ...leg.kept.slice(-1)] }),
    ],
    ["a row lost at the cut", (leg) => (leg.rows.length === 0 ? leg : { ...leg, rows: leg.rows.slice(0, -1) })],
    [
      "a row twice after the cut",
      (leg) => (leg.rows.length === 0 ? leg : { ...leg, rows: [...leg.rows.slice(0, 1), ...leg.rows] }),
    ],
  ])("G7 the checker sees a planted fault: %s", (_, change) => {
    const found = planted(change);
    expect(found.length).toBeGreaterThan(10);
    // A truncated or a deleted row forgives what was wrong with it before; nearly nothing else does.
    expect(found.filter((problems) => problems.length > 0).length).toBeGreaterThan(found.length * 0.5);
  });
});
