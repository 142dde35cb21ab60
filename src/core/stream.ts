import type { Cursor } from "./cursor.ts";
import { FeedError } from "./errors.ts";
import type { Version } from "./event.ts";
import type { ClosingReason, Frame, StreamState } from "./frame.ts";
import type { Lane } from "./lane.ts";
import type { Log } from "./log.ts";
import { type Page, pageEnd, tickEnd, tickHolding } from "./page.ts";
import type { Clock } from "./ports.ts";
import { type Position, Progress } from "./scan.ts";
import { SnapshotDelivery } from "./snapshot-delivery.ts";
import type { SnapshotStarted, SnapshotStep } from "./snapshot-run.ts";
import { nextPhase, type StreamOccurrence, type StreamPhase } from "./stream-phase.ts";

/** Share of the checkpoint interval that chance adds, so that streams opened together do not speak together for ever. */
const JITTER = 0.1;
/** Drained clients come back within this, spread out. */
const DRAIN_RETRY_MS = 1_000;

/** What a stream sees of the feed: read at every step, never awaited. */
export interface FeedView {
  readonly epoch: string;
  readonly log: Log;
  /** The database has not answered for a while: what is committed meanwhile is unknown. */
  readonly stale: boolean;
  readonly draining: boolean;
  /** Oldest version that the database is known to keep. */
  readonly oldest: Version;
}

/** What a stream was asked for. */
export interface StreamOptions {
  readonly lane: Lane;
  readonly checkpointIntervalMs: number;
  /** Monotonic milliseconds at which the stream says `closing`; infinity for never. */
  readonly closesAtMs: number;
}

/** What whoever drives a stream does next; then it calls `step` again. */
export type StreamAction =
  /** Hand it to the client. */
  | { readonly kind: "emit"; readonly frame: Frame }
  /** Begin to read the history after this version, and `supply` it when it has come. Said once per read. */
  | { readonly kind: "read"; readonly after: Version }
  /** Begin to get the snapshot's next step, and `supplySnapshot` it when it has come. Said once per step. */
  | { readonly kind: "snapshot" }
  /** Sleep until the feed changes, a read or a step has come, or this moment (monotonic milliseconds; may be infinity). */
  | { readonly kind: "wait"; readonly untilMs: number }
  /** There is more to look at: step again, when others have had their turn. */
  | { readonly kind: "more" }
  /** The last frame was emitted. */
  | { readonly kind: "end" };

const SNAPSHOT: StreamAction = { kind: "snapshot" };
const MORE: StreamAction = { kind: "more" };
const END: StreamAction = { kind: "end" };

/**
 * One stream, as a machine without threads, timers or I/O: whoever drives it asks for the next `step` and does what it
 * says. Time and chance come from the clock that it is given, so a run can be replayed.
 *
 * A stream holds a position and nothing else. What follows the position comes from the log when the log has it (live) and
 * from the table when it has not (catching up); that is decided anew at every step from two numbers, so there is no moment
 * of changing over at which an event could be skipped or doubled. A slow client makes a slow stream, whose position falls
 * off the log's tail; it costs the table a few reads, and nobody else anything.
 *
 * Checkpoints are said only at tick boundaries after which nothing was delivered: all events of a transaction lie in one
 * tick, so they lie between two checkpoints. Those within a snapshot tell of progress and are called otherwise: there no
 * boundary comes before its end.
 */
export class Stream {
  readonly #view: FeedView;
  readonly #options: StreamOptions;
  readonly #clock: Clock;
  #phase: StreamPhase = "opening";
  #progress: Progress;
  #snapshot: SnapshotDelivery | undefined;
  /** Frames that were decided together and wait to be emitted. */
  readonly #queue: Frame[] = [];
  /** History that was read and not yet passed. */
  #page: Page | undefined;
  #reading = false;
  /** The state that the client was last told, or may take for granted. */
  #told: StreamState;
  #checkpointAtMs: number;

  constructor(start: Position, view: FeedView, options: StreamOptions, clock: Clock) {
    this.#view = view;
    this.#options = options;
    this.#clock = clock;
    this.#progress = new Progress(start);
    this.#told = this.#inLog() ? "LIVE" : "CATCHING_UP";
    this.#checkpointAtMs = this.#nextCheckpoint(clock.monotonic());
  }

