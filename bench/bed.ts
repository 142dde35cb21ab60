import { execFile, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { promisify } from "node:util";
import pg from "pg";
import { migrate } from "../src/postgres/migrate.ts";
import { createCluster, type TestCluster } from "../test/support/cluster.ts";
import { type ServerProcess, startServerProcess } from "../test/support/server-process.ts";

const run = promisify(execFile);

/** As a production server would be set, but for its size. */
const settings = {
  fsync: "on",
  synchronous_commit: "on",
  full_page_writes: "on",
  shared_buffers: "512MB",
  max_wal_size: "4GB",
  checkpoint_timeout: "15min",
  max_prepared_transactions: "0",
  max_connections: "200",
} as const;

/** For reports. */
export const conditions =
  "embedded Postgres with fsync, synchronous_commit and full_page_writes on; all on one machine, over loopback";

const pgbench = "/usr/bin/pgbench";

/** A fresh Postgres with a migrated database, and what a benchmark starts on it. */
export class Bed implements AsyncDisposable {
  readonly cluster: TestCluster;
  readonly url: string;
  readonly #things = new AsyncDisposableStack();

  private constructor(cluster: TestCluster, url: string) {
    this.cluster = cluster;
    this.url = url;
    this.#things.use(cluster);
  }

  static async open(more: Readonly<Record<string, string>> = {}): Promise<Bed> {
    const cluster = await createCluster({ settings: { ...settings, ...more } });
    const bed = new Bed(cluster, await cluster.createDatabase("bench"));
    await migrate(bed.url);
    return bed;
  }

  /** `cpu` pins it to one core where `taskset` is installed. With BENCH_CPU_PROF it leaves a profile in that directory. */
  async server(options: { readonly cpu?: number } = {}): Promise<ServerProcess> {
    const directory = process.env.BENCH_CPU_PROF;
    const profiling = directory === undefined ? [] : ["--cpu-prof", `--cpu-prof-dir=${directory}`];
    const server = this.#things.use(await startServerProcess({ databaseUrl: this.url }, profiling));
    if (directory !== undefined) this.#things.defer(async () => void (await server.terminate()));
    if (options.cpu !== undefined) await pin(server.pid, options.cpu);
    return server;
  }

  /** A connection that is closed with the bed. */
  async connection(): Promise<pg.Client> {
    const client = new pg.Client({ connectionString: this.url });
    client.on("error", () => {});
    await client.connect();
    this.#things.defer(() => client.end());
    return client;
  }

  async sql<T extends object>(text: string, values: readonly unknown[] = []): Promise<readonly T[]> {
    const client = new pg.Client({ connectionString: this.url });
    await client.connect();
    try {
      return (await client.query<T>(text, [...values])).rows;
    } finally {
      await client.end();
    }
  }

  /** Runs pgbench against the bed's database and returns what it prints. Ends with it. */
  async pgbench(args: readonly string[]): Promise<string> {
    requirePgbench();
    const child = spawn(pgbench, [...args, this.url], { stdio: ["ignore", "pipe", "pipe"] });
    let text = "";
    child.stdout.on("data", (chunk) => (text += String(chunk)));
    child.stderr.on("data", (chunk) => (text += String(chunk)));
    const code = await new Promise<number | null>((resolve, reject) => {
      child.once("error", reject);
      child.once("exit", resolve);
    });
    if (code !== 0) throw new Error(`pgbench ${args.join(" ")} failed:\n${text}`);
    return text;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#things.disposeAsync();
  }
}

/** Says what to install when Debian's pgbench is not there. */
export function requirePgbench(): void {
  if (!existsSync(pgbench)) throw new Error(`${pgbench} is missing: install Debian's package postgresql.`);
}

/** `tps = 1234.5 (without …)` out of what pgbench prints. */
export function tpsOf(text: string): number {
  return Number(/^tps = ([\d.]+)/m.exec(text)?.[1] ?? Number.NaN);
}

/** Pins a process with all its threads and children to one core; does nothing where `taskset` is not installed. */
export async function pin(pid: number, cpu: number): Promise<void> {
  await run("taskset", ["-acp", String(cpu), String(pid)]).catch(() => {});
}
