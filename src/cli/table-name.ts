import type pg from "pg";
import { exitCode } from "./exit-code.ts";
import { Failure } from "./failure.ts";
import { nearNames } from "./near-names.ts";

/** The oid of a table named as SQL would name it. Fails with the names that may have been meant. */
export async function tableOid(client: pg.ClientBase, name: string): Promise<string> {
  const { rows } = await client.query<{ oid: string | null }>("select to_regclass($1)::oid::text as oid", [name]);
  const oid = rows[0]?.oid ?? undefined;
  if (oid !== undefined) return oid;
  const near = nearNames(name, await tableNames(client));
  throw new Failure(
    "TABLE_NOT_FOUND",
    exitCode.failure,
    `there is no table "${name}" in this database.`,
    near.length === 0
      ? "Name it as SQL would: schema.table, or table if its schema is in the search_path."
      : `Did you mean ${near.join(", ")}?`,
  );
}

async function tableNames(client: pg.ClientBase): Promise<readonly string[]> {
  const { rows } = await client.query<{ name: string }>(
    `select format('%s.%s', quote_ident(n.nspname), quote_ident(c.relname)) as name
     from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
     where c.relkind in ('r', 'p') and n.nspname !~ '^(pg_|information_schema$|millrace$)'`,
  );
  return rows.map(({ name }) => name);
}
