import type { Event, Operation, Version } from "./event.ts";
import type { Lineage } from "./lineage.ts";
import type { Page, Tick } from "./page.ts";

/**
 * What the core asks of a database. `src/postgres` and `src/memory` implement these; one contract suite
 * (`test/contract`) holds both to the same meaning.
 *
 * Every method that waits takes an AbortSignal and rejects with its reason. Failures are `FeedError`s. The epoch and its
 * lineage are fixed while the store is open; every method that asks the database rejects with `EpochOver` when that does not
 * continue the epoch any more.
 */
export interface FeedStore extends Lineage {
  /** Whether it may hide events from everybody (`HIDDEN_TOPIC`). Default false. */
  readonly hides?: boolean | undefined;

  /** Oldest readable version and last settled one, as the database says now. `oldest` is `head + 1` when nothing is kept. */
  bounds(signal: AbortSignal): Promise<Bounds>;

  /**
   * Settles what has committed since the last tick, if anything, and then returns the versions after `after`, whoever
   * settled them: as many as a page holds, or `undefined` when `after` is the head. What it returns is durable.
   * Safe from any number of processes at once. For the one tail of a process; on a connection of its own.
   * Settles nothing, and rejects with `EpochOver`, when the newest tick that the store has ever shown is not the database's
   * any more: a disk that was rolled back.
   */
  advance(after: Version, signal: AbortSignal): Promise<Page | undefined>;

  /**
   * The versions after `after`, as many as a page holds; `undefined` when `after` is the head. Repeatable. For any number
   * of streams that read history; from a bounded pool apart from the tail's connection.
   * Rejects with HISTORY_LOST when `after + 1` is older than what is kept.
   */
  readAfter(after: Version, signal: AbortSignal): Promise<Page | undefined>;

  /** The tick that settled this version. Version 0 gives tick 0. `undefined` when it is beyond the head or not kept. */
  tickOf(version: Version, signal: AbortSignal): Promise<Tick | undefined>;

  /** The last tick with a time at or before this; `undefined` when all that are kept are later. */
  tickAt(timeMicros: number, signal: AbortSignal): Promise<Tick | undefined>;

  /** A consistent copy of the selected sources. See `SnapshotReader`. */
  snapshot(request: SnapshotRequest, signal: AbortSignal): Promise<SnapshotReader>;

  /** Appends application events in one transaction. */
  publish(request: Publication, signal: AbortSignal): Promise<Published>;

  /**
   * Resolves when the transaction has ended (committed or rolled back) and a tick at or after its end exists, with that
   * tick's last version. Rejects with INVALID_REQUEST for a transaction that has not begun yet.
   */
  settled(xid: string, signal: AbortSignal): Promise<Version>;
}

/** What is readable: `oldest` to `head`, both inclusive. */
export interface Bounds {
  readonly oldest: Version;
  readonly head: Version;
}

/** Which rows a snapshot holds, and where it goes on. */
export interface SnapshotRequest {
  /** Tells by a source's topic (or template) whether it is wanted at all. */
  readonly wantsSource: (topic: string) => boolean;
  /** The only keys that are wanted of a source, `undefined` for all. A hint: rows of other keys may come nevertheless. */
  readonly wantedKeys?: ((topic: string) => readonly string[] | undefined) | undefined;
  /** The selectors as text: a place that was found with others is no place to go on from. */
  readonly selection?: string | undefined;
  /** How far an earlier snapshot came. Its rows are not copied again, unless `SnapshotReader.resumed` says so. */
  readonly after?: SnapshotPlace | undefined;
}

/**
 * How far the rows of a snapshot have come: so many whole sources, and those rows of the next one whose keys are not
 * after `key` in the order of the source's rows.
 */
export interface SnapshotPlace {
  /** Hash (unsigned, 32 bits) of the selection, and of the sources and how they are captured, in their order. */
  readonly shape: number;
  /** Sources that are complete. */
  readonly sources: number;
  /** `Event.key` of the last row of the next source; `undefined` at its beginning. */
  readonly key: string | undefined;
  /** Rows delivered up to here, of all sources. */
  readonly rows: number;
}

