import { create } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { PolicyKind } from "../../gen/millrace/v1/feed_service_pb.js";
import { CreateSubscriptionRequestSchema } from "../../gen/millrace/v1/subscription_service_pb.js";
import type { LaneCodec } from "../core/lane/lane.ts";
import type { Policy } from "../core/policy/policy.ts";
import type { Selector } from "../core/selector/selector.ts";
import type { SubscriptionRecord } from "../core/subscription/subscription-store.ts";
import type { SubscriptionTerms } from "../core/subscription/subscriptions.ts";
import { operationNumbers } from "../rpc/event-fields.ts";
import { streamRequestFromWire, streamTerms } from "../rpc/stream-request.ts";
import { definitionOf, definitionText, groupTermsOf, subscribeRequestOf } from "../rpc/subscription-definition.ts";

/** What a subscription delivers and how, as far as somebody says; what is left out is as by default. */
export interface DefinitionParts {
  readonly selectors: readonly Selector[];
  readonly policy?: (Partial<Policy> & Pick<Policy, "kind">) | undefined;
  readonly maxBatchEvents?: number | undefined;
  readonly maxBatchBytes?: number | undefined;
  readonly maxBatchDelayMs?: number | undefined;
  readonly maxEventsPerSecond?: number | undefined;
  readonly checkpointIntervalMs?: number | undefined;
  readonly checkpointEveryTick?: boolean | undefined;
}

/** The definition that a client of the server would have made with the same: either of them may consume it. */
export function definitionFromParts(parts: DefinitionParts): string {
  const { selectors, policy, maxBatchDelayMs, checkpointIntervalMs } = parts;
  return definitionText(
    create(CreateSubscriptionRequestSchema, {
      selectors: selectors.map(({ topics, keys, operations, filter = "", fields = [] }) => ({
        topics: [...topics],
        keys: [...keys],
        operations: operations.map((operation) => operationNumbers[operation]),
        filter,
        fields: [...fields],
      })),
      delivery: {
        maxEventsPerSecond: parts.maxEventsPerSecond ?? 0,
        checkpointEveryTick: parts.checkpointEveryTick ?? false,
        batch: {
          maxEvents: parts.maxBatchEvents ?? 0,
          maxBytes: parts.maxBatchBytes ?? 0,
          ...(maxBatchDelayMs === undefined ? {} : { maxDelay: durationFromMs(maxBatchDelayMs) }),
        },
        ...(checkpointIntervalMs === undefined ? {} : { checkpointInterval: durationFromMs(checkpointIntervalMs) }),
        ...(policy === undefined ? {} : { policy: wirePolicy(policy) }),
      },
    }),
  );
}

/** What a consumer in this process gets of a subscription, whoever created it. */
export function termsInProcess(record: SubscriptionRecord, codec: LaneCodec, intervalMs: number): SubscriptionTerms {
  const definition = definitionOf(record);
  const request = subscribeRequestOf(definition, { maxMessageBytes: 0 });
  const terms = streamTerms(request, { checkpointIntervalMs: intervalMs });
  return { request: streamRequestFromWire(request, terms, codec, undefined), group: groupTermsOf(definition) };
}

function wirePolicy({ kind, maxLagEvents = 0, sampleEvery = 0 }: NonNullable<DefinitionParts["policy"]>) {
  return { kind: PolicyKind[kind], maxLagEvents: BigInt(maxLagEvents), sampleEvery };
}
