import { type Cursor, encodeCursor } from "../core/cursor.ts";
import type { Version } from "../core/event.ts";
import type { Start, StreamRequest } from "../core/feed.ts";
import { eventBytes } from "../core/page.ts";
import { BLOCK, type Policy } from "../core/policy/policy.ts";
import type { Selector } from "../core/selector/selector.ts";
import { assertWithinBounds } from "./bounds.ts";

/** Where to begin. A cursor may be as a frame carries it, or its text, from any transport. */
export type From =
  | "now"
  | "oldest"
  | "snapshot"
  | { readonly cursor: Cursor | string }
  | { readonly version: Version; readonly epoch?: string | undefined }
  | { readonly time: Date };

/** What a consumer in this process asks for: the same as `SubscribeRequest`. */
export interface FollowOptions {
  /** Default "now". */
  readonly from?: From | undefined;
  /** Their union; what is left out of one means everything. Default: everything. */
  readonly selectors?: readonly Partial<Selector>[] | undefined;
  /** What happens when the consumer does not keep up. Default: BLOCK, which loses nothing. */
  readonly policy?: (Partial<Policy> & Pick<Policy, "kind">) | undefined;
  /** Default: as many as came together. */
  readonly maxBatchEvents?: number | undefined;
  /** By `eventBytes`. Default 1 MiB. */
  readonly maxBatchBytes?: number | undefined;
  /** Milliseconds that events may wait for more of them. Default 0. */
  readonly maxBatchDelayMs?: number | undefined;
  /** Default: no limit. */
  readonly maxEventsPerSecond?: number | undefined;
  /** Longest silence in milliseconds. Default 15,000. */
  readonly checkpointIntervalMs?: number | undefined;
  /** A checkpoint at the end of every tick. Default false. */
  readonly checkpointEveryTick?: boolean | undefined;
  /** `epoch:xid8` that must be settled before the start is fixed: read-your-writes. */
  readonly afterTransaction?: string | undefined;
}

const MAX_BATCH_BYTES = 1_048_576;
/** Longest silence unless somebody says otherwise. */
export const CHECKPOINT_INTERVAL_MS = 15_000;
/** Nothing becomes bytes here; all consumers of this process may share what their selectors see. */
export const codec = { identity: "in-process", measure: eventBytes };

/**
 * The core's form of it.
 *
 * @throws FeedError INVALID_REQUEST
 */
export function streamRequestOf(options: FollowOptions): StreamRequest {
  assertWithinBounds(options);
  const { policy, maxBatchEvents, maxBatchDelayMs, maxEventsPerSecond, checkpointEveryTick } = options;
  return {
    start: startOf(options.from ?? "now"),
    selectors: (options.selectors ?? []).map((selector) => ({ topics: [], keys: [], operations: [], ...selector })),
    policy: policy && {
      kind: policy.kind,
      maxLagEvents: policy.maxLagEvents ?? BLOCK.maxLagEvents,
      sampleEvery: policy.sampleEvery ?? BLOCK.sampleEvery,
    },
    maxBatchBytes: options.maxBatchBytes ?? MAX_BATCH_BYTES,
    maxBatchEvents,
    maxBatchDelayMs,
    maxEventsPerSecond,
    checkpointIntervalMs: options.checkpointIntervalMs ?? CHECKPOINT_INTERVAL_MS,
    checkpointEveryTick,
    codec,
    afterTransaction: options.afterTransaction,
    deadlineMs: undefined,
  };
}

/** The core's form of where to begin. */
export function startOf(from: From): Start {
  if (typeof from === "string") {
    return { kind: from };
  }
  if ("cursor" in from) {
    return { kind: "cursor", cursor: typeof from.cursor === "string" ? from.cursor : encodeCursor(from.cursor) };
  }
  if ("version" in from) {
    return { kind: "version", version: from.version, epoch: from.epoch };
  }
  return { kind: "time", timeMicros: from.time.getTime() * 1000 };
}
