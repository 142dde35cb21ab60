import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Event } from "../../../src/core/event.ts";
import { createCluster, debian15Available, type TestCluster } from "../../support/cluster.ts";
import { createFeedDatabase, type FeedDatabase, readAll } from "./feed-database.ts";

/** What a row looks like to whoever reads it, as text. */
interface Looks {
  readonly topic: string;
  readonly key: string | null;
  readonly after: string;
}

const everyType = `
  create type mood as enum ('so-so', 'très bien');
  create type pair as (a int, b text);
  create domain short as varchar(20) check (value <> '');
  create table typed (
    id bigint primary key, small int2, whole int4, big int8, exact numeric, money money, real float4, double float8, flag bool,
    fixed char(10), var varchar(10), free text, bytes bytea, day date, moment timestamp, instant timestamptz, clock time,
    clock_tz timetz, span interval, id4 uuid, doc json, docb jsonb, feeling mood, two pair, tiny short, list int[],
    matrix text[], moments timestamptz[], net inet, block cidr, mac macaddr, bits bit(5), varbits bit varying, spot point,
    area int4range, days datemultirange, words tsvector, ask tsquery, markup xml, place oid, doubled bigint generated always as (whole::bigint * 2) stored
  )`;

const rowsOfEveryType = [
  `(1, -32768, 2147483647, 9223372036854775807, 123456789012345678901234567890.123456789000, '-1234.56', 1e-10, 0.1, true,
    'ab', 'ä€😀', E'tab\\t quote" back\\\\slash \\u0001', '\\x00ff10', '2024-02-29', '2024-02-29 12:34:56.789012',
    '2024-02-29 12:34:56.789012+05:30', '23:59:59.999999', '23:59:59+02', '1 year 2 mons -3 days 04:05:06.789',
    'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{"b":1.000,  "a":"\\u0000"}', '{"b": 1.000, "a": 2}', 'très bien', '(1,"x,y")', 'tiny',
    '{1,null,3}', '{{"a","b,c"},{"d\\"e",null}}', '{"2024-01-01 00:00:00+00"}', '10.0.0.1/8', '10.0.0.0/8', '08:00:2b:01:02:03', B'10101',
    B'1', '(1.5,-2)', '[1,5)', '{[2024-01-01,2024-02-01)}', 'a fat cat', 'fat & cat', '<a b="c">d</a>', 4294967295)`,
  `(2, null, null, null, 'NaN', null, 'Infinity', '-0', null, null, null, '', '', '-infinity', 'infinity', '0044-03-15 BC', null, null,
    'P0D', null, 'null', 'null', null, null, null, '{}', '{}', '{}', null, null, null, null, null, null, 'empty', '{}', '', '', null, 0)`,
];

const cases: readonly {
  readonly name: string;
  readonly setUp: string;
  readonly table: string;
  readonly insert: string;
}[] = [
  {
    name: "a composite key, a template, excluded columns",
    table: '"Odd ""Name"',
    setUp: `create table "Odd ""Name" ("a'b" text, "N o" numeric, region text, secret text, gone int, primary key ("N o", "a'b"));
      alter table "Odd ""Name" drop column gone;
      select millrace.watch('"Odd ""Name"', topic => 'odd.{region}.x', exclude => '{secret}')`,
    insert: `insert into "Odd ""Name" values ('x', 1.50, 'eu.west', 's'), (E'\\u0001"', 2, null, 's'), ('ö', 'NaN', '', 's')`,
  },
  {
    name: "included columns only",
    table: "part_of_it",
    setUp: `create table part_of_it (id uuid primary key, shown text, hidden text);
      select millrace.watch('part_of_it', include => '{shown}')`,
    insert: "insert into part_of_it values (gen_random_uuid(), E'a\\u0002b', 'x'), (gen_random_uuid(), null, 'y')",
  },
  {
    name: "an excluded column that was renamed: nothing but the key is shown",
    table: "drifted",
    setUp: `create table drifted (id int primary key, shown text, hidden text);
      select millrace.watch('drifted', exclude => '{hidden}');
      alter table drifted rename hidden to now_in_sight`,
    insert: "insert into drifted values (1, 'a', 'secret')",
  },
  {
    name: "partitions, as rows of their parent",
    table: "parted",
    setUp: `create table parted (id int, region text, primary key (id, region)) partition by list (region);
      create table parted_eu partition of parted for values in ('eu');
      create table parted_rest partition of parted default;
      select millrace.watch('parted', topic => 'parted.{region}')`,
    insert: "insert into parted values (1, 'eu'), (2, 'us'), (3, 'eu')",
  },
  {
    name: "a key that is not the primary key, of a type whose JSON is not its text",
    table: "by_time",
    setUp: `create table by_time (id int primary key, at timestamptz not null, code char(5) not null, flag bool not null);
      select millrace.watch('by_time', key_columns => '{at}')`,
    insert: "insert into by_time values (1, '2024-01-01 00:00:00.5+03', 'ab', true)",
  },
  {
    name: "a padded key",
    table: "by_code",
    setUp: "create table by_code (code char(5) primary key); select millrace.watch('by_code')",
    insert: "insert into by_code values ('ab')",
  },
  {
    name: "types with casts to json of their owner's",
    table: "casting",
    setUp: `create type cast_enum as enum ('a', 'b'); create type cast_pair as (x int, y cast_enum);
      create function enum_json(cast_enum) returns json language sql as $$ select '"cast"'::json $$;
      create cast (cast_enum as json) with function enum_json(cast_enum);
      create function pair_json(cast_pair) returns json language sql as $$ select '"cast"'::json $$;
      create cast (cast_pair as json) with function pair_json(cast_pair);
      create table casting (k cast_enum primary key, p cast_pair, l cast_enum[], secret cast_enum, "s.t" text);
      select millrace.watch('casting', exclude => '{secret}')`,
    insert: `insert into casting values ('a', '(1,b)', '{a,b}', null, 'x'), ('b', null, null, 'a', null)`,
  },
  {
    name: "types with casts, and an excluded column that was renamed",
    table: "cast_drift",
    setUp: `create table cast_drift (k cast_enum primary key, p cast_pair, hidden text);
      select millrace.watch('cast_drift', exclude => '{hidden}'); alter table cast_drift rename hidden to in_sight`,
    insert: "insert into cast_drift values ('a', '(1,b)', 'secret')",
  },
  {
    name: "a text key with a control character",
    table: "by_text",
    setUp: "create table by_text (k text primary key); select millrace.watch('by_text')",
    insert: "insert into by_text values (E'a\\u0003b'), (''), ('ä')",
  },
];

