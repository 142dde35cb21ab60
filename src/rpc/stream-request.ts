import type { Timestamp } from "@bufbuild/protobuf/wkt";
import type { SubscribeRequest } from "../../gen/millrace/v1/feed_service_pb.js";
import type { Selector as WireSelector } from "../../gen/millrace/v1/selector_pb.js";
import type { Start, StreamRequest } from "../core/feed.ts";
import type { LaneCodec } from "../core/lane/lane.ts";
import type { Selector } from "../core/selector/selector.ts";
import { ENVELOPE_BYTES } from "./codec.ts";
import { deliveryTerms } from "./delivery-terms.ts";
import { invalidRequest } from "./errors.ts";
import { operationFromWire } from "./event-fields.ts";
import type { StreamTerms } from "./frames.ts";

/** Just under the 4 MiB that gRPC clients take unless told otherwise. */
export const DEFAULT_MAX_MESSAGE_BYTES = 4_128_768;
/** What the server gives to streams that do not ask, and to all. */
export interface StreamDefaults {
  /** `checkpoint_interval` of streams that ask for none, in milliseconds. */
  readonly checkpointIntervalMs: number;
  /** As `FeedOptions.maxStreamAgeMs`. Default 0. */
  readonly maxStreamAgeMs?: number | undefined;
}

/** What the request and the server's defaults agree on. */
export function streamTerms(request: SubscribeRequest, defaults: StreamDefaults): StreamTerms {
  const { checkpointIntervalMs, maxStreamAgeMs: maxAgeMs = 0 } = defaults;
  const maxMessageBytes = request.maxMessageBytes === 0 ? DEFAULT_MAX_MESSAGE_BYTES : request.maxMessageBytes;
  return { maxMessageBytes, maxAgeMs, ...deliveryTerms(request.delivery, { maxMessageBytes, checkpointIntervalMs }) };
}

/**
 * The core's form of a request that passed validation.
 *
 * @param deadlineMs - monotonic milliseconds, or `undefined` when the client set none
 * @throws FeedError INVALID_REQUEST for a version that no feed can reach
 */
export function streamRequestFromWire(
  request: SubscribeRequest,
  terms: StreamTerms,
  codec: LaneCodec,
  deadlineMs: number | undefined,
): StreamRequest {
  return {
    start: startFromWire(request.start, request.epoch),
    selectors: request.selectors.map(selectorFromWire),
    policy: terms.policy,
    maxEventsPerSecond: terms.maxEventsPerSecond,
    checkpointIntervalMs: terms.checkpointIntervalMs,
    checkpointEveryTick: terms.checkpointEveryTick,
    maxBatchBytes: terms.maxBatchBytes - ENVELOPE_BYTES,
    maxBatchEvents: terms.maxBatchEvents,
    maxBatchDelayMs: terms.maxBatchDelayMs,
    codec,
    afterTransaction: request.afterTransaction === "" ? undefined : request.afterTransaction,
    deadlineMs,
  };
}

/** Where anything on the wire begins: the positions that requests have in common. */
export type WireStart = SubscribeRequest["start"];

/**
 * The core's form of it. A subscription is no position: whoever takes one looks for it first.
 *
 * @param epoch - that a version is of; empty for the one in force
 * @throws FeedError INVALID_REQUEST for a version that no feed can reach
 */
export function startFromWire(start: WireStart, epoch: string): Start {
  switch (start.case) {
    case undefined:
    case "now":
      return { kind: "now" };
    case "oldest":
      return { kind: "oldest" };
    case "snapshot":
      return { kind: "snapshot" };
    case "afterCursor":
      return { kind: "cursor", cursor: start.value };
    case "afterVersion":
      return { kind: "version", version: safeVersion(start.value), epoch: epoch === "" ? undefined : epoch };
    case "atTime":
      return { kind: "time", timeMicros: microseconds(start.value) };
    case "subscriptionId":
      throw invalidRequest([{ field: "subscription_id", message: "is no position" }]);
  }
}

function safeVersion(version: bigint): number {
  if (version > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw invalidRequest([{ field: "after_version", message: `must be at most ${Number.MAX_SAFE_INTEGER}` }]);
  }
  return Number(version);
}

/** The core's form of a selector that passed validation. */
export function selectorFromWire(selector: WireSelector): Selector {
  return {
    topics: selector.topics,
    keys: selector.keys,
    operations: selector.operations.flatMap((operation) => operationFromWire(operation) ?? []),
    filter: selector.filter,
    fields: selector.fields,
  };
}

/** Rounded down, so that nothing is skipped; held within what a number keeps exactly (the year 2255). */
function microseconds(time: Timestamp): number {
  const micros = Number(time.seconds) * 1e6 + Math.floor(time.nanos / 1000);
  return Math.max(Number.MIN_SAFE_INTEGER, Math.min(Number.MAX_SAFE_INTEGER, micros));
}
