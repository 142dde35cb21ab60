import { describe, expect, it } from "vitest";
import { servers, WatchedDatabase } from "./watched-database.ts";

/** Type, an expression of it, and the JSON that must arrive: every digit, every character. */
const values: readonly (readonly [type: string, expression: string, json: string])[] = [
  ["smallint", "-32768", "-32768"],
  ["integer", "2147483647", "2147483647"],
  ["bigint", "9223372036854775807", "9223372036854775807"],
  ["bigint", "-9223372036854775808", "-9223372036854775808"],
  [
    "numeric",
    `${"1234567890".repeat(10)}.${"0987654321".repeat(10)}`,
    `${"1234567890".repeat(10)}.${"0987654321".repeat(10)}`,
  ],
  ["numeric", "1e400", `1${"0".repeat(400)}`],
  ["numeric", "'NaN'", '"NaN"'],
  ["numeric(10,4)", "1.5", "1.5000"],
  ["real", "'3.4028235e38'", "3.4028235e+38"],
  ["double precision", "'1.7976931348623157e308'", "1.7976931348623157e+308"],
  ["double precision", "'5e-324'", "5e-324"],
  ["double precision", "0.1::float8 + 0.2::float8", "0.30000000000000004"],
  ["double precision", "'-Infinity'", '"-Infinity"'],
  ["boolean", "true", "true"],
  ["text", "null", "null"],
  ["text", "''", '""'],
  [
    "text",
    `E'quote " back \\\\ slash / tab \\t line \\n bell \\x07'`,
    '"quote \\" back \\\\ slash / tab \\t line \\n bell \\u0007"',
  ],
  ["text", "'zażółć 漢字 👩‍🚀 \u2028 ­'", '"zażółć 漢字 👩‍🚀 \u2028 ­"'],
  ["text", "repeat('é', 524288)", `"${"é".repeat(524288)}"`],
  ["varchar(5)", "'abc'", '"abc"'],
  ["char(5)", "'abc'", '"abc  "'],
  ["bytea", "'\\x00ff5c75'", '"\\\\x00ff5c75"'],
  ["uuid", "'00000000-0000-4000-8000-00000000000f'", '"00000000-0000-4000-8000-00000000000f"'],
  ["date", "'4713-01-01 BC'", '"4713-01-01 BC"'],
  ["date", "'infinity'", '"infinity"'],
  ["time", "'24:00:00'", '"24:00:00"'],
  ["timetz", "'12:34:56.789012+05:30'", '"12:34:56.789012+05:30"'],
  ["timestamp", "'294276-12-31 23:59:59.999999'", '"294276-12-31T23:59:59.999999"'],
  ["timestamptz", "'2024-06-30 23:59:59.123456+02'", '"2024-06-30T21:59:59.123456+00:00"'],
  ["timestamptz", "'-infinity'", '"-infinity"'],
  ["interval", "'-1 year 2 mons -3 days 04:05:06.789'", '"P-10M-3DT4H5M6.789S"'],
  ["inet", "'2001:db8::1/64'", '"2001:db8::1/64"'],
  ["cidr", "'10.0.0.0/8'", '"10.0.0.0/8"'],
  ["macaddr8", "'08:00:2b:01:02:03:04:05'", '"08:00:2b:01:02:03:04:05"'],
  ["money", "1234.5", '"$1,234.50"'],
  ["bit(4)", "b'1010'", '"1010"'],
  ["varbit", "b'10101'", '"10101"'],
  ["point", "'(0.1,-1e300)'", '"(0.1,-1e+300)"'],
  ["polygon", "'((0,0),(1,1),(1,0))'", '"((0,0),(1,1),(1,0))"'],
  ["tsvector", "'fat:1A cat:2'", `"'cat':2 'fat':1A"`],
  ["tsquery", "'fat & cat'", `"'fat' & 'cat'"`],
  ["xid8", "'18446744073709551615'", '"18446744073709551615"'],
  ["pg_lsn", "'16/B374D848'", '"16/B374D848"'],
  ["regclass", "'public.things'", '"public.things"'],
  ["jsonpath", "'$.a[*]'", '"$.\\"a\\"[*]"'],
  ["json", `'{"b" :1e1000, "a":"\\u0000\\ud800", "a":2}'`, '{"b" :1e1000, "a":"\\u0000\\ud800", "a":2}'],
  ["json", "'null'", "null"],
  ["jsonb", `'{"b": 12345678901234567890.0, "a": [true, null]}'`, '{"a": [true, null], "b": 12345678901234567890.0}'],
  ["integer[]", "'{1,null,3}'", "[1,null,3]"],
  ["integer[]", "'[0:1][5:6]={{1,2},{3,4}}'", "[[1,2],[3,4]]"],
  ["bigint[]", "'{}'", "[]"],
  ["timestamptz[]", "'{2024-01-01 00:00:00+00}'", '["2024-01-01T00:00:00+00:00"]'],
  ["mood", "'very happy'", '"very happy"'],
  ["positive", "7", "7"],
  [
    "pair",
    "row(9007199254740993, '2024-01-01 02:00+02')",
    '{"n":9007199254740993,"Moment At":"2024-01-01T00:00:00+00:00"}',
  ],
  ["pair[]", "array[row(1, null)::pair]", '[{"n":1,"Moment At":null}]'],
  ["int8range", "'[1,9007199254740993)'", '"[1,9007199254740993)"'],
  ["tstzrange", "'[2024-01-01 02:00+02,)'", '"[\\"2024-01-01 00:00:00+00\\",)"'],
  ["numrange", "'empty'", '"empty"'],
  ["nummultirange", "'{[1.5,2.5),[3,4)}'", '"{[1.5,2.5),[3,4)}"'],
];

