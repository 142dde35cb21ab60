import type { Cursor } from "../cursor.ts";
import type { Event, Version } from "../event.ts";
import type { StreamRequest } from "../feed.ts";
import type { Lease } from "../frame.ts";

/** How much a page holds at most, and how long its caller waits for it. */
export interface PageTerms {
  /** At least 1. */
  readonly maxEvents: number;
  /** By the codec's `measure`; a single event may be larger. */
  readonly maxBytes: number;
  /** Milliseconds that it may wait while there is nothing. 0 for not at all. */
  readonly timeoutMs: number;
  /** Monotonic milliseconds at which the call must have ended; it is answered a moment before. */
  readonly deadlineMs: number | undefined;
}

/** What a page is asked for from a position. */
export interface PollRequest
  extends PageTerms,
    Pick<StreamRequest, "start" | "selectors" | "codec" | "peer" | "principal"> {}

/** The first events after a position that match. */
export interface PolledPage {
  readonly events: readonly Event[];
  /** Where the next page begins. */
  readonly cursor: Cursor;
  /** Something is settled behind the cursor, whether or not it matches. */
  readonly hasMore: boolean;
  /** It ends on a tick boundary. */
  readonly complete: boolean;
  /**
   * It was cut by a limit, and is what the events alone make it: the same for everybody who asks from there for the same, as
   * long as the epoch is in force. Never with a lease.
   */
  readonly full: boolean;
  /** The last settled version; `undefined` when `full`, since that changes. */
  readonly head: Version | undefined;
  /** Of a page by subscription. */
  readonly lease: Lease | undefined;
  /** Of a page by subscription: it is not paused. */
  readonly active: boolean;
}

/** How polls were answered: `full` when cut by a limit, `failed` with an error or because the caller had gone. */
export type PollAnswer = "full" | "partial" | "empty" | "failed";

/** For metrics. */
export interface PollStats {
  /** Polls that wait because there is nothing for them yet. */
  readonly waiting: number;
  /** Totals. */
  readonly answered: Readonly<Record<PollAnswer, number>>;
}
