import pg from "pg";
import { type WatchedSessions, watchPool } from "./watch/watched-sessions.ts";

/** How a pool or a client of Millrace's reaches the database. */
export interface ConnectionOptions {
  /** As libpq users write it: sslmode, PGPASSFILE and the other PG… variables count. */
  readonly url: string;
  /** How long making a connection may take, in milliseconds. Default 5,000. */
  readonly connectTimeoutMs?: number | undefined;
  /** What it calls itself in pg_stat_activity, unless the URL says otherwise. Default `millrace`. */
  readonly applicationName?: string | undefined;
  /** Whose they are: their leases are watched, and they are named after the part. Default: nobody's. */
  readonly watch?: WatchedSessions | undefined;
}

/**
 * Connections that are made when they are needed. One that breaks while nobody uses it is dropped in silence: whoever asks
 * next gets a new one, or the reason why there is none.
 */
export function createPool(options: ConnectionOptions & { readonly max: number; readonly idleMs: number }): pg.Pool {
  const pool = new pg.Pool({ ...clientConfig(options), max: options.max, idleTimeoutMillis: options.idleMs });
  pool.on("error", () => undefined);
  // The pool looks after errors of idle connections and their holder after those of his own. Between the two, while a
  // connection is handed over, an error that nobody listens to would end the process: a session that is terminated as it
  // opens says so in the very packet that says it is ready.
  pool.on("connect", (client) => client.on("error", () => undefined));
  if (options.watch !== undefined) watchPool(pool, options.watch);
  return pool;
}

/** A connection of its own, not connected yet. */
export function createClient(options: ConnectionOptions): pg.Client {
  return new pg.Client(clientConfig(options));
}

/** A network that swallows would have it wait for ever, in milliseconds. */
const goodbyeMs = 1000;

/** Ends the session in order, and without an answer after a while. Never rejects. */
export async function leaveClient(client: pg.Client): Promise<void> {
  const timer = setTimeout(() => client.connection.stream.destroy(), goodbyeMs);
  try {
    await client.end();
  } catch {
    // It has ended some other way.
  } finally {
    clearTimeout(timer);
  }
}

/** For the driver: no connection of Millrace's waits for ever for a server that takes it and does not answer. */
export function clientConfig({ url, connectTimeoutMs, applicationName, watch }: ConnectionOptions): pg.ClientConfig {
  return {
    connectionString: url,
    application_name: watch?.applicationName ?? applicationName ?? "millrace",
    connectionTimeoutMillis: connectTimeoutMs ?? 5000,
    // A peer that is gone without a word is found out, also by a connection that only listens.
    keepAlive: true,
    keepAliveInitialDelayMillis: 5000,
  };
}
