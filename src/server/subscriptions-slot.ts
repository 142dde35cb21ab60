import type { FeedError } from "../core/errors.ts";
import type { SubscriptionStats, Subscriptions } from "../core/subscription/subscriptions.ts";

const NO_STATS: SubscriptionStats = {
  streams: 0,
  acknowledgements: 0,
  redelivered: 0,
  fenced: 0,
  flushes: 0,
  groups: undefined,
};

/** Stands for the subscriptions of whichever feed is in the slot. */
export function createSubscriptionsSlot(
  current: () => Subscriptions | undefined,
  absent: () => FeedError,
): Subscriptions {
  const held = async (): Promise<Subscriptions> => {
    const subscriptions = current();
    if (subscriptions === undefined) {
      throw absent();
    }
    return subscriptions;
  };
  return {
    start: async () => undefined,
    stop: async () => undefined,
    create: async (subscription, start, signal) => (await held()).create(subscription, start, signal),
    get: async (id, signal) => (await held()).get(id, signal),
    list: async (filter, page, signal) => (await held()).list(filter, page, signal),
    delete: async (id, signal) => (await held()).delete(id, signal),
    pause: async (id, paused, signal) => (await held()).pause(id, paused, signal),
    seek: async (id, start, signal) => (await held()).seek(id, start, signal),
    open: async (consumer, signal) => (await held()).open(consumer, signal),
    reopen: async (consumer, signal) => (await held()).reopen(consumer, signal),
    drain: async (graceMs) => await current()?.drain(graceMs),
    holds: (id) => current()?.holds(id) === true,
    acknowledge: async (acknowledgement, signal) => (await held()).acknowledge(acknowledgement, signal),
    deadLetters: async (id, filter, page, signal) => (await held()).deadLetters(id, filter, page, signal),
    replayDeadLetters: async (id, filter, limit, signal) => (await held()).replayDeadLetters(id, filter, limit, signal),
    discardDeadLetters: async (id, filter, signal) => (await held()).discardDeadLetters(id, filter, signal),
    stats: () => current()?.stats() ?? NO_STATS,
    summary: () => current()?.summary(),
  };
}
