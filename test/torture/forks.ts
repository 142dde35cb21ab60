import { execFile } from "node:child_process";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { createCluster, debian15Available, type TestCluster } from "../support/cluster.ts";
import { coldCopy, query, standby, templateCopy } from "../support/restores.ts";

/** Ways in which a database becomes another one. */
export const forks = ["roll back", "copy by template", "fail over", "dump and restore"] as const;
/** One of them. */
export type Fork = (typeof forks)[number];

/** Where the database is. */
export interface Place {
  readonly cluster: TestCluster;
  readonly url: string;
}

/** Those that this cluster can go through. */
export function possibleForks(postgres15: boolean): readonly Fork[] {
  const everywhere: readonly Fork[] = ["roll back", "copy by template"];
  return postgres15 && debian15Available() ? forks : everywhere;
}

const run = promisify(execFile);
const programs = "/usr/lib/postgresql/15/bin";

/**
 * Copies the database `torture` as it is; the result puts the copy in its place and says where that is. What was committed
 * meanwhile is undone, and clients have seen it.
 */
export async function copyNow(fork: Fork, { cluster, url }: Place): Promise<() => Promise<Place>> {
  const here = { cluster, url };
  switch (fork) {
    case "roll back": {
      const replace = await coldCopy(cluster);
      return () => replace().then(() => here);
    }
    case "copy by template": {
      const replace = await templateCopy(cluster, "torture");
      return () => replace().then(() => here);
    }
    case "fail over": {
      const replace = await standby(cluster);
      return async () => {
        await replace();
        await query(url, "select pg_promote()");
        return here;
      };
    }
    case "dump and restore":
      return await dump(here);
  }
}

/** Into a new cluster, where transaction ids begin anew. */
async function dump({ cluster, url }: Place): Promise<() => Promise<Place>> {
  const file = `${cluster.dataDir}.sql`;
  const roles = `${cluster.dataDir}.roles.sql`;
  await run(join(programs, "pg_dumpall"), ["--roles-only", "-d", cluster.url(), "-f", roles]);
  await run(join(programs, "pg_dump"), ["-d", url, "-f", file]);
  return async () => {
    const restored = await createCluster({ binaries: "debian-15" });
    const into = await restored.createDatabase("torture");
    const psql = (database: string, script: string) =>
      run(join(programs, "psql"), ["-X", "-q", "-d", database, "-f", script], { maxBuffer: 1 << 26 });
    await psql(restored.url(), roles);
    await psql(into, file);
    await rm(file);
    return { cluster: restored, url: into };
  };
}
