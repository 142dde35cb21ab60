import type { Logger } from "pino";
import { systemClock, systemTimers } from "../core/clock.ts";
import { createFeed, type FeedOptions } from "../core/feed/feed-service.ts";
import { createSubscriptions } from "../core/subscription/subscription-service.ts";
import type { MemoryStore } from "../memory/store.ts";
import { type ConfigInput, resolveConfig } from "../server/config.ts";
import { FeedHolder } from "../server/feed-holder.ts";
import { createFeedSlot } from "../server/feed-slot.ts";
import { createLogger } from "../server/logger.ts";
import { postgresFeedOpener } from "../server/postgres-feed.ts";
import { ChangeFeed } from "./change-feed.ts";

/** Of a feed over Postgres: what a server takes, without what concerns its port. */
export interface OpenFeedOptions
  extends Pick<ConfigInput, "databaseUrl">,
    Partial<
      Pick<
        ConfigInput,
        | "directUrl"
        | "historyConnections"
        | "serviceConnections"
        | "stuckAfterMs"
        | "newEpoch"
        | "migrate"
        | "logBytes"
        | "warmBytes"
        | "historyCacheBytes"
        | "laneBytes"
        | "maxStreams"
        | "maxLanes"
        | "maxSelectors"
        | "maxFilterBytes"
        | "maxFilterCost"
        | "maxStreamAgeMs"
      >
    > {
  /** Default: nothing is logged. */
  readonly log?: Logger | undefined;
  /** Gives up the start. */
  readonly signal?: AbortSignal | undefined;
  /** Told why the start waits for the database, and what to do. Default: nobody is. */
  readonly onWait?: ((failure: string, action: string) => void) | undefined;
}

/**
 * The feed of a Postgres in this process: a server without a port, with everything that a server does for its database
 * (migrations, retention, polling, watching schemas). Waits as long as Postgres does not answer; goes on by itself through
 * outages and new epochs, whose streams end with EPOCH_CHANGED.
 *
 * @throws FeedError INVALID_REQUEST when waiting cannot help
 */
export async function openFeed(options: OpenFeedOptions): Promise<ChangeFeed> {
  const { log = createLogger("silent"), signal = new AbortController().signal, onWait, ...flags } = options;
  const slot = createFeedSlot();
  const observer = { advanced: () => undefined, failed: () => undefined };
  const holder = new FeedHolder(postgresFeedOpener(resolveConfig({ flags }), log, observer), slot, log);
  await holder.start({
    signal,
    logLevel: onWait === undefined ? "warn" : "debug",
    onWait: ({ message, action }) => onWait?.(message, action),
  });
  return new ChangeFeed(slot, () => holder.stop(), slot.subscriptions);
}

/** A feed over a store in memory, which is written to directly: for tests, and programs that have no database. */
export async function openMemoryFeed(
  store: MemoryStore,
  options: Pick<FeedOptions, "limits" | "maxStreamAgeMs"> = {},
): Promise<ChangeFeed> {
  const feed = createFeed({ store, wakeUp: store.wakeUp, ...options });
  const { signal } = new AbortController();
  await feed.start(signal);
  const parts = { clock: systemClock, timers: systemTimers, replica: crypto.randomUUID() };
  const subscriptions = createSubscriptions({ feed, store: store.subscriptions, ...parts });
  await subscriptions.start(signal);
  const stop = async () => {
    await subscriptions.stop();
    await feed.stop();
  };
  return new ChangeFeed(feed, stop, subscriptions);
}
