import { readFile } from "node:fs/promises";
import pg from "pg";

/** The shop's tables and the topics that they are watched as. */
export const shopTables = [
  { name: "customers", topic: "customers" },
  { name: "orders", topic: "orders.{region}" },
] as const;

/**
 * Makes the shop's tables in this schema and watches them. What is there already stays as it is: a shop goes on where it
 * was. Needs the schema `millrace`, and a role that may create tables.
 *
 * @throws pg.DatabaseError when the role may not, or a table of that name is not the shop's.
 */
export async function openShop(client: pg.ClientBase, schema: string): Promise<void> {
  const tables = await readFile(new URL("./shop.sql", import.meta.url), "utf8");
  const name = pg.escapeIdentifier(schema);
  if (schema !== "public") await client.query(`create schema if not exists ${name}`);
  await client.query(`set search_path = ${name}`);
  // As one statement string it is one transaction.
  await client.query(tables);
  for (const table of shopTables) {
    await client.query(
      `select millrace.watch(t.relid, topic => $2)
       from (select to_regclass($1) as relid) t
       where not exists (select from millrace.source s where s.relid = t.relid)`,
      [`${name}.${table.name}`, table.topic],
    );
  }
}
