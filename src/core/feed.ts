import type { Cursor } from "./cursor.ts";
import type { FeedError, FeedErrorCode } from "./errors.ts";
import type { Version } from "./event.ts";
import type { FeedStats } from "./feed/feed-stats.ts";
import type { Frame } from "./frame.ts";
import type { LaneCodec } from "./lane/lane.ts";
import type { Outlet, StreamControl } from "./outlet.ts";
import type { Policy } from "./policy/policy.ts";
import type { Publication, Published, Service } from "./ports.ts";
import type { Selector } from "./selector/selector.ts";

/** Where a stream begins. */
export type Start =
  | { readonly kind: "now" }
  | { readonly kind: "oldest" }
  | { readonly kind: "snapshot" }
  | { readonly kind: "cursor"; readonly cursor: string }
  | { readonly kind: "version"; readonly version: Version; readonly epoch: string | undefined }
  | { readonly kind: "time"; readonly timeMicros: number };

/** What a stream asks for. */
export interface StreamRequest {
  readonly start: Start;
  /** Their union; empty means everything. */
  readonly selectors: readonly Selector[];
  /** Milliseconds between two checkpoints at most, where there is a boundary; jittered by up to a tenth. */
  readonly checkpointIntervalMs: number;
  /** Events of one frame add up to at most this by `codec.measure`, unless it is a single one. */
  readonly maxBatchBytes: number;
  /** Most events of one frame. Default: as many as fit. */
  readonly maxBatchEvents?: number | undefined;
  /** How the stream's events become bytes. */
  readonly codec: LaneCodec;
  /** What becomes of a stream that cannot keep up. Default: BLOCK, which loses nothing. */
  readonly policy?: Policy | undefined;
  /** Events per second on average, at least 1; so many at once, too. Default: no limit. */
  readonly maxEventsPerSecond?: number | undefined;
  /** Whether a checkpoint is said at the end of every tick that the stream passes. Default false. */
  readonly checkpointEveryTick?: boolean | undefined;
  /**
   * Milliseconds that events may wait for more, so that a frame holds more of them. Default 0: they go out at once, and
   * together only as far as they came together.
   */
  readonly maxBatchDelayMs?: number | undefined;
  /**
   * Whoever opens the stream, as far as `FeedLimits.maxStreamsPerPeer` goes: the principal, or the address it comes from.
   * `undefined` is not counted.
   */
  readonly peer?: string | undefined;
  /** Who alone may update the stream. Empty while everybody is anonymous. Default: empty. */
  readonly principal?: string | undefined;
  /** `epoch:xid8` that must be settled before the start is fixed. */
  readonly afterTransaction: string | undefined;
  /** Monotonic milliseconds at which the call must have ended; `closing` comes before it. */
  readonly deadlineMs: number | undefined;
}

/** Other selectors for an open stream. */
export interface StreamUpdate {
  /** Of the stream's `opened`. */
  readonly streamId: string;
  /** Instead of those that it has. Their union; empty means everything. */
  readonly selectors: readonly Selector[];
  /** As `StreamRequest.principal` of the stream, or there is no such stream. */
  readonly principal?: string | undefined;
}

/** STARTING until the tail stands at the head; STALE while the database has not answered for a while. */
export type FeedState = "STARTING" | "LIVE" | "STALE" | "DRAINING";

/** Why a feed does not move. A `FeedError` is one, but its action is for clients; this one's is for operators. */
export interface FeedFailure {
  readonly code: FeedErrorCode;
  readonly message: string;
  readonly action: string;
}

/** Where this process stands. Reads nothing from the database. */
export interface FeedStatus {
  readonly epoch: string;
  readonly state: FeedState;
  readonly head: Version;
  readonly oldest: Version;
  /** Milliseconds since the database last answered; `undefined` before the first answer. */
  readonly settledAgeMs: number | undefined;
  /** Time of the last non-empty tick, microseconds since the Unix epoch. */
  readonly settledAtMicros: number | undefined;
  readonly streams: number;
  readonly logBytes: number;
  readonly logEvents: number;
  readonly logOldest: Version;
  /** Why it is STALE, or still STARTING. */
  readonly failure: FeedFailure | undefined;
}

/** A stream whose start is fixed, and whose frames have yet to flow. Attach or close it. */
export interface OpenStream {
  /** Its first frame. */
  readonly opened: Frame;
  /** `FeedLimits.maxStreamBytes`: with so many bytes on their way the outlet is not ready for more. */
  readonly maxBytes: number;
  /** All other frames go there, from now on. Once. */
  attach(outlet: Outlet): StreamControl;
  /** Leaves nothing behind, when nobody attached. Idempotent. */
  close(): void;
}

/** One process's view of the feed: the tail that fills the log, and the streams that read it. */
export interface Feed extends Service {
  status(): FeedStatus;
  /** For metrics. Looks at every stream: ask seconds apart. */
  stats(): FeedStats;
  /** The first frame is `opened`; failures before it reject the first `next()`. Ends with `closing`, an error, or the signal. */
  subscribe(request: StreamRequest, signal: AbortSignal): AsyncIterable<Frame>;
  /**
   * The same for those who are called instead of asking: resolves when the start is fixed. The signal ends the opening, and
   * means nothing afterwards.
   */
  open(request: StreamRequest, signal: AbortSignal): Promise<OpenStream>;
  /**
   * Changes the selectors of a stream, on whichever replica it is. Resolves with the number of the change, from 1 for each
   * stream, once it is accepted; it takes effect at the stream's `selectors_changed` with that number. Another one that is
   * accepted before that takes its place.
   */
  update(request: StreamUpdate, signal: AbortSignal): Promise<number>;
  /** Throws what `open` would throw for these selectors: INVALID_REQUEST, FILTER_INVALID, LIMIT_EXCEEDED. */
  check(selectors: readonly Selector[]): void;
  /** Where a stream with this start would begin, without opening one. A snapshot begins with the first stream from there. */
  locate(start: Start, signal: AbortSignal): Promise<Cursor>;
  /**
   * The cursor of something that was delivered, as it is known to be good: of the epoch in force, or shared with it, and
   * settled. Asks the database only when it lies beyond what this replica has seen. Also while the feed drains.
   *
   * @throws FeedError CURSOR_INVALID, EPOCH_CHANGED
   */
  recognise(cursor: string, signal: AbortSignal): Promise<Cursor>;
  /** Resolves with the version of its last event once settled, `undefined` when that takes longer than `settleTimeoutMs`. */
  publish(request: Publication, signal: AbortSignal): Promise<Published>;
  /** No new streams; each open one gets `closing` and ends. Resolves when all have ended or the grace period is over. */
  drain(graceMs: number): Promise<void>;
}

/** Told of what a feed does, for metrics. Its calls are cheap and do not throw. */
export interface FeedObserver {
  /** The database answered a tick after so many milliseconds, with so many events that were settled. */
  advanced(durationMs: number, events: number): void;
  /** A tick failed. */
  failed(code: FeedErrorCode): void;
}

/** A feed over one store, and so of one epoch. */
export interface EpochFeed extends Feed {
  /**
   * Every open stream ends with this error, also in the middle of a snapshot; calls that have not begun are to be tried
   * again. For when another feed has taken this one's place. Stop it afterwards.
   */
  end(reason: FeedError): void;
  /**
   * Has the tail break off what it waits for and go on where the log ends. Streams stay open. For who sees from outside that
   * it stands still.
   */
  restart(reason: FeedError): void;
}