/** How a session may be set so that the same row prints otherwise. */
const strange = `
  set timezone = 'Asia/Kathmandu'; set datestyle = 'German'; set intervalstyle = 'sql_standard';
  set bytea_output = 'escape'; set extra_float_digits = -15; set quote_all_identifiers = on;
  set standard_conforming_strings = off; set escape_string_warning = off; set search_path = evil, public, pg_catalog`;

describe.each(servers)("images on $name", ({ cluster }) => {
  it("carry every type with all its digits, whatever the writer's session is set to, as a snapshot does", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create schema evil",
      "create function evil.row_to_json(record) returns json language plpgsql as 'begin return ''{}''; end'",
      "create function evil.octet_length(text) returns int language sql as 'select 1/0'",
      "create type mood as enum ('sad', 'very happy')",
      "create domain positive as integer check (value > 0)",
      'create type pair as (n bigint, "Moment At" timestamptz)',
      `create table things (id bigint primary key, ${values.map(([type], i) => `c${i} ${type}`).join(", ")})`,
      "select millrace.watch('things')",
      `insert into things values (1, ${values.map(([type, expression]) => `(${expression})::${type}`).join(", ")})`,
    );
    const expected = `{"id":1,${values.map(([, , json], i) => `"c${i}":${json}`).join(",")}}`;
    const writer = await database.session();
    await writer.query(strange);
    await writer.query("update public.things set id = id");
    await writer.query("delete from public.things");

    const [inserted, updated, deleted] = await database.written();

    expect(inserted?.after).toBe(expected);
    expect(updated?.before).toBe(expected);
    expect(updated?.after).toBe(expected);
    expect(deleted?.before).toBe(expected);
    expect([inserted?.before, deleted?.after]).toEqual([null, null]);

    await database.run(
      `insert into things values (1, ${values.map(([type, expression]) => `(${expression})::${type}`).join(", ")})`,
    );
    const snapshot = "select millrace.row_image(t, '{}')::text as image from public.things t";
    expect((await database.client.query(snapshot)).rows).toEqual([{ image: expected }]);
    expect((await writer.query(snapshot)).rows).toEqual([{ image: expected }]);
  });

  it("leave out what is excluded, or all but what is included, and keep the bytes of the rest", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    const columns = `id int primary key, "Wide ""Name""" json, secret text, gone int, dull numeric`;
    await database.run(
      `create table without (${columns})`,
      `create table only_some (${columns})`,
      "alter table without drop column gone",
      "alter table only_some drop column gone",
      "select millrace.watch('without', exclude => '{secret}')",
      `select millrace.watch('only_some', include => array['Wide "Name"', 'dull'])`,
    );
    // A plain row, and one with escapes that Postgres' own JSON operators refuse.
    for (const json of [`{"a":  1.50}`, `{"a":  "\\u0000 \\ud800"}`]) {
      for (const table of ["without", "only_some"]) {
        await database.clear();
        await database.client.query(`insert into ${table} values (1, $1, 'top secret \\u', 1e30)`, [json]);
        await database.run(`alter table ${table} add column later int default 7`, `update ${table} set secret = 'x'`);
        const member = `"Wide \\"Name\\"":${json},`;
        const digits = "1000000000000000000000000000000";
        const first = `{"id":1,${member}"dull":${digits}}`;
        const then = table === "without" ? `{"id":1,${member}"dull":${digits},"later":7}` : first;
        expect(await database.written()).toMatchObject([
          { operation: "I", key: "1", after: first, headers: null },
          { operation: "U", key: "1", before: then, after: then, headers: null },
        ]);
        const source = `select millrace.row_image(t, s.excluded_columns, s.included_columns)::text
          from ${table} t, millrace.source s where s.relid = '${table}'::regclass`;
        expect(await database.value(source)).toBe(then);
        await database.run(`alter table ${table} drop column later`, `delete from ${table}`);
      }
    }
  });

  it("leave out the old row where before-values are off, and still see the key change", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (id int primary key, v text)",
      "select millrace.watch('t', before_values => false)",
      "insert into t values (1, 'a')",
      "update t set v = 'b'",
      "update t set id = 2",
      "delete from t",
    );
    expect(
      (await database.written()).map(({ operation, key, before, after }) => [operation, key, before, after]),
    ).toEqual([
      ["I", "1", null, '{"id":1,"v":"a"}'],
      ["U", "1", null, '{"id":1,"v":"b"}'],
      ["D", "1", null, null],
      ["I", "2", null, '{"id":2,"v":"b"}'],
      ["D", "2", null, null],
    ]);
  });

  it("refuse a row over 64 MiB with what to do, and take it once its column is excluded", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run("create table t (id int primary key, blob text)", "select millrace.watch('t')");
    await expect(database.run("insert into t values (1, repeat('x', 67108864))")).rejects.toMatchObject({
      code: "54000",
      message: "a row of public.t is too large to capture: 67108882 bytes of JSON",
    });
    await database.run(
      "select millrace.watch('t', exclude => '{blob}')",
      "insert into t values (1, repeat('x', 67108864))",
    );
    expect((await database.written()).at(-1)).toMatchObject({ operation: "I", after: '{"id":1}' });
  });
});

