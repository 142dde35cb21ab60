import pg from "pg";
import type { Event } from "../../../src/core/event.ts";
import type { SnapshotReader } from "../../../src/core/ports.ts";
import { migrate } from "../../../src/postgres/migrate.ts";
import { openSnapshot, type SnapshotOptions } from "../../../src/postgres/snapshot/snapshot.ts";
import { tickTransaction } from "../../../src/postgres/statements/tick.ts";
import { sharedCluster, type TestCluster } from "../../support/cluster.ts";

/** A migrated database of a test's own. */
export interface FeedDatabase extends AsyncDisposable {
  readonly cluster: TestCluster;
  readonly url: string;
  readonly name: string;
  readonly epoch: string;
  /** As superuser, with room for many sessions. */
  readonly pool: pg.Pool;
  sql<R extends pg.QueryResultRow>(text: string, values?: readonly unknown[]): Promise<readonly R[]>;
  /** Another session, ended with the database. */
  session(): Promise<pg.Client>;
  /** A pool of another role, ended with the database. */
  poolAs(role: string, max?: number): pg.Pool;
  tick(): Promise<void>;
  snapshot(options?: SnapshotOptions, signal?: AbortSignal): Promise<SnapshotReader>;
}

/** Nothing ever aborts. */
export const forever = new AbortController().signal;

export async function createFeedDatabase(cluster?: TestCluster): Promise<FeedDatabase> {
  const home = cluster ?? (await sharedCluster());
  const url = await home.createDatabase();
  const name = new URL(url).pathname.slice(1);
  await migrate(url);
  const pool = poolOf(url, 40);
  const others: pg.Pool[] = [];
  const clients: pg.Client[] = [];
  const sql = async <R extends pg.QueryResultRow>(text: string, values: readonly unknown[] = []) =>
    (await pool.query<R>(text, [...values])).rows;
  const [found] = await sql<{ id: string }>("select id from millrace.epoch");
  const epoch = found?.id ?? "";
  return {
    cluster: home,
    url,
    name,
    epoch,
    pool,
    sql,
    session: async () => {
      const client = new pg.Client({ connectionString: url });
      clients.push(client);
      await client.connect();
      return client;
    },
    poolAs: (role, max = 4) => {
      const other = poolOf(home.url(name, role), max);
      others.push(other);
      return other;
    },
    tick: async () => {
      await pool.query(tickTransaction(epoch, { lockTimeoutMs: 5000, statementTimeoutMs: 5000 }));
    },
    snapshot: (options = {}, signal = forever) =>
      openSnapshot(pool, epoch, { wantsSource: () => true }, options, signal),
    [Symbol.asyncDispose]: async () => {
      for (const client of clients) await client.end().catch(() => undefined);
      for (const other of [...others, pool]) await other.end();
    },
  };
}

function poolOf(connectionString: string, max: number): pg.Pool {
  const pool = new pg.Pool({ connectionString, max });
  pool.on("error", () => undefined);
  return pool;
}

/** Reads a snapshot to its end and closes it. */
export async function readAll(reader: SnapshotReader): Promise<readonly Event[]> {
  const rows: Event[] = [];
  try {
    for await (const batch of reader.rows()) rows.push(...batch.events);
  } finally {
    await reader.close();
  }
  return rows;
}
