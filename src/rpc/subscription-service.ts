import { create } from "@bufbuild/protobuf";
import type { ServiceImpl } from "@connectrpc/connect";
import {
  type AcknowledgeRequest,
  AcknowledgeResponseSchema,
  type CreateSubscriptionRequest,
  CreateSubscriptionResponseSchema,
  DeleteSubscriptionResponseSchema,
  type DiscardDeadLettersRequest,
  DiscardDeadLettersResponseSchema,
  GetSubscriptionResponseSchema,
  ListDeadLettersResponseSchema,
  type ListSubscriptionsRequest,
  ListSubscriptionsResponseSchema,
  PauseSubscriptionResponseSchema,
  ReplayDeadLettersResponseSchema,
  ResumeSubscriptionResponseSchema,
  SeekSubscriptionResponseSchema,
  type SubscriptionService,
} from "../../gen/millrace/v1/subscription_service_pb.js";
import type { Feed } from "../core/feed.ts";
import { eventBytes } from "../core/page.ts";
import type { DeadLetter, DeadLetterFilter, SubscriptionRecord } from "../core/subscription/subscription-store.ts";
import type { Acknowledgement, Subscriptions } from "../core/subscription/subscriptions.ts";
import { invalidRequest } from "./errors.ts";
import { pageToken, tokenKey, tokenVersion } from "./page-token.ts";
import { selectorFromWire, startFromWire } from "./stream-request.ts";
import { definitionText, milliseconds } from "./subscription-definition.ts";
import { deadLetterMessage, subscriptionMessage } from "./subscription-message.ts";

/** What SubscriptionService stands on. */
export interface SubscriptionServiceOptions {
  readonly feed: Feed;
  readonly subscriptions: Subscriptions;
}

const DEFAULT_PAGE = 100;
/** Of a page of dead letters, which hold whole events: what clients of gRPC take is 4 MiB. */
const MAX_PAGE_BYTES = 3 * 1024 * 1024;

/** SubscriptionService over the core. Requests have passed validation; whatever is thrown here, the interceptors translate. */
export function createSubscriptionService(
  options: SubscriptionServiceOptions,
): ServiceImpl<typeof SubscriptionService> {
  const { feed, subscriptions } = options;
  const told = (record: SubscriptionRecord) => subscriptionMessage(record, feed.status());
  return {
    createSubscription: async (request, { signal }) => {
      const { record, existed } = await createFrom(request, options, signal);
      return create(CreateSubscriptionResponseSchema, { subscription: told(record), existed });
    },
    getSubscription: async ({ subscriptionId }, { signal }) => {
      const record = await subscriptions.get(subscriptionId, signal);
      return create(GetSubscriptionResponseSchema, { subscription: told(record) });
    },
    listSubscriptions: async (request, { signal }) => {
      const { items, total, more } = await subscriptions.list(filterFrom(request), listPage(request), signal);
      const last = items.at(-1);
      return create(ListSubscriptionsResponseSchema, {
        subscriptions: items.map(told),
        nextPageToken: more && last !== undefined ? pageToken(last.id) : "",
        total: BigInt(total),
      });
    },
    deleteSubscription: async ({ subscriptionId }, { signal }) => {
      const { position } = await subscriptions.delete(subscriptionId, signal);
      return create(DeleteSubscriptionResponseSchema, { cursor: position.cursor, version: BigInt(position.version) });
    },
    pauseSubscription: async ({ subscriptionId }, { signal }) => {
      const record = await subscriptions.pause(subscriptionId, true, signal);
      return create(PauseSubscriptionResponseSchema, { subscription: told(record) });
    },
    resumeSubscription: async ({ subscriptionId }, { signal }) => {
      const record = await subscriptions.pause(subscriptionId, false, signal);
      return create(ResumeSubscriptionResponseSchema, { subscription: told(record) });
    },
    seekSubscription: async ({ subscriptionId, to, epoch }, { signal }) => {
      const record = await subscriptions.seek(subscriptionId, startFromWire(to, epoch), signal);
      return create(SeekSubscriptionResponseSchema, { subscription: told(record) });
    },
    acknowledge: async (request, { signal }) => {
      const { cursor, version, accepted } = await subscriptions.acknowledge(acknowledgementFrom(request), signal);
      return create(AcknowledgeResponseSchema, { cursor, version: BigInt(version), accepted: BigInt(accepted) });
    },
    listDeadLetters: async ({ subscriptionId, key, pageSize, pageToken: token }, { signal }) => {
      const page = { limit: pageSize || DEFAULT_PAGE, after: tokenVersion(token) };
      const listed = await subscriptions.deadLetters(subscriptionId, { key }, page, signal);
      const items = within(listed.items, MAX_PAGE_BYTES);
      const last = items.at(-1);
      const more = listed.more || items.length < listed.items.length;
      return create(ListDeadLettersResponseSchema, {
        deadLetters: items.map(deadLetterMessage),
        nextPageToken: more && last !== undefined ? pageToken(last.version) : "",
        total: BigInt(listed.total),
      });
    },
    replayDeadLetters: async ({ subscriptionId, versions, key, limit }, { signal }) => {
      const filter = deadLetterFilter(versions, key);
      const outcome = await subscriptions.replayDeadLetters(subscriptionId, filter, limit || DEFAULT_PAGE, signal);
      return create(ReplayDeadLettersResponseSchema, {
        replaying: BigInt(outcome.replaying),
        remaining: BigInt(outcome.remaining),
      });
    },
    discardDeadLetters: async (request, { signal }) => {
      const outcome = await subscriptions.discardDeadLetters(request.subscriptionId, discardFilter(request), signal);
      return create(DiscardDeadLettersResponseSchema, {
        discarded: BigInt(outcome.discarded),
        remaining: BigInt(outcome.remaining),
      });
    },
  };
}

