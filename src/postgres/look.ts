import type pg from "pg";
import { beginLook } from "./statements/look.ts";

/**
 * Lets `use` ask the database in a transaction that only looks: read only, READ COMMITTED whatever the role's defaults, with
 * names resolved in `pg_catalog`, and none of its statements for longer than 5 s. Not within another transaction.
 */
export async function look<T>(client: pg.ClientBase, use: () => Promise<T>): Promise<T> {
  await client.query(beginLook);
  try {
    const seen = await use();
    await client.query("commit");
    return seen;
  } catch (error) {
    // When that fails too, the connection is gone, and the first error says why.
    await client.query("rollback").catch(() => undefined);
    throw error;
  }
}
