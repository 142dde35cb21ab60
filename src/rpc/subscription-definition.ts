import { create, fromJsonString, toJsonString } from "@bufbuild/protobuf";
import { type Duration, durationMs } from "@bufbuild/protobuf/wkt";
import { PayloadForm } from "../../gen/millrace/v1/event_pb.js";
import {
  BatchSchema,
  type Delivery,
  DeliverySchema,
  PolicyKind,
  PolicySchema,
  type SubscribeRequest,
  SubscribeRequestSchema,
} from "../../gen/millrace/v1/feed_service_pb.js";
import {
  type CreateSubscriptionRequest,
  CreateSubscriptionRequestSchema,
  DeadLetterPolicy,
  type Group,
  GroupSchema,
} from "../../gen/millrace/v1/subscription_service_pb.js";
import type { SubscriptionRecord } from "../core/subscription/subscription-store.ts";
import type { GroupTerms } from "../core/subscription/subscriptions.ts";
import { invalidRequest } from "./errors.ts";

/** What of a request to create a subscription says what it delivers and how. */
export type Definition = Pick<CreateSubscriptionRequest, "selectors" | "delivery" | "payloadForm" | "group">;

/** What a group is unless its definition says otherwise. */
const DEFAULT_GROUP: GroupTerms = {
  maxInFlight: 1_000,
  ackDeadlineMs: 30_000,
  maxAttempts: 5,
  deadLetterPolicy: "PARK",
  maxMembers: 256,
};

/**
 * The definition as it is kept: the same for requests that mean the same, in so far as one of them says what the other leaves
 * to the default.
 *
 * @throws FeedError INVALID_REQUEST for a group that would lose something
 */
export function definitionText(request: Definition): string {
  assertGroupKeepsAll(request);
  const { selectors, payloadForm } = request;
  const definition = create(CreateSubscriptionRequestSchema, {
    selectors,
    payloadForm: payloadForm === PayloadForm.JSON ? PayloadForm.UNSPECIFIED : payloadForm,
  });
  const delivery = request.delivery && plainDelivery(request.delivery);
  if (delivery !== undefined) {
    definition.delivery = delivery;
  }
  if (request.group !== undefined) {
    definition.group = plainGroup(request.group);
  }
  return toJsonString(CreateSubscriptionRequestSchema, definition, { useProtoFieldName: true });
}

/** What was kept. Fields of a newer Millrace are not understood, and not lost. */
export function definitionOf({ definition }: Pick<SubscriptionRecord, "definition">): Definition {
  return fromJsonString(CreateSubscriptionRequestSchema, definition, { ignoreUnknownFields: true });
}

/** The request of a stream that delivers so. */
export function subscribeRequestOf(
  { selectors, delivery, payloadForm }: Definition,
  call: Pick<SubscribeRequest, "maxMessageBytes">,
): SubscribeRequest {
  const { maxMessageBytes } = call;
  return create(SubscribeRequestSchema, {
    selectors,
    payloadForm,
    maxMessageBytes,
    ...(delivery === undefined ? {} : { delivery }),
  });
}

/** How the group works, every default filled in; `undefined` without one. */
export function groupTermsOf({ group }: Definition): GroupTerms | undefined {
  if (group === undefined) {
    return undefined;
  }
  const { ackDeadline } = group;
  return {
    maxInFlight: group.maxInFlight || DEFAULT_GROUP.maxInFlight,
    ackDeadlineMs: ackDeadline === undefined ? DEFAULT_GROUP.ackDeadlineMs : milliseconds(ackDeadline),
    maxAttempts: group.maxAttempts || DEFAULT_GROUP.maxAttempts,
    deadLetterPolicy: group.deadLetterPolicy === DeadLetterPolicy.SKIP ? "SKIP" : "PARK",
    maxMembers: group.maxMembers || DEFAULT_GROUP.maxMembers,
  };
}

/** Whole milliseconds, rounded up. */
export function milliseconds(duration: Duration): number {
  return Math.ceil(durationMs(duration));
}

function assertGroupKeepsAll({ group, delivery }: Definition): void {
  if (group === undefined || delivery === undefined) {
    return;
  }
  const kind = delivery.policy?.kind ?? PolicyKind.UNSPECIFIED;
  const violations = [
    ...(kind === PolicyKind.UNSPECIFIED || kind === PolicyKind.BLOCK
      ? []
      : [{ field: "delivery.policy.kind", message: "must be BLOCK in a group, which loses nothing" }]),
    ...(delivery.maxEventsPerSecond === 0
      ? []
      : [
          {
            field: "delivery.max_events_per_second",
            message: "must be 0 in a group: its members say how fast it goes",
          },
        ]),
  ];
  if (violations.length > 0) {
    throw invalidRequest(violations);
  }
}

function plainDelivery(delivery: Delivery): Delivery | undefined {
  const { policy, batch, maxEventsPerSecond, checkpointEveryTick, checkpointInterval } = delivery;
  const blocks = policy === undefined || policy.kind === PolicyKind.UNSPECIFIED || policy.kind === PolicyKind.BLOCK;
  const plain = create(DeliverySchema, {
    maxEventsPerSecond,
    checkpointEveryTick,
    ...(blocks ? {} : { policy: create(PolicySchema, policy) }),
    ...(batch === undefined || isEmptyBatch(batch) ? {} : { batch: create(BatchSchema, batch) }),
    ...(checkpointInterval === undefined ? {} : { checkpointInterval }),
  });
  return toJsonString(DeliverySchema, plain) === "{}" ? undefined : plain;
}

function isEmptyBatch(batch: NonNullable<Delivery["batch"]>): boolean {
  return toJsonString(BatchSchema, batch) === "{}";
}

function plainGroup(group: Group): Group {
  const { maxInFlight, maxAttempts, maxMembers, ackDeadline, deadLetterPolicy } = group;
  const orDefault = (value: number, usual: number): number => (value === usual ? 0 : value);
  const usualDeadline = ackDeadline === undefined || milliseconds(ackDeadline) === DEFAULT_GROUP.ackDeadlineMs;
  return create(GroupSchema, {
    maxInFlight: orDefault(maxInFlight, DEFAULT_GROUP.maxInFlight),
    maxAttempts: orDefault(maxAttempts, DEFAULT_GROUP.maxAttempts),
    maxMembers: orDefault(maxMembers, DEFAULT_GROUP.maxMembers),
    deadLetterPolicy: deadLetterPolicy === DeadLetterPolicy.SKIP ? deadLetterPolicy : DeadLetterPolicy.UNSPECIFIED,
    ...(usualDeadline ? {} : { ackDeadline }),
  });
}
