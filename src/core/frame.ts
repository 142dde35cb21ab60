import type { Cursor } from "./cursor.ts";
import type { Event, Version } from "./event.ts";
import type { Tick } from "./page.ts";
import type { GapReason } from "./policy/policy.ts";

/** How a stream stands to the feed. SNAPSHOT before all else while it delivers one. */
export type StreamState = "CATCHING_UP" | "LIVE" | "STALE" | "SNAPSHOT";

/** How far a snapshot has come. */
export interface SnapshotProgress {
  /** Rows delivered, of the whole snapshot. */
  readonly rows: number;
  /** `undefined` when nobody knows. */
  readonly estimatedRows: number | undefined;
}

/** Why a stream ends although nothing failed. */
export type ClosingReason = "DRAINING" | "DEADLINE" | "MAX_AGE" | "TAKEN_OVER" | "PAUSED" | "MOVED" | "DELETED";

/** A consumer's hold on a subscription. */
export interface Lease {
  readonly subscriptionId: string;
  readonly generation: number;
  /** Of a group; `undefined` otherwise. */
  readonly member: string | undefined;
  /** Most unacknowledged events of a group's member; `undefined` otherwise. */
  readonly maxInFlight: number | undefined;
}

/** Consecutive events of a stream. */
export interface EventsFrame {
  readonly kind: "events";
  readonly events: readonly Event[];
  readonly cursor: Cursor;
  /** It ends on a tick boundary. */
  readonly complete: boolean;
  /** The ticks that hold its events, in order, as far as they are known; only where the codec asks for them. */
  readonly ticks?: readonly Tick[] | undefined;
  /** Of a frame that a lane hands to many streams; absent when it is one stream's own. */
  readonly shared?: SharedFrame | undefined;
}

/** Where a transport keeps what it has made of a frame, for the other streams of the same lane, whose codec is the same. */
export interface SharedFrame {
  /** With its envelope. Nobody changes them. */
  bytes: Uint8Array | undefined;
}

/** What a stream says, in the order in which it says it. `proto/millrace/v1/feed_service.proto` gives each its meaning. */
export type Frame =
  | {
      readonly kind: "opened";
      readonly epoch: string;
      readonly version: Version;
      readonly cursor: Cursor;
      readonly head: Version;
      readonly oldest: Version;
      /** For `Feed.update`. Empty for the streams of subscriptions. */
      readonly streamId: string;
      /** Of a subscription's stream. */
      readonly lease?: Lease | undefined;
    }
  | EventsFrame
  | {
      readonly kind: "checkpoint";
      readonly cursor: Cursor;
      readonly version: Version;
      readonly state: StreamState;
      /** `undefined` when unknown. */
      readonly lagVersions: number | undefined;
      readonly lagMs: number | undefined;
      readonly timeMicros: number | undefined;
      /** Of the snapshot that is being delivered. With one, the checkpoint is no boundary. */
      readonly progress: SnapshotProgress | undefined;
    }
  | {
      /** Before the events that follow it; some of those of its own range may come after it. */
      readonly kind: "gap";
      /** Both inclusive. */
      readonly firstVersion: Version;
      readonly lastVersion: Version;
      /** Matching events within that do not come; `undefined` when they were not counted. */
      readonly dropped: number | undefined;
      readonly reason: GapReason;
      readonly cursor: Cursor;
    }
  | {
      /** Up to this version the old selectors, then the rows that the new ones add, then the new ones. */
      readonly kind: "selectors_changed";
      readonly version: Version;
      /** As `Feed.update` answered. */
      readonly number: number;
      /** Whether `snapshot_started` follows, and rows. */
      readonly addsRows: boolean;
      readonly cursor: Cursor;
    }
  | {
      readonly kind: "snapshot_started";
      readonly version: Version;
      readonly restart: boolean;
      readonly resumed: boolean;
      readonly topics: readonly string[];
      /** `undefined` when nobody knows. */
      readonly estimatedRows: number | undefined;
      readonly cursor: Cursor;
    }
  | { readonly kind: "snapshot_complete"; readonly version: Version; readonly cursor: Cursor; readonly rows: number }
  | {
      readonly kind: "closing";
      readonly reason: ClosingReason;
      readonly cursor: Cursor;
      readonly retryAfterMs: number;
    };
