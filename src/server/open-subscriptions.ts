import { randomUUID } from "node:crypto";
import { hostname } from "node:os";
import type { Logger } from "pino";
import { systemClock, systemTimers } from "../core/clock.ts";
import type { EpochFeed } from "../core/feed.ts";
import { createGroups } from "../core/group/group-service.ts";
import { createSubscriptions } from "../core/subscription/subscription-service.ts";
import type { SubscriptionStore } from "../core/subscription/subscription-store.ts";
import type { Subscriptions } from "../core/subscription/subscriptions.ts";
import { createGroupForwarding } from "../rpc/forward/group-forwarding.ts";

/** What the subscriptions of a feed stand on. */
export interface SubscribedFeed {
  readonly feed: EpochFeed;
  readonly store: SubscriptionStore;
  readonly log: Logger;
  readonly signal: AbortSignal;
  /** Where other replicas reach this one; `undefined` when they cannot. */
  readonly url: string | undefined;
  /** As `Config.streamBytes`. */
  readonly streamBytes: number;
  /** As `Config.maxStreamAgeMs`. */
  readonly maxStreamAgeMs: number;
  /** Members of groups, as `Config.maxStreams`. */
  readonly maxMembers: number;
  /** As `Config.maxSubscriptions`. */
  readonly maxSubscriptions: number;
}

/** The subscriptions of a feed that has started; they end before it. */
export async function openSubscriptions(
  opening: AsyncDisposableStack,
  { feed, store, log, signal, url, streamBytes, maxStreamAgeMs, maxMembers, maxSubscriptions }: SubscribedFeed,
): Promise<Subscriptions> {
  const means = {
    feed,
    store,
    clock: systemClock,
    timers: systemTimers,
    replica: randomUUID(),
    url,
    report: (message: string, error?: unknown) =>
      error === undefined ? log.info({}, message) : log.warn({ err: error }, message),
  };
  const forwarding = createGroupForwarding({ clock: systemClock, machine: hostname(), streamBytes });
  opening.defer(() => forwarding.close());
  const subscriptions = createSubscriptions({
    ...means,
    maxSubscriptions,
    groups: createGroups({ ...means, forwarding, maxStreamAgeMs, maxMembers }),
  });
  opening.defer(() => subscriptions.stop());
  await subscriptions.start(signal);
  return subscriptions;
}