function looksOfRow({ topic, key, after }: Event): Looks {
  return { topic, key: key ?? null, after: Buffer.from(after ?? []).toString() };
}

const byLooks = (a: Looks, b: Looks) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1);

const available: readonly ("embedded" | "debian-15")[] = debian15Available() ? ["embedded", "debian-15"] : ["embedded"];

describe.each(available)("on %s", (binaries) => {
  let cluster: TestCluster;
  let database: FeedDatabase;

  beforeAll(async () => {
    cluster = await createCluster({ binaries });
    database = await createFeedDatabase(cluster);
  });

  afterAll(async () => {
    await database[Symbol.asyncDispose]();
    await cluster[Symbol.asyncDispose]();
  });

  /** The events that a writer with settings of its own makes, and the rows of a snapshot. */
  async function bothLooks(insert: string, table: string): Promise<readonly [readonly Looks[], readonly Looks[]]> {
    const writer = await database.session();
    await writer.query(
      `set timezone = 'Asia/Kathmandu'; set datestyle = 'SQL, DMY'; set intervalstyle = 'postgres_verbose';
       set bytea_output = 'escape'; set extra_float_digits = -10`,
    );
    await writer.query(insert);
    const events = await database.sql<Looks>(
      `select o.topic, o.key, o.after::text from millrace.outbox o join millrace.source s on s.id = o.source_id
       where s.relid = $1::regclass`,
      [table],
    );
    const [source] = await database.sql<{ topic: string }>(
      "select topic from millrace.source where relid = $1::regclass",
      [table],
    );
    await database.tick();
    const rows = await readAll(await database.snapshot());
    const pattern = new RegExp(`^${(source?.topic ?? "").replaceAll(".", "[.]").replaceAll(/\{[^}]+\}/g, "[^.]+")}$`);
    return [
      events.toSorted(byLooks),
      rows
        .filter(({ topic }) => pattern.test(topic))
        .map(looksOfRow)
        .toSorted(byLooks),
    ];
  }

  it("G7 every type looks the same in a snapshot as in its event", async () => {
    await database.sql(everyType);
    await database.sql("select millrace.watch('typed')");
    for (const values of rowsOfEveryType) {
      const columns = await database.sql<{ name: string }>(
        `select quote_ident(attname) as name from pg_attribute
         where attrelid = 'typed'::regclass and attnum > 0 and attgenerated = '' order by attnum`,
      );
      const [events, rows] = await bothLooks(
        `insert into typed (${columns.map(({ name }) => name).join(", ")}) values ${values}`,
        "typed",
      );
      expect(events.length).toBeGreaterThan(0);
      expect(rows).toEqual(events);
    }
  });

  it.each(cases)("$name", async ({ setUp, table, insert }) => {
    await database.sql(setUp);
    const [events, rows] = await bothLooks(insert, table);
    expect(events.length).toBeGreaterThan(0);
    expect(rows).toEqual(events);
    expect(JSON.stringify(rows)).not.toContain("secret");
  });

  it("the rows of a child table by inheritance are not its parent's: no trigger tells of them", async () => {
    await database.sql(`create table parent (id int primary key); create table child () inherits (parent);
      select millrace.watch('parent'); insert into parent values (1); insert into child values (2)`);
    const rows = await readAll(await database.snapshot());
    expect(rows.filter(({ topic }) => topic === "parent").map(({ key }) => key)).toEqual(["1"]);
  });

  if (binaries === "embedded") {
    it("virtual generated columns are in neither", async () => {
      await database.sql(`create table virtual_too (id int primary key, twice int generated always as (id * 2) virtual);
        select millrace.watch('virtual_too')`);
      const [events, rows] = await bothLooks("insert into virtual_too values (21)", "virtual_too");
      expect(rows).toEqual(events);
      expect(rows[0]?.after).toBe('{"id":21}');
    });
  }
});
