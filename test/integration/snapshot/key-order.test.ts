import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Event } from "../../../src/core/event.ts";
import type { SnapshotPlace, SnapshotReader } from "../../../src/core/ports.ts";
import { openSnapshot } from "../../../src/postgres/snapshot/snapshot.ts";
import { createCluster, debian15Available, type TestCluster } from "../../support/cluster.ts";
import { createFeedDatabase, type FeedDatabase, forever, readAll } from "./feed-database.ts";
import { eventsOf } from "./settled-events.ts";

/** Tables whose rows can be gone on with after any of them, by the columns of their keys and values in no order. */
const ordered: readonly (readonly [name: string, columns: string, key: string, values: string])[] = [
  ["int2", "k int2", "k", "(-32768), (0), (32767)"],
  [
    "int8 beyond doubles",
    "k int8",
    "k",
    "(9007199254740993), (9007199254740992), (-9223372036854775808), (9223372036854775807)",
  ],
  ["oid", "k oid", "k", "(0), (4294967295), (7)"],
  [
    "numeric with zeros",
    "k numeric",
    "k",
    "(1.00), (1.5), ('NaN'), (-0.10), (123456789012345678901234567890.5), (1e-20), (2)",
  ],
  ["numeric of a scale", "k numeric(10, 3)", "k", "(1), (1.001), (-7.5)"],
  ["bool", "k bool", "k", "(true), (false)"],
  [
    "text with anything in it",
    "k text",
    "k",
    `(''), ('a'), ('B'), ('ä'), (E'\\u0001"\\\\'), (' '), ('[1,2]'), ('😀'), ('%_'), ('null')`,
  ],
  ["varchar", "k varchar(5)", "k", "('a'), ('b'), ('aa')"],
  ["char, padded", "k char(5)", "k", "('a'), ('ab'), ('b')"],
  [
    "uuid",
    "k uuid",
    "k",
    "('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'), ('00000000-0000-0000-0000-000000000000'), ('ffffffff-ffff-4fff-8fff-ffffffffffff')",
  ],
  [
    "date",
    "k date",
    "k",
    "('2024-02-29'), ('infinity'), ('-infinity'), ('0044-03-15 BC'), ('5874897-12-31'), ('4713-01-01 BC')",
  ],
  ["time", "k time", "k", "('24:00:00'), ('00:00'), ('23:59:59.999999')"],
  [
    "timestamp",
    "k timestamp",
    "k",
    "('2024-02-29 12:34:56.789012'), ('infinity'), ('-infinity'), ('0044-03-15 BC'), ('294276-12-31 23:59:59.999999')",
  ],
  [
    "timestamptz",
    "k timestamptz",
    "k",
    "('2024-02-29 12:34:56.789012+05:30'), ('infinity'), ('0044-03-15 01:00+14 BC'), ('294276-12-31 23:59:59.999999+00')",
  ],
  ["bytea", "k bytea", "k", "('\\x'), ('\\x00ff'), ('\\x5c')"],
  ["inet", "k inet", "k", "('10.0.0.1/8'), ('10.0.0.0/8'), ('::1'), ('10.0.0.1')"],
  ["an enum", "k mood", "k", "('happy'), ('so, so'), ('sad')"],
  ["a domain of a domain", "k deeper", "k", "('b'), ('a'), ('c')"],
  ["a collation of its own", 'k text collate "C"', "k", "('a'), ('B'), ('ä'), ('Z')"],
  [
    "two columns",
    "a text, b int8",
    "a, b",
    `('x', 1), ('x', 9007199254740993), ('', 5), (E'\\u0002,"]', -1), ('x', 9007199254740992)`,
  ],
  [
    "columns in another order than the index",
    "a int, b uuid, c bool",
    "c, a, b",
    "(1, gen_random_uuid(), true), (2, gen_random_uuid(), false), (1, gen_random_uuid(), false)",
  ],
  [
    "an index that descends",
    "a int not null, b numeric not null, unique (a, b)",
    "",
    "(1, 1.0), (1, 1.10), (2, 0), (-1, 'NaN')",
  ],
  [
    "a unique index over some of the key",
    "id int primary key, region text not null",
    "",
    "(3, 'eu'), (1, 'us'), (2, 'eu')",
  ],
];

/** What makes a unique index no order, or a key no text that comes back as it was. */
const unordered: readonly (readonly [why: string, setUp: string, key: string])[] = [
  ["no unique index", "create table %s (id int not null)", "id"],
  ["a predicate", "create table %s (id int not null); create unique index on %s (id) where id > 0", "id"],
  ["an expression", "create table %s (id int not null); create unique index on %s (abs(id))", "id"],
  ["another column in the index", "create table %s (id int not null, other int not null, unique (id, other))", "id"],
  ["deferrable", "create table %s (id int not null unique deferrable)", "id"],
  [
    "directions that differ",
    "create table %s (a int not null, b int not null); create unique index on %s (a, b desc)",
    "a,b",
  ],
  ["a comparison of its own", "create table %s (k text not null); create unique index on %s (k text_pattern_ops)", "k"],
  [
    "a collation that is not the column's",
    'create table %s (k text not null); create unique index on %s (k collate "POSIX")',
    "k",
  ],
  ["a float", "create table %s (k float8 primary key)", "k"],
  ["an interval", "create table %s (k interval primary key)", "k"],
  ["an array", "create table %s (k int[] primary key)", "k"],
  ["an enum that looks as its owner likes", "create table %s (k cast_mood primary key)", "k"],
];

