import { readFile } from "node:fs/promises";
import pg from "pg";
import { shippedMigrations } from "../../../src/postgres/migration-files.ts";

/** A database that a Millrace of `number` migrations has left. */
export async function createOldSchema(url: string, number: number): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    const prepare = new URL("../../../src/postgres/statements/prepare_schema.sql", import.meta.url);
    await client.query("begin; set local search_path = pg_catalog, pg_temp");
    await client.query(await readFile(prepare, "utf8"));
    for (const migration of (await shippedMigrations()).slice(0, number)) {
      await client.query(migration.sql);
      await client.query("insert into millrace.migration (number, name, sha256) values ($1, $2, $3)", [
        migration.number,
        migration.name,
        migration.sha256,
      ]);
    }
    await client.query("commit");
  } finally {
    await client.end();
  }
}
