import type { FeedError } from "../errors.ts";
import type { Version } from "../event.ts";
import type { Frame } from "../frame.ts";

/** What whoever drives a stream does next; then it calls `step` again. */
export type StreamAction =
  /** Hand it to the client. */
  | { readonly kind: "emit"; readonly frame: Frame }
  /** Begin to read the history after this version, and `supply` it when it has come. Said once per read. */
  | { readonly kind: "read"; readonly after: Version }
  /** Begin to get the snapshot's next step, and `supplySnapshot` it when it has come. Said once per step. */
  | { readonly kind: "snapshot" }
  /** Begin to get the rows that the change of selectors adds, and `supplyChange` how they begin. Said once per change. */
  | { readonly kind: "open_change" }
  /** Sleep until the feed changes, a read or a step has come, or this moment (monotonic milliseconds; may be infinity). */
  | { readonly kind: "wait"; readonly untilMs: number }
  /** There is more to look at: step again, when others have had their turn. */
  | { readonly kind: "more" }
  /** Its client is too slow for it: nothing but this error follows. */
  | { readonly kind: "fail"; readonly error: FeedError }
  /** The last frame was emitted. */
  | { readonly kind: "end" };

/** Of those that say nothing more than what they are. */
export const SNAPSHOT: StreamAction = { kind: "snapshot" };
/** As `SNAPSHOT`. */
export const OPEN_CHANGE: StreamAction = { kind: "open_change" };
/** As `SNAPSHOT`. */
export const MORE: StreamAction = { kind: "more" };
/** As `SNAPSHOT`. */
export const END: StreamAction = { kind: "end" };
