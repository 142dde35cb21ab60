import { execFile } from "node:child_process";
import { chown, readdir, rename, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import pg from "pg";
import type { TestCluster } from "./cluster.ts";
import { until } from "./deadline.ts";

const run = promisify(execFile);

/** Connects, asks, hangs up. */
export async function query(url: string, sql: string, values: readonly unknown[] = []): Promise<readonly unknown[][]> {
  const client = new pg.Client({ connectionString: url });
  client.on("error", () => undefined);
  await client.connect();
  try {
    const { rows } = await client.query<unknown[]>({ text: sql, values: [...values], rowMode: "array" });
    return rows;
  } finally {
    await client.end();
  }
}

/** Copies the files of a cluster while it is down; the result puts them in the place of the present ones, and starts it. */
export async function coldCopy(cluster: TestCluster): Promise<() => Promise<void>> {
  const copy = `${cluster.dataDir}.copy`;
  await cluster.stop();
  await run("cp", ["-a", cluster.dataDir, copy]);
  await cluster.start();
  return async () => {
    await cluster.stop();
    await rm(cluster.dataDir, { recursive: true });
    await rename(copy, cluster.dataDir);
    await cluster.start();
  };
}

/**
 * Takes a base backup, as of now. The result kills the primary and starts the backup in its place, on its port, as a standby
 * that knows nothing of what came after.
 */
export async function standby(cluster: TestCluster): Promise<() => Promise<void>> {
  const backup = `${cluster.dataDir}.standby`;
  const program = "/usr/lib/postgresql/15/bin/pg_basebackup";
  await run(program, ["-h", "127.0.0.1", "-p", String(cluster.port), "-U", "postgres", "-D", backup, "-c", "fast"]);
  await writeFile(join(backup, "standby.signal"), "");
  const { uid, gid } = await stat(cluster.dataDir);
  for (const name of await readdir(backup, { recursive: true })) await chown(join(backup, name), uid, gid);
  await chown(backup, uid, gid);
  return async () => {
    await cluster.kill9();
    // Its children write on until they notice.
    await rm(cluster.dataDir, { recursive: true, maxRetries: 50, retryDelay: 20 });
    await rename(backup, cluster.dataDir);
    await cluster.start();
  };
}

/** Dumps a database; the result restores one section of it after the other into whatever has its name by then. */
export async function dump(
  cluster: TestCluster,
  name: string,
): Promise<(section: "pre-data" | "data" | "post-data") => Promise<void>> {
  const file = `${cluster.dataDir}.${name}.dump`;
  await run("/usr/lib/postgresql/15/bin/pg_dump", ["-Fc", "-f", file, cluster.url(name)]);
  return async (section) => {
    await run("/usr/lib/postgresql/15/bin/pg_restore", [`--section=${section}`, "-d", cluster.url(name), file]);
  };
}

/** Copies a database by `CREATE DATABASE ... TEMPLATE`; the result gives the copy the name of the original. */
export async function templateCopy(cluster: TestCluster, name: string): Promise<() => Promise<void>> {
  const copy = `${name}_${copies++}`;
  const closed = async (...statements: string[]) => {
    await query(cluster.url(), `alter database ${name} with allow_connections false`);
    const terminate = "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1";
    await until(
      `nobody is connected to ${name}`,
      async () => (await query(cluster.url(), terminate, [name])).length === 0,
    );
    for (const statement of statements) await query(cluster.url(), statement);
  };
  await closed(`create database ${copy} template ${name}`, `alter database ${name} with allow_connections true`);
  return () => closed(`alter database ${name} rename to ${copy}_replaced; alter database ${copy} rename to ${name}`);
}

let copies = 0;
