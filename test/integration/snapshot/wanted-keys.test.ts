import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { SnapshotPlace } from "../../../src/core/ports.ts";
import { withLease } from "../../../src/postgres/lease.ts";
import { rowsIn, walksIndex } from "../../../src/postgres/snapshot/key-range.ts";
import { openSnapshot } from "../../../src/postgres/snapshot/snapshot.ts";
import { wantedSources } from "../../../src/postgres/snapshot/sources.ts";
import { beforeCopy } from "../../../src/postgres/snapshot/statements.ts";
import { createFeedDatabase, type FeedDatabase, forever, readAll } from "./feed-database.ts";

let database: FeedDatabase;

beforeAll(async () => {
  database = await createFeedDatabase();
  await database.sql(`
    create table big (id bigint primary key, n int not null);
    insert into big select i, i from generate_series(1, 20000) i;
    create table pairs (region text, id int, n int, primary key (region, id));
    insert into pairs select (array['eu', 'us'])[i % 2 + 1], i, i from generate_series(1, 20000) i;
    create table tokens (id uuid primary key);
    insert into tokens select md5(i::text)::uuid from generate_series(1, 5000) i;
    create table parts (id int primary key) partition by range (id);
    create table parts_1 partition of parts for values from (0) to (10000);
    create table parts_2 partition of parts default;
    insert into parts select generate_series(1, 20000);
    create table amounts (k numeric primary key);
    insert into amounts values (1.0), (2.50), ('NaN');
    create table floats (k float8 primary key);
    insert into floats values (1), (2);
    analyze;
    select millrace.watch('big'), millrace.watch('pairs'), millrace.watch('tokens'), millrace.watch('parts'),
      millrace.watch('amounts'), millrace.watch('floats')`);
});

afterAll(() => database[Symbol.asyncDispose]());

async function keysOf(topic: string, keys: readonly string[] | undefined, after?: SnapshotPlace) {
  const request = { wantsSource: (source: string) => source === topic, wantedKeys: () => keys, after };
  const reader = await openSnapshot(database.pool, database.epoch, request, {}, forever);
  return { shape: reader.shape, parts: reader.parts, keys: (await readAll(reader)).map(({ key }) => key) };
}

/** The plan of a copy, as the reader's settings make it. */
async function planOf(topic: string, range: { after?: readonly string[]; keys?: readonly string[] }): Promise<string> {
  const [source] = await withLease(database.pool, forever, (lease) => wantedSources(lease, (name) => name === topic));
  if (source === undefined) throw new Error(`no source ${topic}`);
  const session = await database.session();
  await session.query("begin; set local search_path = pg_catalog; set local max_parallel_workers_per_gather = 0");
  await session.query(beforeCopy(1000, walksIndex(source, range)));
  const { rows } = await session.query<{ "QUERY PLAN": string }>(`explain select t ${rowsIn(source, range)}`);
  await session.query("rollback");
  return rows.map((row) => row["QUERY PLAN"]).join("\n");
}

/** A step of a plan that sorts; a merge of what is in order already says `Sort Key` too. */
const sorting = /(?:^|-> +)(?:Incremental )?Sort /m;

describe("keys that are wanted", () => {
  it("are all that is copied, and about how many rows that is", async () => {
    const found = await keysOf("big", ["7", "19999", "20001"]);
    expect(found.keys).toEqual(["7", "19999"]);
    expect(found.parts).toMatchObject([{ estimatedRows: 3 }]);
    expect((await keysOf("pairs", ['["us",1]', '["eu",2]', '["eu",1]', '["us"]', "us"])).keys).toEqual([
      '["eu",2]',
      '["us",1]',
    ]);
    expect((await keysOf("parts", ["5", "15000"])).keys).toEqual(["5", "15000"]);
    expect((await keysOf("amounts", ["1.0", "3"])).keys).toEqual(["1.0"]);
  });

  it("match nothing, and harm nothing, when no row can have them", async () => {
    for (const key of [
      "",
      "abc",
      "7 ",
      "1e3",
      "99999999999999999999",
      "'; drop table big; --",
      "\0",
      "\ud800",
      "é",
      '["x",1]',
      "NULL",
    ]) {
      expect((await keysOf("big", [key, "7"])).keys, key).toEqual(["7"]);
      expect((await keysOf("tokens", [key])).keys, key).toEqual([]);
    }
    expect(
      (await keysOf("pairs", ['["eu\\u0000",2]', '["eu",2e9]', '["eu",[2]]', '["eu",null]', '["eu"', '["eu",2],']))
        .keys,
    ).toEqual([]);
    expect((await keysOf("big", [])).keys).toEqual([]);
  });

  it("are a hint: rows may come that nobody asked for where only the database knows", async () => {
    expect((await keysOf("floats", ["1", "no number"])).keys).toContain("1");
    expect((await keysOf("amounts", ["NaN"])).keys).toContain("NaN");
  });

  it("G7 go on after a place among them", async () => {
    const wanted = ["5", "6", "7", "8"];
    const { shape } = await keysOf("big", wanted);
    expect((await keysOf("big", wanted, { shape, sources: 0, key: "6", rows: 2 })).keys).toEqual(["7", "8"]);
  });

  it("are found through the index, and so is the rest of a table after a place", async () => {
    const keys = ["5", "15000"];
    for (const [topic, range] of [
      ["big", { keys }],
      ["pairs", { keys: ['["eu",2]', '["us",1]'] }],
      ["parts", { keys }],
      ["big", { after: ["10000"] }],
      ["pairs", { after: ["eu", "10000"] }],
      ["parts", { after: ["5000"] }],
    ] as const) {
      const plan = await planOf(topic, range);
      expect(plan, topic).toMatch(/Index Cond|Index Searches/);
      expect(plan, topic).not.toMatch(/Seq Scan/);
      if ("after" in range) expect(plan, topic).not.toMatch(sorting);
    }
    expect(await planOf("parts", {})).not.toMatch(sorting);
  });
});

it("says about how many rows there are, analysed or not", async () => {
  await database.sql(`create table never_analysed (id int primary key, filler text) with (autovacuum_enabled = off);
    insert into never_analysed select i, repeat('x', 20) from generate_series(1, 10000) i;
    create table no_rows (id int primary key); select millrace.watch('never_analysed'), millrace.watch('no_rows')`);
  const estimate = async (topic: string) => (await keysOf(topic, undefined)).parts[0]?.estimatedRows ?? Number.NaN;
  expect(await estimate("big")).toBe(20000);
  expect(await estimate("parts")).toBe(20000);
  expect(await estimate("no_rows")).toBe(0);
  const guessed = await estimate("never_analysed");
  expect(guessed).toBeGreaterThan(3000);
  expect(guessed).toBeLessThan(30000);
});
