import { FeedError } from "../core/errors.ts";
import { NO_STATS } from "../core/feed/feed-stats.ts";
import type { Feed, FeedFailure, FeedStatus } from "../core/feed.ts";
import type { Subscriptions } from "../core/subscription/subscriptions.ts";
import { createSubscriptionsSlot } from "./subscriptions-slot.ts";

/** A feed that may not be there yet, or is about to be replaced. */
export interface FeedSlot extends Feed {
  /** From now on every call goes to this feed, and to its subscriptions. */
  fill(feed: Feed, subscriptions?: Subscriptions): void;
  /** Those of the feed in it. */
  readonly subscriptions: Subscriptions;
  /** Why there is none, or no other, yet: what callers are told until it is filled again. */
  explain(failure: FeedFailure): void;
}

const nothingYet: FeedStatus = {
  epoch: "",
  state: "STARTING",
  head: 0,
  oldest: 1,
  settledAgeMs: undefined,
  settledAtMicros: undefined,
  streams: 0,
  logBytes: 0,
  logEvents: 0,
  logOldest: 1,
  failure: undefined,
};

/**
 * Stands for the feed while the database is waited for, so that the port is open from the start: a taken port shows before
 * a long wait, probes see a live process that is not ready, and clients get DATABASE_UNAVAILABLE instead of a refused
 * connection.
 */
export function createFeedSlot(): FeedSlot {
  let current: Feed | undefined;
  let currentSubscriptions: Subscriptions | undefined;
  let failure: FeedFailure | undefined;
  let draining = false;
  const absent = () =>
    new FeedError(
      "DATABASE_UNAVAILABLE",
      `The feed is not there yet: ${failure?.message ?? "the server is starting."}`,
      "Try again in a moment.",
      { retryAfterMs: 1_000 },
    );
  const held = (): Feed => {
    if (current === undefined) {
      throw absent();
    }
    return current;
  };
  return {
    subscriptions: createSubscriptionsSlot(() => currentSubscriptions, absent),
    fill(filled, subscriptions) {
      current = filled;
      currentSubscriptions = subscriptions;
      failure = undefined;
      // Nobody is served by it: it refuses them from now on, and there is nothing to wait for.
      if (draining) void filled.drain(0);
    },
    explain(reason) {
      failure = reason;
    },
    start: async () => undefined,
    stop: async () => current?.stop(),
    status: () => {
      const status = current?.status() ?? nothingYet;
      return failure === undefined ? status : { ...status, failure };
    },
    stats: () => current?.stats() ?? NO_STATS,
    // The feed's own iterator and no generator around it: only its `return()` ends a `next()` that waits.
    subscribe: (request, signal) => current?.subscribe(request, signal) ?? refused(absent()),
    open: (request, signal) => current?.open(request, signal) ?? Promise.reject(absent()),
    update: (request, signal) => current?.update(request, signal) ?? Promise.reject(absent()),
    check: (selectors) => held().check(selectors),
    locate: async (start, signal) => await held().locate(start, signal),
    recognise: async (cursor, signal) => await held().recognise(cursor, signal),
    publish: (request, signal) => current?.publish(request, signal) ?? Promise.reject(absent()),
    async drain(graceMs) {
      draining = true;
      await current?.drain(graceMs);
    },
  };
}

/** A stream that ends with this error at its first `next()`, as `Feed.subscribe` has it. */
function refused(error: FeedError): AsyncIterable<never> {
  return { [Symbol.asyncIterator]: () => ({ next: () => Promise.reject(error) }) };
}
