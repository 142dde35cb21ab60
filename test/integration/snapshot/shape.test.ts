import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { SnapshotPlace, SnapshotReader } from "../../../src/core/ports.ts";
import { openSnapshot } from "../../../src/postgres/snapshot/snapshot.ts";
import { createFeedDatabase, type FeedDatabase, forever, readAll } from "./feed-database.ts";
import { eventsOf } from "./settled-events.ts";

let database: FeedDatabase;

beforeAll(async () => {
  database = await createFeedDatabase();
  await database.sql("create type mood as enum ('sad', 'happy')");
});

afterAll(() => database[Symbol.asyncDispose]());

let made = 0;

async function watched(columns = "id int primary key, n int not null default 0, mood mood"): Promise<string> {
  const name = `t${++made}`;
  await database.sql(`create table ${name} (${columns})`);
  await database.sql(`insert into ${name} (id) select generate_series(1, 10)`);
  await database.sql(`select millrace.watch('${name}')`);
  return name;
}

function open(topics: readonly string[], after?: SnapshotPlace, selection = ""): Promise<SnapshotReader> {
  const wantsSource = (topic: string) => topics.includes(topic);
  return openSnapshot(database.pool, database.epoch, { wantsSource, selection, after }, {}, forever);
}

async function placeIn(topics: readonly string[], key: string): Promise<SnapshotPlace> {
  const reader = await open(topics);
  await reader.close();
  return { shape: reader.shape, sources: 0, key, rows: Number(key) };
}

async function goesOn(topics: readonly string[], place: SnapshotPlace, selection = ""): Promise<boolean> {
  const reader = await open(topics, place, selection);
  const rows = await readAll(reader);
  expect(rows.map(({ after }) => `${JSON.parse(Buffer.from(after ?? []).toString()).id}`)).toEqual(
    (
      await database.sql<{ id: string }>(`select id::text from ${topics[0]} t where id > $1 order by t.id`, [
        reader.resumed ? place.key : -1000,
      ])
    ).map(({ id }) => id),
  );
  return reader.resumed;
}

describe("a snapshot goes on", () => {
  it.each<readonly [string, (name: string) => string]>([
    ["nothing happened", () => "select"],
    ["rows changed", (name) => `update ${name} set n = n + 1; delete from ${name} where id in (3, 8)`],
    ["the table was written anew as it was", (name) => `vacuum full ${name}`],
    ["it was vacuumed and analysed", (name) => `vacuum analyze ${name}`],
    [
      "it got an index and somebody a grant",
      (name) => `create index on ${name} (n); grant select on ${name} to public`,
    ],
    [
      "its last rows were dropped with all others",
      (name) => `truncate ${name}; insert into ${name} (id) values (2), (7)`,
    ],
  ])("G7 although %s", async (_, between) => {
    const name = await watched();
    const place = await placeIn([name], "5");
    for (const statement of between(name).split("; ")) await database.sql(statement);
    expect(await goesOn([name], place)).toBe(true);
  });

  it("G7 beside a table that is none of its business, and after one that is done", async () => {
    const name = await watched();
    const place = await placeIn([name], "5");
    const other = await watched();
    await database.sql(`alter table ${other} add more int`);
    expect(await goesOn([name], place)).toBe(true);
    const two = [name, other];
    const first = await open(two);
    expect(await readAll(first)).toHaveLength(20);
    for (const after of [
      { shape: first.shape, sources: 1, key: undefined, rows: 10 },
      { shape: first.shape, sources: 1, key: "5", rows: 15 },
      { shape: first.shape, sources: 2, key: undefined, rows: 20 },
    ]) {
      const reader = await open(two, after);
      expect(reader.resumed).toBe(true);
      const rows = await readAll(reader);
      expect(rows.every(({ topic }) => topic === other)).toBe(true);
      expect(rows).toHaveLength(20 - after.rows);
    }
  });
});

