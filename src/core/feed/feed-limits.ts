import { FeedError } from "../errors.ts";
import { DEFAULT_FILTER_LIMITS, type FilterLimits } from "../selector/filter/filter.ts";

/** What a feed takes on at most. Whoever goes beyond one of them is told LIMIT_EXCEEDED, with its name. */
export interface FeedLimits extends FilterLimits {
  /** Streams open at once on this process. Default 20,000. */
  readonly maxStreams: number;
  /**
   * Streams open at once of one `StreamRequest.peer`. Default 0, which means no limit but `maxStreams`: behind a proxy all
   * clients come from one address, and a limit that nobody asked for would cut them off.
   */
  readonly maxStreamsPerPeer: number;
  /** Selectors of one stream. Default 64. */
  readonly maxSelectors: number;
  /** Bytes of events held in memory, by `eventBytes`. Default 64 MiB. Beyond it the oldest leave: no error. */
  readonly logMaxBytes: number;
  /** Of these, bytes that are read from the table before the feed is ready. Default 64 MiB: a second or so. No error. */
  readonly warmBytes: number;
  /** Pages of history that are read at the same time. Default 4. Beyond it streams wait for their turn: no error. */
  readonly maxReads: number;
  /** Bytes of history pages kept for other streams in the same range, by `eventBytes`. Default 64 MiB. No error. */
  readonly historyCacheBytes: number;
  /** Different ways of delivery at once: see `Lane`. Default 10,000. */
  readonly maxLanes: number;
  /**
   * Bytes that each lane remembers for streams that come later to the same position. Default 4 MiB. Beyond it the oldest are
   * forgotten, and made again when they are asked for: no error.
   */
  readonly maxLaneBytes: number;
  /** Bytes that all lanes remember together. Default 256 MiB. Beyond it those of idle lanes are forgotten: no error. */
  readonly maxLanesBytes: number;
  /**
   * Bytes that one stream may have on their way: handed to its transport and not yet taken by the other side. Default 1 MiB.
   * At this many the transport is not ready for more, and the stream is slow: no error. A single frame may be larger.
   */
  readonly maxStreamBytes: number;
}

/** What a feed takes on when nobody says otherwise. */
export const DEFAULT_LIMITS: FeedLimits = {
  ...DEFAULT_FILTER_LIMITS,
  maxStreams: 20_000,
  maxStreamsPerPeer: 0,
  maxSelectors: 64,
  logMaxBytes: 64 * 1024 * 1024,
  warmBytes: 64 * 1024 * 1024,
  maxReads: 4,
  historyCacheBytes: 64 * 1024 * 1024,
  maxLanes: 10_000,
  maxLaneBytes: 4 * 1024 * 1024,
  maxLanesBytes: 256 * 1024 * 1024,
  maxStreamBytes: 1024 * 1024,
};

/** What time may heal, or another replica. */
const RETRY_AFTER_MS = 1_000;

/** LIMIT_EXCEEDED for `maxStreams`. */
export function tooManyStreams({ maxStreams }: FeedLimits): FeedError {
  return new FeedError(
    "LIMIT_EXCEEDED",
    `This server has ${maxStreams} streams open, which is its limit (maxStreams).`,
    "Close streams, try another replica, or raise the limit.",
    { retryAfterMs: RETRY_AFTER_MS },
  );
}

/** LIMIT_EXCEEDED for `maxStreamsPerPeer`. */
export function tooManyStreamsOfPeer({ maxStreamsPerPeer }: FeedLimits): FeedError {
  return new FeedError(
    "LIMIT_EXCEEDED",
    `This client has ${maxStreamsPerPeer} streams open on this server, which is the limit for each (maxStreamsPerPeer).`,
    "Close streams, ask for several things in the selectors of one stream, or raise the limit.",
    { retryAfterMs: RETRY_AFTER_MS },
  );
}

/** LIMIT_EXCEEDED for `maxLanes`. */
export function tooManyLanes(maxLanes: number): FeedError {
  return new FeedError(
    "LIMIT_EXCEEDED",
    `This server delivers in ${maxLanes} different ways already, which is its limit (maxLanes).`,
    "Use selectors, payload forms and batch sizes that other streams use too, try another replica, or raise the limit.",
    { retryAfterMs: RETRY_AFTER_MS },
  );
}

/** LIMIT_EXCEEDED for `maxSelectors`; time does not heal it. */
export function tooManySelectors(count: number, { maxSelectors }: FeedLimits): FeedError {
  return new FeedError(
    "LIMIT_EXCEEDED",
    `The stream has ${count} selectors; the limit is ${maxSelectors} (maxSelectors).`,
    "List several topics and keys in one selector, open several streams, or raise the limit.",
  );
}
