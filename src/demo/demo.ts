import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { chooseOccurrence, occurrences } from "./business.ts";
import { openShop } from "./shop.ts";

/** What the demo needs to know. */
export interface DemoOptions {
  readonly databaseUrl: string;
  /** Where its tables are. Default `public`. */
  readonly schema?: string;
  /** Transactions per second, about. Default 8: enough to look at, too little to notice. */
  readonly transactionsPerSecond?: number;
  /** Told when the database does not let it go on; it tries again by itself. */
  readonly onTrouble?: (error: Error) => void;
}

/** A shop that is open for business. */
export interface Demo {
  /** Ends after the transaction at hand. Idempotent. */
  stop(): Promise<void>;
}

const customersAtFirst = 12;
const afterTroubleMs = 1000;

/**
 * Opens a small shop (see `shop.sql`) and keeps it busy with real transactions until it is stopped. Goes on where an earlier
 * run ended, and after the database was away.
 *
 * Rejects when the shop cannot be set up.
 */
export async function startDemo(options: DemoOptions): Promise<Demo> {
  const client = await connectShop(options);
  const stopping = new AbortController();
  const business = doBusiness(client, options, stopping.signal);
  return {
    async stop() {
      stopping.abort();
      await business;
    },
  };
}

async function doBusiness(first: pg.Client, options: DemoOptions, signal: AbortSignal): Promise<void> {
  const meanPauseMs = 1000 / (options.transactionsPerSecond ?? 8);
  let client: pg.Client | undefined = first;
  while (!signal.aborted) {
    try {
      client ??= await connectShop(options);
      await chooseOccurrence(Math.random)?.run(client, Math.random);
      await pause(meanPauseMs * (0.5 + Math.random()), signal);
    } catch (error) {
      options.onTrouble?.(error instanceof Error ? error : new Error(String(error)));
      await client?.end().catch(() => undefined);
      client = undefined;
      await pause(afterTroubleMs, signal);
    }
  }
  await client?.end().catch(() => undefined);
}

async function connectShop(options: DemoOptions): Promise<pg.Client> {
  const client = new pg.Client({
    connectionString: options.databaseUrl,
    application_name: "millrace demo",
    // A server that stopped answering must not keep the demo for ever.
    query_timeout: 30_000,
  });
  // The next query reports a connection that broke.
  client.on("error", () => undefined);
  try {
    await client.connect();
    await openShop(client, options.schema ?? "public");
    await welcomeCustomers(client);
    return client;
  } catch (error) {
    await client.end().catch(() => undefined);
    throw error;
  }
}

/** Whoever opens shop has some customers and orders to begin with. */
async function welcomeCustomers(client: pg.ClientBase): Promise<void> {
  const { rows } = await client.query<{ count: number }>("select count(*)::int as count from customers");
  const missing = customersAtFirst - (rows[0]?.count ?? 0);
  for (let at = 0; at < missing; at += 1) {
    for (const name of ["sign up", "place an order"]) {
      await occurrences.find((occurrence) => occurrence.name === name)?.run(client, Math.random);
    }
  }
}

async function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  await delay(milliseconds, undefined, { signal }).catch(() => undefined);
}
