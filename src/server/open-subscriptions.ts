import { randomUUID } from "node:crypto";
import type { Logger } from "pino";
import { systemClock, systemTimers } from "../core/clock.ts";
import type { EpochFeed } from "../core/feed.ts";
import { createGroups } from "../core/group/group-service.ts";
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
  const means = {
    feed,
    store,
    clock: systemClock,
    timers: systemTimers,
    replica: randomUUID(),
    url: undefined,
    report: (message: string, error?: unknown) =>
      error === undefined ? log.info({}, message) : log.warn({ err: error }, message),
  };
  const subscriptions = createSubscriptions({ ...means, groups: createGroups(means) });
  opening.defer(() => subscriptions.stop());
  await subscriptions.start(signal);
  return subscriptions;
}