const available: readonly ("embedded" | "debian-15")[] = debian15Available() ? ["embedded", "debian-15"] : ["embedded"];

describe.each(available)("on %s", (binaries) => {
  let cluster: TestCluster;
  let database: FeedDatabase;
  let tables = 0;

  beforeAll(async () => {
    cluster = await createCluster({ binaries });
    database = await createFeedDatabase(cluster);
    await database.sql(`create type mood as enum ('sad', 'so, so', 'happy');
      create domain named as text check (value <> 'nobody'); create domain deeper as named check (length(value) < 9);
      create type cast_mood as enum ('yes', 'no');
      create function shown(cast_mood) returns json language sql as $$select '"always"'::json$$;
      create cast (cast_mood as json) with function shown(cast_mood)`);
  });

  afterAll(async () => {
    await database[Symbol.asyncDispose]();
    await cluster[Symbol.asyncDispose]();
  });

  function open(topic: string, after?: SnapshotPlace): Promise<SnapshotReader> {
    const request = { wantsSource: (source: string) => source === topic, after };
    return openSnapshot(database.pool, database.epoch, request, {}, forever);
  }

  const keysOf = (events: readonly Event[]) => events.map(({ key }) => key ?? "");

  it.each(ordered)("G7 goes on after any row: %s", async (name, columns, key, values) => {
    const table = `o${++tables}`;
    await database.sql(`create table ${table} (${columns}${key === "" ? "" : `, primary key (${key})`})`);
    if (name.includes("descends"))
      await database.sql(
        `alter table ${table} drop constraint ${table}_a_b_key; create unique index on ${table} (a desc, b desc)`,
      );
    const all = key === "" ? (name.includes("some") ? "id,region" : "a,b") : null;
    await database.sql("select millrace.watch($1::regclass, key_columns => $2::text[])", [
      table,
      all === null ? null : `{${all}}`,
    ]);
    await database.sql(`insert into ${table} values ${values}`);
    await database.tick();
    const events = await eventsOf(database, table);
    const first = await open(table);
    expect(first.parts).toMatchObject([{ topic: table, ordered: true }]);
    const rows = await readAll(first);
    expect(rows).toHaveLength(events.length);
    for (const [at, row] of rows.entries()) {
      const reader = await open(table, { shape: first.shape, sources: 0, key: row.key, rows: at + 1 });
      expect(reader.resumed).toBe(true);
      const before = await reader.concerning(events, forever);
      expect(keysOf(before).toSorted()).toEqual(keysOf(rows.slice(0, at + 1)).toSorted());
      expect(keysOf(await readAll(reader))).toEqual(keysOf(rows.slice(at + 1)));
    }
  });

  it.each(unordered)("is no order: %s", async (_, setUp, key) => {
    const table = `u${++tables}`;
    await database.sql(setUp.replaceAll("%s", table));
    await database.sql("select millrace.watch($1::regclass, key_columns => $2::text[])", [table, `{${key}}`]);
    const reader = await open(table);
    expect(reader.parts).toMatchObject([{ ordered: false }]);
    const { shape } = reader;
    await reader.close();
    const again = await open(table, { shape, sources: 0, key: "1", rows: 1 });
    expect(again.resumed).toBe(false);
    await again.close();
  });

  it("G7 a numeric key that only changes its digits stays where it was", async () => {
    await database.sql(`create table digits (k numeric primary key); select millrace.watch('digits');
      insert into digits values (1.0), (2.0), (3.0)`);
    const first = await open("digits");
    const rows = await readAll(first);
    await database.sql("update digits set k = 2.000 where k = 2");
    await database.tick();
    const changes = (await eventsOf(database, "digits")).slice(-2);
    expect(changes.map(({ operation, key }) => [operation, key])).toEqual([
      ["DELETE", "2.0"],
      ["INSERT", "2.000"],
    ]);
    for (const [sent, concerned] of [
      [1, 0],
      [2, 2],
      [3, 2],
    ] as const) {
      const reader = await open("digits", { shape: first.shape, sources: 0, key: rows[sent - 1]?.key, rows: sent });
      expect(await reader.concerning(changes, forever)).toHaveLength(concerned);
      expect(keysOf(await readAll(reader))).toEqual(["1.0", "2.000", "3.0"].slice(sent));
    }
  });

  if (binaries === "embedded") {
    it("G7 texts that a collation takes for equal", async () => {
      await database.sql(`create collation loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
        create table loosely (k text collate loose primary key, n int); select millrace.watch('loosely');
        insert into loosely values ('a', 1), ('B', 2), ('c', 3)`);
      const first = await open("loosely");
      const rows = await readAll(first);
      expect(keysOf(rows)).toEqual(["a", "B", "c"]);
      await database.sql("update loosely set k = 'b' where k = 'B'");
      await database.tick();
      const changes = (await eventsOf(database, "loosely")).slice(-2);
      const reader = await open("loosely", { shape: first.shape, sources: 0, key: "B", rows: 2 });
      expect(await reader.concerning(changes, forever)).toHaveLength(2);
      expect(keysOf(await readAll(reader))).toEqual(["c"]);
    });

    it("is no order: a column that is NOT NULL only for rows to come", async () => {
      await database.sql(`create table sometimes (id int unique); insert into sometimes values (null);
        alter table sometimes add constraint never not null id not valid;
        select millrace.watch('sometimes', key_columns => '{id}')`);
      const reader = await open("sometimes");
      expect(reader.parts).toMatchObject([{ ordered: false }]);
      expect(await readAll(reader)).toHaveLength(1);
    });
  }
});