describe.each(servers)("images of a table that is altered on $name", ({ cluster }) => {
  it("are built the quick way again by the transaction that altered it, and as before if that rolls back", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    const text = () =>
      database.value<string>("select prosrc from pg_proc where proname = 'capture_' || 't'::regclass::oid");
    await database.run(
      "create type mood as enum ('sad', 'glad')",
      "create table t (id int primary key, v text, secret text)",
      "select millrace.watch('t', exclude => '{secret}')",
      "insert into t select n, 'v' from generate_series(1, 3) n",
      "truncate millrace.outbox",
    );
    const before = await text();
    await database.run("begin; alter table t add column m mood default 'glad', drop column v; update t set m = 'sad'");
    expect(await text()).toContain("new.m");
    await database.run("rollback");
    expect(await text()).toBe(before);
    await database.run("update t set v = 'w' where id = 1", "alter table t add column m mood default 'glad'");
    await database.run("update t set v = 'x' where id = 2");
    // Committed by another transaction: a server writes it again, no writer.
    expect(await text()).toBe(before);
    await database.run("begin; alter table t drop column v; update t set m = 'sad'; commit");
    expect(await text()).not.toBe(before);
    expect((await database.written()).map(({ after }) => after)).toEqual([
      ...['{"id":1,"v":"w"}', '{"id":2,"v":"x","m":"glad"}'],
      ...['{"id":3,"m":"sad"}', '{"id":1,"m":"sad"}', '{"id":2,"m":"sad"}'],
    ]);
  });

  it("keep the key of what a transaction writes that is older than a change of a composite type", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create type pair as (a int, b int); create table t (id int primary key, p pair, region text)",
      "select millrace.watch('t', topic => 't.{region}')",
      "insert into t values (1, row(1, 2), 'eu')",
    );
    const older = await database.session();
    await older.query("begin isolation level repeatable read; select count(*) from pg_class");
    await database.run("alter type pair add attribute c int");
    await older.query("update t set p = row(3, 4, 5); commit");
    expect((await database.written()).filter(({ operation }) => operation === "U")).toMatchObject([
      { topic: "t.eu", key: "1", after: '{"id":1,"region":"eu"}', headers: expect.stringContaining("millrace-drift") },
    ]);
  });
});

describe("images of virtual generated columns", () => {
  it("do not have them, neither in events nor in snapshots", async () => {
    const [embedded] = servers;
    if (embedded === undefined) throw new Error("no server");
    await using database = await WatchedDatabase.create(await embedded.cluster());
    await database.run(
      "create table t (id int primary key, twice int generated always as (id * 2) virtual, s int generated always as (id * 3) stored)",
      "select millrace.watch('t')",
      "insert into t values (4)",
    );
    expect(await database.written()).toMatchObject([{ after: '{"id":4,"s":12}', headers: null }]);
    expect(
      await database.value("select millrace.row_image(t, s.excluded_columns)::text from t, millrace.source s"),
    ).toBe('{"id":4,"s":12}');
  });
});
