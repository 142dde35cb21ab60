import pg from "pg";
import { migrate } from "../../src/postgres/migrate.ts";
import { createPostgresStore, type PostgresStore } from "../../src/postgres/store.ts";
import { createCluster, sharedCluster, type TestCluster } from "../support/cluster.ts";
import type { ContractHarness, World, WorldOptions, Writer } from "./harness.ts";

/** The Postgres adapter under contract, on a real server. Retention is not something that it has. */
export const postgresHarness: ContractHarness = {
  capabilities: new Set(["two_phase", "outage", "restore"]),
  open: openWorld,
};

const SCHEMA = `
  create table orders (id text primary key, n int);
  create table returns (id text primary key, n int);
  create table parcels (id text primary key, region text not null, n int);
  select millrace.watch('orders');
  select millrace.watch('parcels', topic => 'parcels.{region}');`;

async function openWorld(options: WorldOptions = {}): Promise<World> {
  const own = options.outage === true ? await createCluster() : undefined;
  const cluster = own ?? (await sharedCluster());
  const url = await cluster.createDatabase();
  await migrate(url);
  const world = new PostgresWorld(url, options);
  let admin = await world.connect();
  await admin.query(SCHEMA);
  let store = await world.open();
  return {
    get store() {
      return store;
    },
    replica: async () => {
      const replica = await world.open();
      const { wakeUp, mail, subscriptions } = replica;
      return { store: replica, wakeUp, mail, subscriptions };
    },
    writer: async () => new PostgresWriter(await world.connect(), world.name),
    commitPrepared: async (name) => {
      await admin.query(`commit prepared '${world.name}-${name}'`);
    },
    retainFrom: () => Promise.reject(new Error("declared by no capability")),
    watchReturns: async (watched) => {
      await admin.query(watched ? "select millrace.watch('returns')" : "select millrace.unwatch('returns')");
    },
    backup: async () => {
      const putBack = await backUp(cluster, world.name);
      admin = await world.connect();
      return {
        restore: async () => {
          await putBack();
          admin = await world.connect();
          store = await world.open();
        },
      };
    },
    outage: {
      begin: async () => await own?.stop(),
      end: async () => await own?.start(),
    },
    [Symbol.asyncDispose]: async () => {
      await world.close();
      await own?.[Symbol.asyncDispose]();
    },
  };
}

/** Copies a database while nobody is connected to it; the result puts the copy in its place. */
async function backUp(cluster: TestCluster, name: string): Promise<() => Promise<void>> {
  const copy = `${name}_${backups++}`;
  const closed = async (use: (client: pg.Client) => Promise<void>) => {
    const client = new pg.Client({ connectionString: cluster.url() });
    await client.connect();
    try {
      await client.query(`alter database ${name} with allow_connections false`);
      const gone = "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1";
      while (((await client.query(gone, [name])).rowCount ?? 0) > 0);
      await use(client);
    } finally {
      await client.end();
    }
  };
  await closed(async (client) => {
    await client.query(`create database ${copy} template ${name}`);
    await client.query(`alter database ${name} with allow_connections true`);
  });
  return () =>
    closed(async (client) => {
      // Together, so that there is a database of this name at every moment.
      await client.query(`alter database ${name} rename to ${copy}_old; alter database ${copy} rename to ${name}`);
    });
}

let backups = 0;

class PostgresWorld {
  readonly name: string;
  readonly #url: string;
  readonly #options: WorldOptions;
  readonly #clients: pg.Client[] = [];
  readonly #stores: PostgresStore[] = [];

  constructor(url: string, options: WorldOptions) {
    this.#url = url;
    this.#options = options;
    this.name = new URL(url).pathname.slice(1);
  }

  async connect(): Promise<pg.Client> {
    const client = new pg.Client({ connectionString: this.#url });
    // A server that goes away says so to every connection, also to one that waits for nothing.
    client.on("error", () => undefined);
    await client.connect();
    this.#clients.push(client);
    return client;
  }

  async open(): Promise<PostgresStore> {
    const maxEvents = this.#options.pageEvents;
    const store = createPostgresStore({
      url: this.#url,
      mailTimeoutMs: 1_000,
      pages: maxEvents === undefined ? undefined : { maxRows: maxEvents },
    });
    await store.start(new AbortController().signal);
    this.#stores.push(store);
    return store;
  }

  async close(): Promise<void> {
    await Promise.all(this.#stores.map((store) => store.stop()));
    await Promise.all(this.#clients.map((client) => client.end()));
  }
}

class PostgresWriter implements Writer {
  readonly #client: pg.Client;
  readonly #name: string;

  constructor(client: pg.Client, name: string) {
    this.#client = client;
    this.#name = name;
  }

  async begin(): Promise<void> {
    await this.#client.query("begin");
  }

  async xid(): Promise<string> {
    const { rows } = await this.#client.query<{ xid: string }>("select pg_current_xact_id()::text as xid");
    return rows[0]?.xid ?? "";
  }

  async emit(topic: string, key: string | undefined, n: number): Promise<void> {
    await this.#client.query("select millrace.emit($1, $2, json_build_object('n', $3::int))", [topic, key, n]);
  }

  async put(topic: string, key: string, n: number): Promise<void> {
    const [table, region] = topic.split(".");
    if (table !== "parcels") {
      const upsert = `insert into ${table} values ($1, $2) on conflict (id) do update set n = excluded.n`;
      await this.#client.query(upsert, [key, n]);
    } else {
      const upsert = `insert into parcels values ($1, $2, $3)
        on conflict (id) do update set region = excluded.region, n = excluded.n`;
      await this.#client.query(upsert, [key, region, n]);
    }
  }

  async remove(topic: string, key: string): Promise<void> {
    const table = topic === "orders" ? "orders" : "parcels";
    await this.#client.query(`delete from ${table} where id = $1`, [key]);
  }

  async truncate(source: string): Promise<void> {
    await this.#client.query(`truncate ${source === "orders" ? "orders" : "parcels"}`);
  }

  async commit(): Promise<void> {
    await this.#client.query("commit");
  }

  async rollback(): Promise<void> {
    await this.#client.query("rollback");
  }

  async prepare(name: string): Promise<void> {
    await this.#client.query(`prepare transaction '${this.#name}-${name}'`);
  }
}
