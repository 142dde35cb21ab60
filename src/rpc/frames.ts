import { create } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import {
  CheckpointSchema,
  ClosingReason,
  ClosingSchema,
  GapReason,
  GapSchema,
  LeaseSchema,
  OpenedSchema,
  SelectorsChangedSchema,
  SnapshotCompleteSchema,
  SnapshotProgressSchema,
  SnapshotStartedSchema,
  StreamState,
  type SubscribeResponse,
  SubscribeResponseSchema,
} from "../../gen/millrace/v1/feed_service_pb.js";
import { type Cursor, encodeCursor } from "../core/cursor.ts";
import type * as core from "../core/frame.ts";
import type * as policy from "../core/policy/policy.ts";
import { ENVELOPE_BYTES, type EventCodec } from "./codec.ts";
import { type DeliveryTerms, deliveryMessage } from "./delivery-terms.ts";
import { timestampFromMicros } from "./event-message.ts";

/** What `opened` tells of the terms of the stream. */
export interface StreamTerms extends DeliveryTerms {
  readonly maxMessageBytes: number;
  /** After which a stream ends, or up to a tenth earlier; 0 for never. */
  readonly maxAgeMs: number;
}

type FrameOf<Kind extends core.Frame["kind"]> = Extract<core.Frame, { kind: Kind }>;

const states: Readonly<Record<core.StreamState, StreamState>> = {
  CATCHING_UP: StreamState.CATCHING_UP,
  LIVE: StreamState.LIVE,
  STALE: StreamState.STALE,
  SNAPSHOT: StreamState.SNAPSHOT,
};

const reasons: Readonly<Record<core.ClosingReason, ClosingReason>> = {
  DRAINING: ClosingReason.DRAINING,
  DEADLINE: ClosingReason.DEADLINE,
  MAX_AGE: ClosingReason.MAX_AGE,
  TAKEN_OVER: ClosingReason.TAKEN_OVER,
  PAUSED: ClosingReason.PAUSED,
  MOVED: ClosingReason.MOVED,
  DELETED: ClosingReason.DELETED,
};

const gapReasons: Readonly<Record<policy.GapReason, GapReason>> = {
  DROP_OLDEST: GapReason.DROP_OLDEST,
  DROP_NEWEST: GapReason.DROP_NEWEST,
  LATEST: GapReason.LATEST,
  SAMPLE: GapReason.SAMPLE,
};

/** The core's frame as the message that goes out. */
export function responseFromFrame(frame: core.Frame, codec: EventCodec, terms: StreamTerms): SubscribeResponse {
  switch (frame.kind) {
    case "events":
      return codec.batch(frame.events, encodeCursor(frame.cursor, roomBeside(frame, codec, terms)), frame.complete);
    case "opened":
      return response({ case: "opened", value: opened(frame, terms) });
    case "checkpoint":
      return response({ case: "checkpoint", value: checkpoint(frame, terms) });
    case "gap":
      return response({ case: "gap", value: gap(frame, terms) });
    case "selectors_changed":
      return response({ case: "selectorsChanged", value: selectorsChanged(frame, terms) });
    case "snapshot_started":
      return response({
        case: "snapshotStarted",
        value: create(SnapshotStartedSchema, {
          version: BigInt(frame.version),
          restart: frame.restart,
          topics: [...frame.topics],
          resumed: frame.resumed,
          ...estimate(frame.estimatedRows),
          cursor: cursorText(frame.cursor, terms),
        }),
      });
    case "snapshot_complete":
      return response({
        case: "snapshotComplete",
        value: create(SnapshotCompleteSchema, {
          version: BigInt(frame.version),
          cursor: cursorText(frame.cursor, terms),
          rows: BigInt(frame.rows),
        }),
      });
    case "closing":
      return response({ case: "closing", value: closing(frame, terms) });
  }
}

/**
 * Characters that a batch leaves to its cursor. In a snapshot cursors hold a key, which may be as large as a small message;
 * everywhere else they are within the envelope.
 */
