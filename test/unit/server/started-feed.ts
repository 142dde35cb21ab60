import { createFeed } from "../../../src/core/feed/feed-service.ts";
import type { EpochFeed } from "../../../src/core/feed.ts";
import type { WakeUp } from "../../../src/core/ports.ts";
import { createMemoryStore, type MemoryStore } from "../../../src/memory/store.ts";
import { ManualTime } from "../core/manual-time.ts";

/** A feed over memory in time that stands still. Default: of a store, and so of an epoch, of its own. */
export async function startedFeed(store: MemoryStore = createMemoryStore({ sources: [] })): Promise<EpochFeed> {
  const time = new ManualTime();
  const wakeUp: WakeUp = {
    nudge: () => undefined,
    wait: (_found, signal) =>
      new Promise((resolve) => {
        time.after(10, resolve);
        signal.addEventListener("abort", () => resolve(), { once: true });
      }),
  };
  const feed = createFeed({ store, wakeUp, clock: time, timers: time, report: () => undefined });
  await feed.start(new AbortController().signal);
  return feed;
}
