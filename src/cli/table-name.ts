import type pg from "pg";
import { FeedError } from "../core/errors.ts";
import { nearNames } from "./near-names.ts";

/** Throws, with the names that may have been meant, unless there is a table of this name, written as in SQL. */
export async function assertTable(client: pg.ClientBase, name: string): Promise<void> {
  const { rows } = await client.query<{ name: string; exists: boolean }>(
    `select pg_catalog.format('%I.%I', n.nspname, c.relname) as name,
       c.oid = pg_catalog.to_regclass($1)::oid is true as "exists"
     from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
     where c.oid = pg_catalog.to_regclass($1)::oid
       or c.relkind in ('r', 'p') and n.nspname !~ '^(pg_|information_schema$|millrace$)'`,
    [name],
  );
  if (rows.some(({ exists }) => exists)) return;
  const near = nearNames(
    name,
    rows.map((row) => row.name),
  );
  throw new FeedError(
    "INVALID_REQUEST",
    `There is no table "${name}" in this database.`,
    near.length === 0
      ? "Name it as SQL would: schema.table, or table if its schema is in the search_path."
      : `Did you mean ${near.join(" or ")}?`,
  );
}