async function createFrom(
  request: CreateSubscriptionRequest,
  { feed, subscriptions }: SubscriptionServiceOptions,
  signal: AbortSignal,
) {
  const { subscriptionId, selectors, owner, labels, expireAfter, group } = request;
  feed.check(selectors.map(selectorFromWire));
  const subscription = {
    id: subscriptionId === "" ? crypto.randomUUID() : subscriptionId,
    definition: definitionText(request),
    isGroup: group !== undefined,
    topics: selectors.some(({ topics }) => topics.length === 0) ? [] : selectors.flatMap(({ topics }) => topics),
    owner,
    labels,
    expireAfterMs: expireAfter === undefined ? undefined : milliseconds(expireAfter),
  };
  return await subscriptions.create(subscription, startFromWire(request.start, request.epoch), signal);
}

function filterFrom({ topic, owner, labels }: ListSubscriptionsRequest) {
  return { topic: topic === "" ? undefined : topic, owner: owner === "" ? undefined : owner, labels };
}

function listPage({ pageSize, pageToken: token }: ListSubscriptionsRequest) {
  return { limit: pageSize || DEFAULT_PAGE, after: tokenKey(token) };
}

function acknowledgementFrom(request: AcknowledgeRequest): Acknowledgement {
  const { subscriptionId, generation, member, cursor, versions, rejections } = request;
  return {
    id: subscriptionId,
    generation: safe(generation, "generation"),
    member: member === "" ? undefined : member,
    cursor: cursor === "" ? undefined : cursor,
    versions: versions.map((version, index) => safe(version, `versions[${index}]`)),
    rejections: rejections.map(({ version, reason, giveUp }, index) => {
      return { version: safe(version, `rejections[${index}].version`), reason, giveUp };
    }),
  };
}

function discardFilter({ versions, key, all }: DiscardDeadLettersRequest): DeadLetterFilter {
  const named = versions.length > 0 || key !== undefined;
  if (named === all) {
    const message = named
      ? "cannot be set beside `versions` and `key`"
      : "must be set where neither versions nor key are";
    throw invalidRequest([{ field: "all", message }]);
  }
  return deadLetterFilter(versions, key);
}

function deadLetterFilter(versions: readonly bigint[], key: string | undefined): DeadLetterFilter {
  return {
    key,
    versions: versions.length === 0 ? undefined : versions.map((version, index) => safe(version, `versions[${index}]`)),
  };
}

function safe(value: bigint, field: string): number {
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw invalidRequest([{ field, message: `must be at most ${Number.MAX_SAFE_INTEGER}` }]);
  }
  return Number(value);
}

/** At least one, however large. */
function within<T extends DeadLetter>(items: readonly T[], maxBytes: number): readonly T[] {
  let bytes = 0;
  const end = items.findIndex((dead, index) => {
    bytes += eventBytes({ ...dead, transition: dead.transition ?? "LEFT" });
    return index > 0 && bytes > maxBytes;
  });
  return end < 0 ? items : items.slice(0, end);
}
