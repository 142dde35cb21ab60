import { create } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import {
  CheckpointSchema,
  ClosingReason,
  ClosingSchema,
  OpenedSchema,
  SnapshotCompleteSchema,
  SnapshotProgressSchema,
  SnapshotStartedSchema,
  StreamState,
  type SubscribeResponse,
  SubscribeResponseSchema,
} from "../../gen/millrace/v1/feed_service_pb.js";
import { type Cursor, encodeCursor } from "../core/cursor.ts";
import type * as core from "../core/frame.ts";
import { ENVELOPE_BYTES, type EventCodec } from "./codec.ts";
import { timestampFromMicros } from "./event-message.ts";

/** What `opened` tells of the terms of the stream. */
export interface StreamTerms {
  readonly maxMessageBytes: number;
  readonly maxBatchBytes: number;
  readonly checkpointIntervalMs: number;
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

/** Beside it there is nothing in these frames that is larger than two envelopes. */
function cursorText(cursor: Cursor, terms: StreamTerms): string {
  return encodeCursor(cursor, terms.maxMessageBytes - 2 * ENVELOPE_BYTES);
}

function response(frame: SubscribeResponse["frame"]): SubscribeResponse {
  return create(SubscribeResponseSchema, { frame });
}

function opened(frame: FrameOf<"opened">, terms: StreamTerms) {
  return create(OpenedSchema, {
    epoch: frame.epoch,
    version: BigInt(frame.version),
    cursor: cursorText(frame.cursor, terms),
    headVersion: BigInt(frame.head),
    oldestVersion: BigInt(frame.oldest),
    maxMessageBytes: terms.maxMessageBytes,
    maxBatchBytes: terms.maxBatchBytes,
    checkpointInterval: durationFromMs(terms.checkpointIntervalMs),
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

function closing(frame: FrameOf<"closing">, terms: StreamTerms) {
  return create(ClosingSchema, {
    reason: reasons[frame.reason],
    cursor: cursorText(frame.cursor, terms),
    retryAfter: durationFromMs(Math.round(frame.retryAfterMs)),
  });
}
