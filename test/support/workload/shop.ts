import type pg from "pg";

/** Watched tables of the workload, in the order in which a well-behaved transaction locks them. */
export const shopTables = ["orders", "parts"] as const;
export type ShopTable = (typeof shopTables)[number];

/** Topic of the writers' own events. */
export const notesTopic = "notes";

/** Where private rows of long transactions begin: nobody else touches them. */
export const privateKeys = 1000;

/**
 * Creates what the workload writes and watches the two tables.
 *
 * `grave` remembers per key which life ended last, so that whoever begins the next knows its place; all its rows are there
 * from the start, so that a transaction with an old snapshot fails on them instead of reading what is no longer true.
 * `truth` holds one row per committed transaction, written inside it: it answers for those whose COMMIT was never
 * acknowledged.
 */
export async function createShop(client: pg.ClientBase, keys: number): Promise<void> {
  for (const table of shopTables) {
    await client.query(
      `create table ${table} (id int primary key, life text not null, counter bigint not null, padding text)`,
    );
    await client.query(`select millrace.watch('${table}')`);
  }
  await client.query(`
    create table grave (tbl text, id int, life text, primary key (tbl, id));
    create table truth (writer int, number int, primary key (writer, number));
    insert into grave select tbl, id, null from unnest(array['orders', 'parts']) tbl,
      (select generate_series(1, ${keys}) union select generate_series(${privateKeys}, ${privateKeys + 99})) ids (id)`);
}

/** The rows of the watched tables as JSON text, by topic and key. Not by the code under test: Postgres' own `to_json`. */
export async function readTables(client: pg.ClientBase): Promise<ReadonlyMap<string, ReadonlyMap<string, string>>> {
  const tables = new Map<string, ReadonlyMap<string, string>>();
  for (const table of shopTables) {
    const { rows } = await client.query<{ key: string; image: string }>(
      `select id::text as key, to_json(t)::text as image from ${table} t`,
    );
    tables.set(table, new Map(rows.map(({ key, image }) => [key, image])));
  }
  return tables;
}
