import pg from "pg";
import { type ConfigInput, resolveConfig } from "../../src/server/config.ts";
import { type RunningServer, startServer } from "../../src/server/server.ts";
import { freshDatabase } from "../support/cluster.ts";
import { eventually } from "../support/deadline.ts";

/** A server on a real Postgres with a watched table `orders`, as a client meets it. */
export interface Shop extends AsyncDisposable {
  readonly url: string;
  readonly databaseUrl: string;
  readonly server: RunningServer;
  /** Commits one new order for each total, in one transaction, and resolves when the server has them. */
  order(...totals: readonly string[]): Promise<void>;
  /** Commits one message for each payload, likewise. */
  emit(topic: string, payloads: readonly unknown[]): Promise<void>;
}

/** Opens a shop on any free port, in a database of its own. */
export async function openShop(flags: Partial<ConfigInput> = {}): Promise<Shop> {
  await using opening = new AsyncDisposableStack();
  const databaseUrl = await freshDatabase();
  const server = await startServer(resolveConfig({ flags: { databaseUrl, port: 0, logLevel: "silent", ...flags } }));
  opening.defer(() => server.stop(1_000));
  const client = new pg.Client(databaseUrl);
  await client.connect();
  opening.defer(() => client.end());
  await client.query("create table orders (id int generated always as identity primary key, total numeric not null)");
  await client.query("select millrace.watch('orders')");
  const settled = async (count: number, write: () => Promise<unknown>): Promise<void> => {
    const before = server.feed.status().head;
    await write();
    await eventually(async () => server.feed.status().head >= before + count);
  };
  const open = opening.move();
  return {
    url: server.url,
    databaseUrl,
    server,
    order: (...totals) =>
      settled(totals.length, () =>
        client.query("insert into orders (total) select * from unnest($1::numeric[])", [totals]),
      ),
    emit: (topic, payloads) =>
      settled(payloads.length, () =>
        client.query("select millrace.emit($1, payload => p) from json_array_elements($2) as p", [
          topic,
          JSON.stringify(payloads),
        ]),
      ),
    [Symbol.asyncDispose]: () => open.disposeAsync(),
  };
}