  get phase(): StreamPhase {
    return this.#phase;
  }

  /** Begins after the start position. */
  begin(): void {
    this.#occur("positioned");
    this.#queue.push(this.#opened(undefined));
  }

  /** Begins in a snapshot, whose first step this is. */
  beginSnapshot(started: SnapshotStarted): void {
    this.#occur("snapshot_begun");
    this.#snapshot = new SnapshotDelivery(started, this.#options.lane.scan);
    // Whoever is cut between these two still holds what is to be dropped, and must be told of it again.
    this.#queue.push(this.#opened(started.restart ? "anew" : started.state.place), this.#snapshotStarted(started));
  }

  /** What the snapshot did next; `undefined` when it is complete. */
  supplySnapshot(step: SnapshotStep | undefined): void {
    this.#snapshot?.supply(step);
    if (step?.kind === "started") {
      this.#queue.push(this.#snapshotStarted(step));
    }
  }

  /** What the read gave; `undefined` when there is nothing, or it failed and is to be tried again. */
  supply(page: Page | undefined): void {
    this.#reading = false;
    if (page !== undefined) {
      const next = this.#progress.scanned + 1;
      if (next < page.firstVersion || next > pageEnd(page)) {
        throw new FeedError(
          "INTERNAL",
          `The page from version ${page.firstVersion} does not hold version ${next}, which was asked for.`,
          "Report this as a fault of Millrace.",
        );
      }
    }
    this.#page = page;
  }

  /** Gives back history that was read: a client that takes nothing shall cost nothing. It is read again. */
  forget(): void {
    this.#page = undefined;
  }

  /** `nowMs` is monotonic. */
  step(nowMs: number): StreamAction {
    if (this.#phase === "closing") {
      return END;
    }
    const queued = this.#queue.shift();
    if (queued !== undefined) {
      return this.#emit(queued, nowMs);
    }
    if (this.#view.draining || nowMs >= this.#options.closesAtMs) {
      const closing = this.#closing(this.#view.draining ? "DRAINING" : "DEADLINE");
      this.#occur("closed");
      return this.#emit(closing, nowMs);
    }
    return this.#snapshot === undefined ? this.#stepEvents(nowMs) : this.#stepSnapshot(this.#snapshot, nowMs);
  }

  #stepSnapshot(snapshot: SnapshotDelivery, nowMs: number): StreamAction {
    const events = snapshot.take();
    if (events !== undefined) {
      return this.#emit(this.#options.lane.frame(events, this.#cursor(), false), nowMs);
    }
    if (snapshot.complete) {
      return this.#emit(this.#snapshotComplete(snapshot), nowMs);
    }
    if (snapshot.pull()) {
      return SNAPSHOT;
    }
    if (nowMs >= this.#checkpointAtMs) {
      return this.#emit(this.#checkpoint(), nowMs);
    }
    return { kind: "wait", untilMs: Math.min(this.#checkpointAtMs, this.#options.closesAtMs) };
  }

  #snapshotStarted({ version, restart, resumed, topics, estimatedRows }: SnapshotStarted): Frame {
    return { kind: "snapshot_started", version, restart, resumed, topics, estimatedRows, cursor: this.#cursor() };
  }

  #snapshotComplete({ state }: SnapshotDelivery): Frame {
    this.#snapshot = undefined;
    this.#progress = new Progress(state.position);
    this.#occur("snapshot_done");
    this.#told = this.#inLog() ? "LIVE" : "CATCHING_UP";
    const { version } = state.position;
    return { kind: "snapshot_complete", version, cursor: this.#cursor(), rows: state.rows };
  }

  #stepEvents(nowMs: number): StreamAction {
    const { lane } = this.#options;
    const progress = this.#progress;
    lane.skip(progress);
    this.#occur(this.#inLog() ? "met_the_log" : "fell_behind");
    if (progress.clean && this.#told !== this.#state()) {
      return this.#emit(this.#checkpoint(), nowMs);
    }
    const step = lane.next(progress, this.#page);
    if (step !== undefined) {
      progress.pass(step);
      this.#letGoOfPassed();
      if (step.frame !== undefined) {
        return this.#emit(step.frame, nowMs);
      }
    } else if (this.#lacksPage()) {
      // Before a checkpoint that is due: else a client that is slower than its interval would get nothing but checkpoints.
      this.#reading = true;
      return { kind: "read", after: progress.scanned };
    }
    if (progress.clean && nowMs >= this.#checkpointAtMs) {
      return this.#emit(this.#checkpoint(), nowMs);
    }
    if (step !== undefined) {
      return MORE;
    }
    const checkpointAtMs = progress.clean ? this.#checkpointAtMs : Number.POSITIVE_INFINITY;
    return { kind: "wait", untilMs: Math.min(checkpointAtMs, this.#options.closesAtMs) };
  }

  /** What comes next is neither at hand nor on its way. */
  #lacksPage(): boolean {
    return !this.#inLog() && this.#page === undefined && !this.#reading;
  }

  #letGoOfPassed(): void {
    if (this.#page !== undefined && (this.#inLog() || pageEnd(this.#page) <= this.#progress.scanned)) {
      this.#page = undefined;
    }
  }

  /** Whether what comes next is in the log, or will be: the table may be ahead of it. */
  #inLog(): boolean {
    return this.#progress.scanned + 1 >= this.#view.log.oldest;
  }

