import type { Cursor } from "./cursor.ts";
import type { Event, Version } from "./event.ts";

/** How a stream stands to the feed. */
export type StreamState = "CATCHING_UP" | "LIVE" | "STALE";

/** Why a stream ends although nothing failed. */
export type ClosingReason = "DRAINING" | "DEADLINE";

/** What a stream says, in the order in which it says it. `proto/millrace/v1/feed_service.proto` gives each its meaning. */
export type Frame =
  | {
      readonly kind: "opened";
      readonly epoch: string;
      readonly version: Version;
      readonly cursor: Cursor;
      readonly head: Version;
      readonly oldest: Version;
    }
  | { readonly kind: "events"; readonly events: readonly Event[]; readonly cursor: Cursor; readonly complete: boolean }
  | {
      readonly kind: "checkpoint";
      readonly cursor: Cursor;
      readonly version: Version;
      readonly state: StreamState;
      /** `undefined` when unknown. */
      readonly lagVersions: number | undefined;
      readonly lagMs: number | undefined;
      readonly timeMicros: number | undefined;
    }
  | {
      readonly kind: "snapshot_started";
      readonly version: Version;
      readonly restart: boolean;
      readonly topics: readonly string[];
    }
  | { readonly kind: "snapshot_complete"; readonly version: Version; readonly cursor: Cursor; readonly rows: number }
  | {
      readonly kind: "closing";
      readonly reason: ClosingReason;
      readonly cursor: Cursor;
      readonly retryAfterMs: number;
    };
