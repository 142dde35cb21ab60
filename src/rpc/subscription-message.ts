import { create } from "@bufbuild/protobuf";
import { durationFromMs, type Timestamp, timestampFromMs } from "@bufbuild/protobuf/wkt";
import {
  DeadLetterSchema,
  type Subscription,
  SubscriptionSchema,
  SubscriptionState,
  type DeadLetter as WireDeadLetter,
} from "../../gen/millrace/v1/subscription_service_pb.js";
import type { FeedStatus } from "../core/feed.ts";
import type { DeadLetter, SubscriptionRecord } from "../core/subscription/subscription-store.ts";
import { eventMessage } from "./event-message.ts";
import { definitionOf } from "./subscription-definition.ts";

const states: Readonly<Record<SubscriptionRecord["state"], SubscriptionState>> = {
  ACTIVE: SubscriptionState.ACTIVE,
  PAUSED: SubscriptionState.PAUSED,
  LOST: SubscriptionState.LOST,
};

/** What is kept of a subscription, as it is told. The status says how far the feed is. */
export function subscriptionMessage(record: SubscriptionRecord, status: FeedStatus): Subscription {
  const { selectors, delivery, payloadForm, group } = definitionOf(record);
  const { position, expireAfterMs, expiresAtMs, oldestVersion } = record;
  const lag = lagOf(record, status);
  return create(SubscriptionSchema, {
    subscriptionId: record.id,
    state: states[record.state],
    selectors,
    payloadForm,
    owner: record.owner,
    labels: { ...record.labels },
    cursor: position.cursor,
    version: BigInt(position.version),
    generation: BigInt(record.generation),
    createdAt: timestamp(record.createdAtMs),
    lastUsedAt: timestamp(record.lastUsedAtMs),
    deadLetters: BigInt(record.deadLetters),
    ...(delivery === undefined ? {} : { delivery }),
    ...(group === undefined ? {} : { group }),
    ...(lag === undefined ? {} : { lagVersions: BigInt(lag) }),
    ...(expireAfterMs === undefined ? {} : { expireAfter: durationFromMs(expireAfterMs) }),
    ...(expiresAtMs === undefined ? {} : { expiresAt: timestamp(expiresAtMs) }),
    ...(oldestVersion === undefined ? {} : { oldestVersion: BigInt(oldestVersion) }),
  });
}

/** One event that was given up. */
export function deadLetterMessage(dead: DeadLetter & { readonly replaying: boolean }): WireDeadLetter {
  const { transition, attempts, reason, deadAtMs, replaying, ...event } = dead;
  return create(DeadLetterSchema, {
    event: eventMessage(
      {
        ...event,
        ...(transition === undefined ? {} : { transition }),
        ...(attempts > 1 ? { attempt: attempts } : {}),
      },
      "whole",
    ),
    attempts,
    reason,
    deadAt: timestamp(deadAtMs),
    replaying,
  });
}

/** Of another epoch, and while the database does not answer, nobody knows. */
function lagOf({ state, position }: SubscriptionRecord, status: FeedStatus): number | undefined {
  const known = status.state === "LIVE" || status.state === "DRAINING";
  if (state === "LOST" || !known || position.epoch !== status.epoch) {
    return undefined;
  }
  return Math.max(0, status.head - position.version);
}

/** The latest that JSON has: one row beyond would spoil every list. */
const LATEST_MS = Date.UTC(9999, 11, 31);

function timestamp(ms: number): Timestamp {
  return timestampFromMs(Math.min(LATEST_MS, Math.round(ms)));
}
