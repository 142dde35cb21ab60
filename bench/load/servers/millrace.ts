// The server as `millrace start` runs it, on a store in memory: the database must not be what is measured.
import { createFeed } from "../../../src/core/feed/feed-service.ts";
import { createMemoryStore } from "../../../src/memory/store.ts";
import { resolveConfig } from "../../../src/server/config.ts";
import type { OpenFeed } from "../../../src/server/feed-holder.ts";
import { startServer } from "../../../src/server/server.ts";
import { childOptions, ready } from "../child.ts";
import { payload } from "../message.ts";

const { burst, config } = childOptions();
const store = createMemoryStore();
const openFeed: OpenFeed = async (signal) => {
  const feed = createFeed({ store, wakeUp: store.wakeUp });
  await feed.start(signal);
  return { feed, lineage: [], problems: () => [], stop: () => feed.stop() };
};
const given = typeof config === "object" ? config : {};
const server = await startServer(
  resolveConfig({ flags: { databaseUrl: "postgres://in.memory", port: 0, logLevel: "warn", ...given } }),
  { openFeed },
);
await ready(server.port, publish, burst);

/** In one transaction, as a writer's. */
function publish(count: number, stampNs: bigint): void {
  const transaction = store.begin();
  const json = payload(stampNs);
  for (let i = 0; i < count; i += 1) {
    transaction.emit({ topic: "bench", key: "k", operation: "MESSAGE", payload: json, headers: {} });
  }
  transaction.commit();
}
