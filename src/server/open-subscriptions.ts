import { randomUUID } from "node:crypto";
import type { Logger } from "pino";
import { systemClock, systemTimers } from "../core/clock.ts";
import type { EpochFeed } from "../core/feed.ts";
import { createSubscriptions } from "../core/subscription/subscription-service.ts";
import type { SubscriptionStore } from "../core/subscription/subscription-store.ts";
import type { Subscriptions } from "../core/subscription/subscriptions.ts";

/** What the subscriptions of a feed stand on. */
export interface SubscribedFeed {
  readonly feed: EpochFeed;
  readonly store: SubscriptionStore;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

/** The subscriptions of a feed that has started; they end before it. */
export async function openSubscriptions(
  opening: AsyncDisposableStack,
  { feed, store, log, signal }: SubscribedFeed,
): Promise<Subscriptions> {
  const subscriptions = createSubscriptions({
    feed,
    store,
    clock: systemClock,
    timers: systemTimers,
    replica: randomUUID(),
    report: (message, error) => (error === undefined ? log.info({}, message) : log.warn({ err: error }, message)),
  });
  opening.defer(() => subscriptions.stop());
  await subscriptions.start(signal);
  return subscriptions;
}
