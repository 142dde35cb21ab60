import { systemClock, systemTimers } from "../../../src/core/clock.ts";
import { createFeed, type FeedOptions } from "../../../src/core/feed/feed-service.ts";
import { createGroups } from "../../../src/core/group/group-service.ts";
import { createSubscriptions } from "../../../src/core/subscription/subscription-service.ts";
import { createMemoryStore, type MemoryStore } from "../../../src/memory/store.ts";
import type { ConfigInput } from "../../../src/server/config.ts";
import { type Served, serve } from "../rpc/served.ts";

/** A real server over a real feed, whose store is in memory. */
export interface MemoryShop extends AsyncDisposable {
  readonly served: Served;
  readonly store: MemoryStore;
  /** Of `/v1/events`, with this query. */
  events(query?: string): string;
  /** One transaction of messages with these payloads. */
  emit(topic: string, ...payloads: readonly string[]): void;
  put(key: string, row: string): Promise<void>;
}

export async function openMemoryShop(
  config: Partial<ConfigInput> = {},
  options: Partial<FeedOptions> = {},
): Promise<MemoryShop> {
  const store = createMemoryStore({ sources: ["orders"] });
  const feed = createFeed({ store, wakeUp: store.wakeUp, ...options });
  await feed.start(new AbortController().signal);
  const parts = {
    feed,
    store: store.subscriptions,
    clock: systemClock,
    timers: systemTimers,
    replica: "only",
    url: undefined,
    report: () => undefined,
  };
  const subscriptions = createSubscriptions({ ...parts, groups: createGroups(parts) });
  await subscriptions.start(new AbortController().signal);
  const served = await serve(feed, { config, subscriptions });
  return {
    served,
    store,
    events: (query = "") => `${served.url}/v1/events?${query}`,
    emit(topic, ...payloads) {
      const transaction = store.begin();
      for (const [at, payload] of payloads.entries()) {
        transaction.emit({ topic, key: `k${at}`, operation: "MESSAGE", payload, headers: {} });
      }
      transaction.commit();
    },
    async put(key, row) {
      const transaction = store.begin();
      await transaction.put("orders", key, row);
      transaction.commit();
    },
    [Symbol.asyncDispose]: () => served[Symbol.asyncDispose](),
  };
}
