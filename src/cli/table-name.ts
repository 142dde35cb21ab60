import type pg from "pg";
import { FeedError } from "../core/errors.ts";
import { nearNames } from "../core/near-names.ts";
import { sqlStateOf } from "../postgres/database-error.ts";

/** Throws, with the names that may have been meant, unless there is a table of this name, written as in SQL. */
export async function assertTable(client: pg.ClientBase, name: string): Promise<void> {
  const rows = await candidates(client, name);
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

interface Candidate {
  readonly name: string;
  readonly exists: boolean;
}

async function candidates(client: pg.ClientBase, name: string): Promise<readonly Candidate[]> {
  const found = client.query<Candidate>(
    `select pg_catalog.format('%I.%I', n.nspname, c.relname) as name,
       c.oid = pg_catalog.to_regclass($1)::oid is true as "exists"
     from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
     where c.oid = pg_catalog.to_regclass($1)::oid
       or c.relkind in ('r', 'p') and n.nspname !~ '^(pg_|information_schema$|millrace$)'`,
    [name],
  );
  try {
    return (await found).rows;
  } catch (error) {
    // A name that is not one (42601, 42602), or another database's (0A000).
    if (/^(42[^5]|0A)/.test(sqlStateOf(error) ?? "")) return [];
    throw error;
  }
}
