import { systemClock, systemTimers } from "../../src/core/clock.ts";
import { createFeed, type FeedOptions } from "../../src/core/feed/feed-service.ts";
import type { Feed } from "../../src/core/feed.ts";
import { SubscribedStream } from "../../src/core/stream/subscribed-stream.ts";
import { createSubscriptions } from "../../src/core/subscription/subscription-service.ts";
import type { Subscriptions } from "../../src/core/subscription/subscriptions.ts";
import type { World } from "./harness.ts";

/** A feed, and what can be subscribed to it by name. */
export interface RunningSubscriptions extends RunningFeed {
  readonly subscriptions: Subscriptions;
  /** Streams of a subscription, as a reader takes them. */
  consumer(id: string): Pick<Feed, "subscribe">;
}

export interface RunningFeed extends AsyncDisposable {
  readonly feed: Feed;
}

/** One replica over the world's database, started; stopped when disposed. */
export async function runFeed(world: World, options: Partial<FeedOptions> = {}): Promise<RunningFeed> {
  const feed = createFeed({ ...(await world.replica()), ...options });
  await feed.start(new AbortController().signal);
  return { feed, [Symbol.asyncDispose]: () => feed.stop() };
}

let replicas = 0;

/** One replica with its subscriptions over the world's database, started; stopped when disposed. */
export async function runSubscriptions(world: World): Promise<RunningSubscriptions> {
  const { subscriptions: store, ...parts } = await world.replica();
  const feed = createFeed(parts);
  await feed.start(new AbortController().signal);
  const replica = `replica ${++replicas}`;
  const subscriptions = createSubscriptions({ feed, store, clock: systemClock, timers: systemTimers, replica });
  await subscriptions.start(new AbortController().signal);
  return {
    feed,
    subscriptions,
    consumer: (id) => ({
      subscribe(request, signal) {
        const terms = () => ({ request, group: undefined });
        const open = (opening: AbortSignal) => subscriptions.open({ id, member: undefined, terms }, opening);
        return new SubscribedStream(signal, { open, clock: systemClock, timers: systemTimers });
      },
    }),
    async [Symbol.asyncDispose]() {
      await subscriptions.stop();
      await feed.stop();
    },
  };
}
