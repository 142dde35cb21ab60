/**
 * The tables that are tortured. Each row has an `amount`, whose sum over all tables no transaction changes, and a `rev`,
 * drawn anew by a BEFORE trigger with every change: no two versions of any row are alike, so that each event names the
 * one that it follows.
 */
export interface TorturedTable {
  /** As SQL names it. */
  readonly name: string;
  readonly topic: string;
  /** Columns of the key, as SQL names them. */
  readonly key: readonly string[];
  /** Columns besides key, amount and rev, as SQL declares them. */
  readonly columns: string;
  readonly suffix?: string;
  /** A statement for each partition. */
  readonly partitions?: readonly string[];
  /** More arguments of millrace.watch. */
  readonly options?: string;
}

/** Regions that rows live in. */
export const regions = ["eu", "us", "a b", "ß"] as const;

/** Watched from the start, and written to by everybody. */
export const tables: readonly TorturedTable[] = [
  { name: "plain", topic: "plain", key: ["id"], columns: "id bigint primary key" },
  {
    name: "composite",
    topic: "composite",
    key: ["region", "id"],
    columns: "region text not null, id bigint not null, primary key (region, id)",
  },
  {
    name: "parts",
    topic: "parts",
    key: ["region", "id"],
    columns: "region text not null, id bigint not null, primary key (region, id)",
    suffix: "partition by list (region)",
    partitions: [
      "create table parts_eu partition of parts for values in ('eu')",
      "create table parts_rest partition of parts for values in ('us', 'a b') partition by range (id)",
      "create table parts_rest_1 partition of parts_rest for values from (minvalue) to (500)",
      "create table parts_rest_2 partition of parts_rest for values from (500) to (maxvalue)",
      "create table parts_default partition of parts default",
    ],
  },
  {
    name: '"Odd Names"."Upper Case"',
    topic: "odd",
    key: ['"The Id"'],
    columns: '"The Id" bigint primary key, "select" text',
  },
  { name: "parent", topic: "parent", key: ["id"], columns: "id bigint primary key" },
  {
    name: "child",
    topic: "child",
    key: ["id"],
    columns: "id bigint primary key, parent bigint references parent on delete cascade on update cascade deferrable",
  },
  {
    name: "template",
    topic: "template.{region}",
    key: ["id"],
    columns: "id bigint primary key, region text",
  },
];

/** Where each transaction puts what it has taken elsewhere, so that the sum stays. */
export const bank: TorturedTable = { name: "bank", topic: "bank", key: ["id"], columns: "id bigint primary key" };

/** What the amounts of all tables sum up to, always. */
export const total = 0;

/** Rows of the bank. */
export const accounts = 40;

/** Everything, in statements of one transaction each. */
export function createTables(): readonly string[] {
  return [
    'create schema "Odd Names"',
    "create sequence rev",
    "create function draw_rev() returns trigger language plpgsql as $$ begin new.rev := nextval('public.rev'); return new; end $$",
    ...[...tables, bank].flatMap((table) => [
      `create table ${table.name} (${table.columns}, amount int not null default 0, rev bigint, extra text default 'x') ${table.suffix ?? ""}`,
      ...(table.partitions ?? []),
      `create trigger draw_rev before insert or update on ${table.name} for each row execute function draw_rev()`,
      `alter table ${table.name} enable always trigger draw_rev`,
      `select millrace.watch('${table.name}', topic => '${table.topic}'${table.options ?? ""})`,
    ]),
    `insert into bank (id) select generate_series(1, ${accounts})`,
  ];
}
