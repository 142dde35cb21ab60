import { readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import pg from "pg";
import type { TestCluster } from "../support/cluster.ts";
import { within } from "../support/deadline.ts";
import { createFeedClient } from "../support/recorder/feed-client.ts";
import type { ServerProcess } from "../support/server-process.ts";

/** For each question: who is asked may be what hangs. */
const answerMs = 5000;
const tailCharacters = 3000;

const sessions = `
  select pid, datname, application_name as name, backend_type as type, state, wait_event_type || ':' || wait_event as waits_for,
    pg_blocking_pids(pid) as blocked_by, clock_timestamp() - xact_start as transaction, clock_timestamp() - query_start as statement,
    left(query, 300) as query
  from pg_stat_activity where pid <> pg_backend_pid() and datname is not null order by xact_start`;
const prepared = "select gid, database, clock_timestamp() - prepared as age from pg_prepared_xacts";
const ticks = "select t.* from millrace.tick t order by t.tick desc limit 3";
const epochs = "select e.* from millrace.epoch e";

/** What the sessions of a cluster do and wait for, how far the feed in `url` has come, and what Postgres said last. */
export async function databaseFindings(cluster: TestCluster, url: string): Promise<readonly string[]> {
  const log = join(dirname(cluster.dataDir), "postgres.log");
  return await Promise.all([
    asked("sessions", () => rowsOf(cluster.url(), sessions)),
    asked("prepared transactions", () => rowsOf(cluster.url(), prepared)),
    asked("newest ticks", () => rowsOf(url, ticks)),
    asked("epochs", () => rowsOf(url, epochs)),
    asked("Postgres' log", async () => (await readFile(log, "utf8")).slice(-tailCharacters)),
  ]);
}

/** What a server says of its feed, whether its process runs (T: it is frozen), and what it told last. */
export async function serverFindings(server: ServerProcess): Promise<readonly string[]> {
  const name = `server ${server.pid} on port ${server.port}`;
  return await Promise.all([
    asked(`${name}, process`, async () => {
      const lines = (await readFile(`/proc/${server.pid}/status`, "utf8")).split("\n");
      return lines.filter((line) => line.startsWith("State")).join();
    }),
    asked(`${name}, feed`, () => statusOf(server.port)),
    asked(`${name}, log`, async () => server.log().slice(-tailCharacters)),
  ]);
}

async function asked(what: string, ask: () => Promise<string>): Promise<string> {
  let answer = `no answer within ${answerMs} ms`;
  const asking = ask().then(
    (text) => {
      answer = text;
    },
    (error: unknown) => {
      answer = String(error);
    },
  );
  await within(answerMs, asking);
  return `${what}: ${answer}`;
}

async function rowsOf(url: string, sql: string): Promise<string> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 2000, query_timeout: 2000 });
  client.on("error", () => undefined);
  try {
    await client.connect();
    const { rows } = await client.query<Record<string, unknown>>(sql);
    return rows.map((row) => `\n  ${JSON.stringify(row, (_, value) => (value === null ? undefined : value))}`).join("");
  } finally {
    void client.end().catch(() => undefined);
  }
}

async function statusOf(port: number): Promise<string> {
  const client = createFeedClient(port);
  try {
    const method: unknown = Reflect.get(client, "GetStatus");
    if (typeof method !== "function") throw new Error("The service has no GetStatus.");
    return await new Promise((resolve, reject) => {
      method.call(client, {}, { deadline: Date.now() + 3000 }, (error: unknown, status: unknown) =>
        error === null ? resolve(JSON.stringify(status)) : reject(error),
      );
    });
  } finally {
    client.close();
  }
}