describe("a snapshot begins anew", () => {
  it.each<readonly [string, (name: string) => string]>([
    ["a column was added", (name) => `alter table ${name} add more int default 7`],
    ["a column was dropped", (name) => `alter table ${name} drop n`],
    ["a column has another name", (name) => `alter table ${name} rename n to m`],
    ["a type was changed", (name) => `alter table ${name} alter n type bigint`],
    [
      "a type was changed and changed back",
      (name) => `alter table ${name} alter n type text; alter table ${name} alter n type int using n::int + 1`,
    ],
    ["an enum's label has another name", () => "alter type mood rename value 'sad' to 'glum'"],
    ["the key is another one", (name) => `select millrace.watch('${name}', key_columns => '{n}')`],
    ["a column was left out", (name) => `select millrace.watch('${name}', exclude => '{mood}')`],
    [
      "it was unwatched and watched again",
      (name) => `select millrace.unwatch('${name}'); select millrace.watch('${name}')`,
    ],
    ["its unique index is gone", (name) => `alter table ${name} drop constraint ${name}_pkey`],
    [
      "it was dropped and made again",
      (name) =>
        `drop table ${name}; create table ${name} (id int primary key); insert into ${name} values (1), (9); select millrace.unwatch(relid) from millrace.source where name = 'public.${name}'; select millrace.watch('${name}')`,
    ],
  ])("G7 when %s", async (_, between) => {
    const name = await watched();
    if (_.includes("another one")) await database.sql(`alter table ${name} alter n set not null`);
    const place = await placeIn([name], "5");
    for (const statement of between(name).split("; ")) await database.sql(statement);
    expect(await goesOn([name], place)).toBe(false);
  });

  it("G7 when a partition came with its rows, or went with them", async () => {
    const name = `p${++made}`;
    await database.sql(`create table ${name} (id int primary key) partition by range (id);
      create table ${name}_low partition of ${name} for values from (0) to (100);
      create table ${name}_high (id int primary key); insert into ${name}_high values (150);
      insert into ${name} values (1), (9); select millrace.watch('${name}')`);
    const before = await placeIn([name], "5");
    expect(await goesOn([name], before)).toBe(true);
    await database.sql(`alter table ${name} attach partition ${name}_high for values from (100) to (200)`);
    expect(await goesOn([name], before)).toBe(false);
    const between = await placeIn([name], "5");
    await database.sql(`alter table ${name} detach partition ${name}_low`);
    expect(await goesOn([name], between)).toBe(false);
  });

  it("G7 when other selectors are given, or another table is among them", async () => {
    const name = await watched();
    const place = await placeIn([name], "5");
    expect(await goesOn([name], place, "other")).toBe(false);
    const other = await watched();
    const reader = await open([name, other], place);
    expect(reader.resumed).toBe(false);
    await reader.close();
  });

  it("when its bearer made the place up", async () => {
    const name = await watched();
    const { shape } = await placeIn([name], "5");
    for (const place of [
      { shape, sources: 0, key: "no number", rows: 1 },
      { shape, sources: 0, key: "99999999999999999999", rows: 1 },
      { shape, sources: 0, key: "5'; drop table x; --", rows: 1 },
      { shape, sources: 0, key: "\0", rows: 1 },
      { shape, sources: 1, key: "5", rows: 1 },
      { shape, sources: 7, key: undefined, rows: 1 },
      { shape: shape ^ 1, sources: 0, key: "5", rows: 1 },
    ]) {
      const reader = await open([name], place);
      expect(reader.resumed).toBe(false);
      expect(await readAll(reader)).toHaveLength(10);
    }
  });
});

it("G7 keeps what concerns the rows before a place, and what concerns none", async () => {
  const [done, middle, later] = [await watched(), await watched(), await watched()];
  const first = await open([done, middle, later]);
  await first.close();
  const [last] = await database.sql<{ tick: number }>("select max(tick)::int as tick from millrace.tick");
  for (const name of [done, middle, later]) {
    await database.sql(`update ${name} set n = 1 where id in (4, 5, 6)`);
    await database.sql(`truncate ${name}`);
  }
  await database.sql("select millrace.emit('notes', 'hello')");
  await database.tick();
  const events = await eventsOf(database, undefined, last?.tick ?? 0);
  const told = async (key: string | undefined) => {
    const reader = await open([done, middle, later], { shape: first.shape, sources: 1, key, rows: 10 });
    const kept = await reader.concerning(events, forever);
    await reader.close();
    return kept.map(({ topic, key: of, operation }) => `${topic} ${of ?? operation}`);
  };
  const ofDone = [`${done} 4`, `${done} 5`, `${done} 6`, `${done} TRUNCATE`];
  expect(await told("5")).toEqual([...ofDone, `${middle} 4`, `${middle} 5`, `${middle} TRUNCATE`, "notes hello"]);
  expect(await told(undefined)).toEqual([...ofDone, "notes hello"]);
});
