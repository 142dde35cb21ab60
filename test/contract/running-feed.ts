import { createFeed, type FeedOptions } from "../../src/core/feed/feed-service.ts";
import type { Feed } from "../../src/core/feed.ts";
import type { World } from "./harness.ts";

export interface RunningFeed extends AsyncDisposable {
  readonly feed: Feed;
}

/** One replica over the world's database, started; stopped when disposed. */
export async function runFeed(world: World, options: Partial<FeedOptions> = {}): Promise<RunningFeed> {
  const feed = createFeed({ ...(await world.replica()), ...options });
  await feed.start(new AbortController().signal);
  return { feed, [Symbol.asyncDispose]: () => feed.stop() };
}