  #state(): StreamState {
    if (this.#view.stale) {
      return "STALE";
    }
    return this.#inLog() ? "LIVE" : "CATCHING_UP";
  }

  #occur(occurrence: StreamOccurrence): void {
    this.#phase = nextPhase(this.#phase, occurrence);
  }

  #emit(frame: Frame, nowMs: number): StreamAction {
    this.#checkpointAtMs = this.#nextCheckpoint(nowMs);
    return { kind: "emit", frame };
  }

  #nextCheckpoint(nowMs: number): number {
    return nowMs + this.#options.checkpointIntervalMs * (1 + JITTER * this.#clock.random());
  }

  get #position(): Position {
    return this.#snapshot?.state.position ?? this.#progress.position;
  }

  #cursor(snapshot: Cursor["snapshot"] = this.#snapshot?.state.place): Cursor {
    const { version, tick } = this.#position;
    return { epoch: this.#view.epoch, version, fingerprint: tick?.fingerprint ?? 0, snapshot };
  }

  #opened(snapshot: Cursor["snapshot"]): Frame {
    const { epoch, log } = this.#view;
    const cursor = this.#cursor(snapshot);
    const head = Math.max(log.head, cursor.version);
    const oldest = Math.min(this.#view.oldest, head + 1);
    return { kind: "opened", epoch, version: cursor.version, cursor, head, oldest };
  }

  #checkpoint(): Frame {
    const { version, tick } = this.#position;
    const { stale, log } = this.#view;
    const state = this.#snapshot === undefined ? this.#state() : "SNAPSHOT";
    this.#told = state;
    return {
      kind: "checkpoint",
      cursor: this.#cursor(),
      version,
      state,
      lagVersions: stale ? undefined : Math.max(0, log.head - version),
      lagMs: stale ? undefined : this.#lagMs(version),
      timeMicros: tick === undefined || tick.count === 0 || tickEnd(tick) > version ? undefined : tick.timeMicros,
      progress: this.#snapshot?.progress,
    };
  }

  /** Age of the first version not yet passed. Unknown while history is read and the next page has not come. */
  #lagMs(version: Version): number | undefined {
    const { log } = this.#view;
    if (version >= log.head) {
      return 0;
    }
    const next = log.tickOf(version + 1) ?? tickHolding(this.#page?.ticks ?? [], version + 1);
    return next === undefined ? undefined : Math.max(0, this.#clock.now() - next.timeMicros / 1000);
  }

  #closing(reason: ClosingReason): Frame {
    const retryAfterMs = reason === "DRAINING" ? Math.round(DRAIN_RETRY_MS * this.#clock.random()) : 0;
    return { kind: "closing", reason, cursor: this.#cursor(), retryAfterMs };
  }
}
