import pg from "pg";
import { migrate } from "../../../src/postgres/migrate.ts";
import { createCluster, debian15Available, sharedCluster, type TestCluster } from "../../support/cluster.ts";

/** A row of the outbox as the tests compare it: images as text, byte by byte. */
export interface Written {
  readonly topic: string;
  readonly key: string | null;
  readonly operation: string;
  readonly before: string | null;
  readonly after: string | null;
  readonly headers: string | null;
  readonly source_id: number | null;
}

/** Which servers the tests run on: the embedded one, and Debian's 15 where it is installed. */
export const servers: readonly { readonly name: string; readonly cluster: () => Promise<TestCluster> }[] = [
  { name: "embedded", cluster: sharedCluster },
  ...(debian15Available() ? [{ name: "debian-15", cluster: sharedDebian }] : []),
];

let debian: Promise<TestCluster> | undefined;

function sharedDebian(): Promise<TestCluster> {
  debian ??= createCluster({ binaries: "debian-15" });
  return debian;
}

/** A migrated database with a superuser's session, and what that session and others need in a test of capture. */
export class WatchedDatabase implements AsyncDisposable {
  readonly url: string;
  readonly cluster: TestCluster;
  readonly client: pg.Client;
  readonly #others: pg.Client[] = [];

  private constructor(url: string, cluster: TestCluster, client: pg.Client) {
    this.url = url;
    this.cluster = cluster;
    this.client = client;
  }

  static async create(cluster: TestCluster): Promise<WatchedDatabase> {
    return WatchedDatabase.open(cluster, await cluster.createDatabase());
  }

  /** Migrates a database that is there. */
  static async open(cluster: TestCluster, url: string): Promise<WatchedDatabase> {
    await migrate(url);
    return new WatchedDatabase(url, cluster, await connected(url));
  }

  /** Another session; as another role when given. */
  async session(user?: string): Promise<pg.Client> {
    const database = new URL(this.url).pathname.slice(1);
    const client = await connected(user === undefined ? this.url : this.cluster.url(database, user));
    this.#others.push(client);
    return client;
  }

  /** Statements without parameters, in this order, each in a transaction of its own. */
  async run(...statements: readonly string[]): Promise<void> {
    for (const statement of statements) await this.client.query(statement);
  }

  /** One value. */
  async value<T>(statement: string, parameters: readonly unknown[] = []): Promise<T> {
    const { rows } = await this.client.query<{ value: T }>(`select (${statement}) as value`, [...parameters]);
    const [row] = rows;
    if (row === undefined) throw new Error("no row");
    return row.value;
  }

  /** What is in the outbox, in the order in which it was written. */
  async written(): Promise<readonly Written[]> {
    const { rows } = await this.client.query<Written>(
      `select topic, key, operation, before::text, after::text, headers::text, source_id
       from millrace.outbox order by seq`,
    );
    return rows;
  }

  async clear(): Promise<void> {
    await this.client.query("truncate millrace.outbox");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#others, this.client].map((client) => client.end()));
  }
}

async function connected(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  return client;
}

/** The SQLSTATE, message and hint that a statement fails with; fails itself when it does not. */
export async function refusal(promise: Promise<unknown>): Promise<{ code: string; message: string; hint: string }> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof pg.DatabaseError) {
      return { code: error.code ?? "", message: error.message, hint: error.hint ?? "" };
    }
    throw error;
  }
  throw new Error("the statement was expected to fail");
}

/** `operation topic key`, the shape of most expectations. */
export function outline(written: readonly Written[]): readonly string[] {
  return written.map(({ operation, topic, key }) => `${operation} ${topic} ${key ?? "-"}`);
}
