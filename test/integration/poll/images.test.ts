import pg from "pg";
import { describe, expect, it } from "vitest";
import { openSnapshot } from "../../../src/postgres/snapshot/snapshot.ts";
import { servers, WatchedDatabase } from "../capture/watched-database.ts";
import { look } from "./polled-database.ts";

const values: readonly (readonly [type: string, expression: string])[] = [
  ["numeric", "1e400"],
  ["double precision", "0.1::float8 + 0.2::float8"],
  ["real", "'3.4028235e38'"],
  ["bytea", "'\\x00ff5c75'"],
  ["timestamptz", "'2024-06-30 23:59:59.123456+02'"],
  ["timestamp", "'294276-12-31 23:59:59.999999'"],
  ["date", "'4713-01-01 BC'"],
  ["interval", "'-1 year 2 mons -3 days 04:05:06.789'"],
  ["money", "1234.5"],
  ["text", "E'quote \" \\\\ \\t \\x07 zażółć 👩‍🚀'"],
  ["char(5)", "'abc'"],
  ["json", `'{"b" :1e1000, "a":"\\u0000\\ud800", "a":2}'`],
  ["jsonb", `'{"b": 12345678901234567890.0, "a": [true, null]}'`],
  ["integer[]", "'[0:1][5:6]={{1,2},{3,4}}'"],
  ["timestamptz[]", "'{2024-01-01 00:00:00+00}'"],
  ["mood", "'very happy'"],
  ["positive", "7"],
  ["pair", "row(9007199254740993, '2024-01-01 02:00+02')"],
  ["pair[]", "array[row(1, null)::pair]"],
  ["tstzrange", "'[2024-01-01 02:00+02,)'"],
  ["xid8", "'18446744073709551615'"],
];

const strange = `
  set timezone = 'Asia/Kathmandu'; set datestyle = 'German'; set intervalstyle = 'sql_standard';
  set bytea_output = 'escape'; set extra_float_digits = -15; set quote_all_identifiers = on;
  set standard_conforming_strings = off; set escape_string_warning = off`;

describe.each(servers)("images of polled rows on $name", ({ cluster }) => {
  it("are, byte by byte, what triggers and snapshots give, whatever the poller's session is set to", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    const columns = values.map(([type], i) => `c${i} ${type}`).join(", ");
    const table = (name: string) =>
      `create table ${name} ("Key" bigint primary key, ${columns}, updated_at timestamptz not null default now())`;
    await database.run(
      "create type mood as enum ('sad', 'very happy')",
      "create domain positive as integer check (value > 0)",
      'create type pair as (n bigint, "Moment At" timestamptz)',
      table("watched"),
      table("polled"),
      "select millrace.watch('watched')",
      "select millrace.poll('polled', 'updated_at')",
    );
    const row = values.map(([type, expression]) => `(${expression})::${type}`).join(", ");
    await database.run(`insert into watched values (1, ${row}, '2037-01-01 00:00:00.000001+00')`);
    await database.run("insert into polled select * from watched", strange);
    expect(await look(database)).toEqual(["U polled 1"]);
    const [watched, polled] = await database.written();
    expect(watched?.after).toContain('"c0":1000');
    expect(polled?.after).toBe(watched?.after);

    const pool = new pg.Pool({ connectionString: database.url, max: 2 });
    const epoch = await database.value<string>("select millrace.assert_epoch()");
    const request = { wantsSource: () => true };
    const reader = await openSnapshot(pool, epoch, request, {}, new AbortController().signal);
    const images: string[] = [];
    for await (const { events } of reader.rows()) {
      images.push(...events.map(({ after }) => Buffer.from(after ?? []).toString()));
    }
    await reader.close();
    await pool.end();
    expect(images).toEqual([watched?.after, watched?.after]);
  });
});