/** One source in a snapshot. */
export interface SnapshotPart {
  /** Topic or template. */
  readonly topic: string;
  /** Its rows come in a total order of their keys: the snapshot can go on after any of them. */
  readonly ordered: boolean;
  /** As the planner knows, often wrong by a tenth; `undefined` when it knows nothing. */
  readonly estimatedRows: number | undefined;
}

/**
 * Rows of sources as of one tick. The database transaction never waits for the consumer: rows are spooled, and reading
 * them is reading the spool. Close it on every path.
 */
export interface SnapshotReader {
  /** The rows are as of the end of this tick. */
  readonly tick: Tick;
  /** The sources in the order in which their rows come, those before `after` among them. */
  readonly parts: readonly SnapshotPart[];
  /** Goes into every `SnapshotPlace` of this snapshot. */
  readonly shape: number;
  /**
   * Whether the rows begin after `SnapshotRequest.after`. False when there was none, and when it means nothing any more:
   * other selectors, a source watched differently, a source without an order.
   */
  readonly resumed: boolean;
  /** Rows after `after`, in batches of one source each. Ends early, without an error, when `cut` is true afterwards. */
  rows(): AsyncIterable<SnapshotRows>;
  /**
   * The copy was ended by its deadline or by the bounds of its spool: what was read is good, and the rest is to be had with
   * another snapshot, after the last row. Never for want of an order: then `rows` rejects with LIMIT_EXCEEDED.
   */
  readonly cut: boolean;
  /**
   * Of settled events after the earlier snapshot's version, those that concern what lies before `SnapshotRequest.after`,
   * and those of no source in the snapshot. The others are in the rows. Only when `resumed`.
   */
  concerning(events: readonly Event[], signal: AbortSignal): Promise<readonly Event[]>;
  close(): Promise<void>;
}

/** Successive rows of one source. */
export interface SnapshotRows {
  /** Index in `SnapshotReader.parts`. */
  readonly part: number;
  /**
   * SNAPSHOT events with the version `tickEnd(tick)`, in the order of the source's keys. None of them says only that the
   * parts before this one are complete.
   */
  readonly events: readonly Event[];
}

/** Application events to append in one transaction. */
export interface Publication {
  readonly events: readonly NewEvent[];
  /** Empty for none. */
  readonly idempotencyKey: string;
  /** Whose key it is. Empty while everybody is anonymous. */
  readonly principal: string;
}

/** An event before it has its place. */
export interface NewEvent {
  readonly topic: string;
  readonly key: string | undefined;
  readonly operation: Operation;
  /** JSON text. */
  readonly payload: string | undefined;
  readonly headers: Readonly<Record<string, string>>;
}

/** What committed. */
export interface Published {
  /** Decimal xid8. */
  readonly xid: string;
  readonly duplicate: boolean;
  /** Of its last event, where the store knows it already: of a duplicate that is settled and kept, as a rule. */
  readonly version: Version | undefined;
}

/**
 * Says when to advance again. A hint may come too often, too late or never, so that `wait` also ends by itself: polling is
 * the truth.
 */
export interface WakeUp {
  /**
   * Resolves when it is time to advance again: at once after `nudge`, soon while there is traffic, at the latest after the
   * idle interval. `found` says whether the last advance found anything.
   */
  wait(found: boolean, signal: AbortSignal): Promise<void>;
  /** This process has just committed events: do not sleep over them. */
  nudge(): void;
}

/** Time and chance, as arguments: simulation replaces them. */
export interface Clock {
  /** Milliseconds since the Unix epoch. */
  now(): number;
  /** Monotonic milliseconds. */
  monotonic(): number;
  /** Uniform in [0, 1): jitter. */
  random(): number;
}

/** Callbacks later, for the same reason as `Clock`. `systemTimers` is the machine's own. */
export interface Timers {
  /** Calls `wake` once, after `delayMs` or a little later. The result cancels it. */
  after(delayMs: number, wake: () => void): () => void;
  /** Resolves in a later turn of the event loop: input and other streams come first. */
  turn(): Promise<void>;
}

/**
 * The life of every background service. `start` resolves when it is ready, or rejects and leaves nothing behind. `stop` is
 * idempotent, safe before `start`, and resolves when everything has ended.
 */
export interface Service {
  start(signal: AbortSignal): Promise<void>;
  stop(): Promise<void>;
}