export function roomBeside({ events, cursor }: FrameOf<"events">, codec: EventCodec, terms: StreamTerms): number {
  let room = terms.maxMessageBytes - ENVELOPE_BYTES;
  if (typeof cursor.snapshot === "object") {
    for (const event of events) {
      room -= codec.measure(event);
    }
  }
  return room;
}

/** What is in a frame beside its cursor is no larger than so many envelopes. */
function cursorText(cursor: Cursor, terms: StreamTerms, envelopes = 2): string {
  return encodeCursor(cursor, terms.maxMessageBytes - envelopes * ENVELOPE_BYTES);
}

function response(frame: SubscribeResponse["frame"]): SubscribeResponse {
  return create(SubscribeResponseSchema, { frame });
}

function opened(frame: FrameOf<"opened">, terms: StreamTerms) {
  return create(OpenedSchema, {
    epoch: frame.epoch,
    version: BigInt(frame.version),
    cursor: cursorText(frame.cursor, terms, 4),
    headVersion: BigInt(frame.head),
    oldestVersion: BigInt(frame.oldest),
    streamId: frame.streamId,
    maxMessageBytes: terms.maxMessageBytes,
    maxBatchBytes: terms.maxBatchBytes,
    checkpointInterval: durationFromMs(terms.checkpointIntervalMs),
    delivery: deliveryMessage(terms),
    ...(terms.maxAgeMs === 0 ? {} : { maxAge: durationFromMs(terms.maxAgeMs) }),
    ...(frame.lease === undefined ? {} : { lease: leaseMessage(frame.lease) }),
  });
}

/** Of `opened`, and of a page that was polled by subscription. */
export function leaseMessage(lease: core.Lease) {
  return create(LeaseSchema, {
    subscriptionId: lease.subscriptionId,
    generation: BigInt(lease.generation),
    member: lease.member ?? "",
    maxInFlight: lease.maxInFlight ?? 0,
  });
}

function checkpoint(frame: FrameOf<"checkpoint">, terms: StreamTerms) {
  return create(CheckpointSchema, {
    cursor: cursorText(frame.cursor, terms),
    version: BigInt(frame.version),
    state: states[frame.state],
    ...(frame.lagVersions === undefined ? {} : { lagVersions: BigInt(frame.lagVersions) }),
    ...(frame.lagMs === undefined ? {} : { lag: durationFromMs(Math.round(frame.lagMs)) }),
    ...(frame.timeMicros === undefined ? {} : { time: timestampFromMicros(frame.timeMicros) }),
    ...(frame.progress === undefined ? {} : { progress: progress(frame.progress) }),
  });
}

function progress({ rows, estimatedRows }: core.SnapshotProgress) {
  return create(SnapshotProgressSchema, { rows: BigInt(rows), ...estimate(estimatedRows) });
}

function estimate(estimatedRows: number | undefined): { estimatedRows?: bigint } {
  return estimatedRows === undefined ? {} : { estimatedRows: BigInt(Math.round(estimatedRows)) };
}

function gap(frame: FrameOf<"gap">, terms: StreamTerms) {
  return create(GapSchema, {
    firstVersion: BigInt(frame.firstVersion),
    lastVersion: BigInt(frame.lastVersion),
    ...(frame.dropped === undefined ? {} : { dropped: BigInt(frame.dropped) }),
    reason: gapReasons[frame.reason],
    cursor: cursorText(frame.cursor, terms),
  });
}

function selectorsChanged(frame: FrameOf<"selectors_changed">, terms: StreamTerms) {
  return create(SelectorsChangedSchema, {
    cursor: cursorText(frame.cursor, terms),
    version: BigInt(frame.version),
    number: BigInt(frame.number),
    addsRows: frame.addsRows,
  });
}

function closing(frame: FrameOf<"closing">, terms: StreamTerms) {
  return create(ClosingSchema, {
    reason: reasons[frame.reason],
    cursor: cursorText(frame.cursor, terms),
    retryAfter: durationFromMs(Math.round(frame.retryAfterMs)),
  });
}
