import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";

/** One numbered step of the schema: a plain SQL file that runs once, inside the transaction of `migrate`. */
export interface Migration {
  /** From 1, without holes. */
  readonly number: number;
  /** File name without its ending: `0001_schema`. */
  readonly name: string;
  /** Of the file's bytes, hexadecimal: a file that changed after it ran is noticed. */
  readonly sha256: string;
  readonly sql: string;
}

const folder = new URL("./migrations/", import.meta.url);

/** The migrations that this Millrace ships, in order. */
export async function shippedMigrations(): Promise<readonly Migration[]> {
  const files = (await readdir(folder)).filter((file) => /^\d{4}_\w+\.sql$/.test(file)).sort();
  return Promise.all(files.map(readMigration));
}

async function readMigration(file: string): Promise<Migration> {
  const sql = await readFile(new URL(file, folder), "utf8");
  return {
    number: Number(file.slice(0, 4)),
    name: file.slice(0, -".sql".length),
    sha256: createHash("sha256").update(sql).digest("hex"),
    sql,
  };
}
