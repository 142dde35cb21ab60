import { FeedError } from "../core/errors.ts";
import type { Feed, FeedStatus } from "../core/feed.ts";

/** A feed that may not be there yet. */
export interface FeedSlot extends Feed {
  /** From now on every call goes to this feed. */
  fill(feed: Feed): void;
  /** Why there is none yet: what callers are told meanwhile. */
  explain(failure: string): void;
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
  let failure: string | undefined;
  let draining = false;
  const feed = (): Feed => {
    if (current !== undefined) {
      return current;
    }
    if (draining) {
      throw new FeedError("DRAINING", "The server is going down.", "Connect to another replica, or try again.");
    }
    throw new FeedError(
      "DATABASE_UNAVAILABLE",
      `The feed is not there yet: ${failure ?? "the server is starting."}`,
      "Try again in a moment.",
      { retryAfterMs: 1_000 },
    );
  };
  return {
    fill(filled) {
      current = filled;
    },
    explain(reason) {
      failure = reason;
    },
    start: async () => undefined,
    stop: async () => current?.stop(),
    status: () => current?.status() ?? { ...nothingYet, state: draining ? "DRAINING" : "STARTING", failure },
    async *subscribe(request, signal) {
      yield* feed().subscribe(request, signal);
    },
    publish: async (request, signal) => feed().publish(request, signal),
    async drain(graceMs) {
      draining = true;
      await current?.drain(graceMs);
    },
  };
}
