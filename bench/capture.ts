// What capture costs the statement that is captured: INSERT, UPDATE and DELETE of 1 to 100,000 rows, watched over unwatched.
// Beside the row triggers that Millrace has: the same deferred (strict), and statement triggers with transition tables, which
// it has not, at their barest: no key that changes, no drift, no size limit.
import type pg from "pg";
import { Bed, conditions, pin } from "./bed.ts";
import { benchOptions, type Measurement, percentile, report } from "./report.ts";

const { seconds } = benchOptions(60);

/** Rows of a statement, and how often it is run on each table for a run of 60 s. */
const sizes = [
  { rows: 1, times: 600 },
  { rows: 10, times: 300 },
  { rows: 1000, times: 20 },
  { rows: 100_000, times: 2 },
] as const;

const kinds = ["unwatched", "watched", "strict", "statement", "excluding", "enums"] as const;
type Kind = (typeof kinds)[number];

const operations = ["insert", "update", "delete"] as const;
type Operation = (typeof operations)[number];

const labels: Readonly<Record<Exclude<Kind, "unwatched">, string>> = {
  watched: "row triggers",
  strict: "row triggers, strict",
  statement: "statement triggers (not offered)",
  excluding: "row triggers, a column excluded",
  enums: "row triggers, an enum among the columns",
};

await using bed = await Bed.open();
await pin(bed.cluster.postmasterPid, 0);
const client = await bed.connection();
for (const kind of kinds) await prepare(kind);
// The log's flush at commit is the same for all and hides what is measured here.
await client.query("set synchronous_commit = off");

const times = new Map<string, number[]>();
for (const { rows, times: full } of sizes) {
  const count = Math.max(2, Math.round((full * seconds) / 60));
  for (let turn = 0; turn < count; turn += 1) {
    // Each turn in the other order: what fills up is then nobody's advantage.
    for (const kind of turn % 2 === 0 ? kinds : kinds.toReversed()) await measure(client, kind, rows);
    if (rows * turn > 50_000 || turn === count - 1) await client.query("truncate millrace.outbox; checkpoint");
  }
}
report(
  "capture",
  lines(),
  `median of statements in transactions of their own, 10 columns, synchronous_commit off; ${conditions}`,
);

function lines(): readonly Measurement[] {
  return sizes.flatMap(({ rows }) =>
    operations.flatMap((operation) =>
      kinds.flatMap((kind) => (kind === "unwatched" ? [] : [line(kind, operation, rows)])),
    ),
  );
}

function line(kind: Exclude<Kind, "unwatched">, operation: Operation, rows: number): Measurement {
  return {
    what: `${operation.toUpperCase()} of ${rows.toLocaleString("en")} rows, ${labels[kind]}`,
    value: median(kind, operation, rows),
    unit: "us",
    baseline: { what: "unwatched", value: median("unwatched", operation, rows) },
  };
}

function median(kind: Kind, operation: Operation, rows: number): number {
  return percentile(times.get(`${kind} ${operation} ${rows}`) ?? [], 0.5);
}

async function measure(on: pg.Client, kind: Kind, rows: number): Promise<void> {
  const statements: Readonly<Record<Operation, string>> = {
    insert: `insert into ${kind} (id, a, b, c) select n, 'name ' || n, n, 'a' from generate_series(1, ${rows}) n`,
    update: `update ${kind} set b = b + 1, e = 'changed' where id <= ${rows}`,
    delete: `delete from ${kind} where id <= ${rows}`,
  };
  for (const operation of operations) {
    const start = performance.now();
    await on.query(statements[operation]);
    const key = `${kind} ${operation} ${rows}`;
    times.set(key, [...(times.get(key) ?? []), (performance.now() - start) * 1000]);
  }
  if (rows >= 1000) await on.query(`vacuum ${kind}`);
}

async function prepare(kind: Kind): Promise<void> {
  const type = kind === "enums" ? "letter" : "text";
  await bed.sql("create type letter as enum ('a', 'b')").catch(() => []);
  await bed.sql(`create table ${kind} (id int primary key, a text, b bigint, c ${type}, d numeric default 12.50,
    e text default 'as it was', f boolean default true, g uuid default gen_random_uuid(), h timestamptz default now(),
    i jsonb default '{"some": ["more", "of", "it"]}')`);
  const settings: Partial<Record<Kind, string>> = {
    watched: "",
    strict: ", capture => 'strict'",
    excluding: ", exclude => '{a}'",
    enums: "",
  };
  if (settings[kind] !== undefined) await bed.sql(`select millrace.watch('${kind}'${settings[kind]})`);
  if (kind === "statement") await prepareStatementTriggers();
}

async function prepareStatementTriggers(): Promise<void> {
  const pinned = `language plpgsql security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC'
    set datestyle = 'ISO, YMD' set intervalstyle = 'iso_8601' set bytea_output = 'hex' set extra_float_digits = 1`;
  const write = "insert into millrace.outbox (topic, key, operation, before, after, source_id) select 'statement',";
  const bodies: Readonly<Record<Operation, readonly [transition: string, body: string]>> = {
    insert: ["new table as n", `${write} n.id::text, 'I', null, row_to_json(n), 1 from n`],
    update: [
      "old table as o new table as n",
      `${write} n.id::text, 'U', row_to_json(o), row_to_json(n), 1 from n join o on o.id = n.id`,
    ],
    delete: ["old table as o", `${write} o.id::text, 'D', row_to_json(o), null, 1 from o`],
  };
  for (const operation of operations) {
    const [transition, body] = bodies[operation];
    await bed.sql(
      `create function statement_${operation}() returns trigger ${pinned} as $$ begin ${body}; return null; end $$`,
    );
    await bed.sql(`create trigger ${operation} after ${operation} on statement referencing ${transition}
      for each statement execute function statement_${operation}()`);
  }
}
