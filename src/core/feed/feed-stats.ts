import type { FeedErrorCode } from "../errors.ts";
import type { HistoryStats } from "../history/history-readers.ts";
import type { PolicyKind } from "../policy/policy.ts";
import type { StreamPhase } from "../stream/stream-phase.ts";

/**
 * How a stream ended: `CLOSING` when it said so itself, `CANCELLED` when its client went away or its time was over, otherwise
 * the code of the error that it ended with.
 */
export type StreamEnd = "CLOSING" | "CANCELLED" | FeedErrorCode;

/**
 * What a feed holds and what it has done, for metrics. What is called a total only rises as long as the feed lives; a feed
 * of another epoch begins at 0 again.
 */
export interface FeedStats {
  /** Open streams whose start is fixed, by where they are in their life. */
  readonly streamsByPhase: Readonly<Record<StreamPhase, number>>;
  /** The same streams by what happens to them when they cannot keep up; policies that nobody has are absent. */
  readonly streamsByPolicy: Readonly<Partial<Record<PolicyKind, number>>>;
  /** How far each of these streams is behind the head in versions; 0 when nothing that it wants lies in between. */
  readonly lagVersions: readonly number[];
  /** The same distances in milliseconds: the age of the first version not passed; `undefined` when it is not in the log. */
  readonly lagMs: readonly (number | undefined)[];
  /** Different ways of delivery at the moment. */
  readonly lanes: number;
  /** Bytes that they remember. */
  readonly laneBytes: number;
  /** Total of streams whose start was fixed. */
  readonly opened: number;
  /** Total of streams that ended, by how. Absent means none. */
  readonly ended: Readonly<Partial<Record<StreamEnd, number>>>;
  /** Total of frames of all kinds that streams handed on. */
  readonly frames: number;
  /** Total of events in them. One event that two streams get counts twice. */
  readonly events: number;
  /** Total of events that policies left out, as far as gaps could count them. */
  readonly droppedEvents: number;
  /** Total of times that a stream fell behind the log, or began there, and went on from the table. */
  readonly catchUps: number;
  /** Total of filters that failed on an event, which counts as no match. */
  readonly filterErrors: number;
  /** Total of events that came into the log while there were streams. */
  readonly dispatched: number;
  /** Total of times that one of these was shown to a lane: the work of dispatch. */
  readonly laneTouches: number;
  /** How the table is read for streams that are behind the log. */
  readonly history: HistoryStats;
}

/** Of a feed that has done nothing yet. */
export const NO_STATS: FeedStats = {
  streamsByPhase: { opening: 0, snapshot: 0, catching_up: 0, live: 0, closing: 0 },
  streamsByPolicy: {},
  lagVersions: [],
  lagMs: [],
  lanes: 0,
  laneBytes: 0,
  opened: 0,
  ended: {},
  frames: 0,
  events: 0,
  droppedEvents: 0,
  catchUps: 0,
  filterErrors: 0,
  dispatched: 0,
  laneTouches: 0,
  history: { reads: 0, shared: 0, errors: 0, reading: 0, waiting: 0, cachedPages: 0, cachedBytes: 0 },
};

/** What the streams of a feed have done so far. */
export class DeliveryTotals {
  opened = 0;
  frames = 0;
  events = 0;
  droppedEvents = 0;
  catchUps = 0;
  filterErrors = 0;
  readonly ended: Partial<Record<StreamEnd, number>> = {};

  countFilterError(): void {
    this.filterErrors += 1;
  }

  countEnd(end: StreamEnd): void {
    this.ended[end] = (this.ended[end] ?? 0) + 1;
  }
}
