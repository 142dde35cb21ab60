import type { Cursor } from "../cursor.ts";
import { FeedError } from "../errors.ts";
import type { Version } from "../event.ts";
import type { Frame, StreamState } from "../frame.ts";
import type { Lane } from "../lane/lane.ts";
import { type Page, pageEnd } from "../page.ts";
import { Pace } from "../policy/pace.ts";
import { Patience, slowConsumer } from "../policy/patience.ts";
import { BLOCK, type LeftOut, type Thinned } from "../policy/policy.ts";
import type { Clock } from "../ports.ts";
import { SnapshotDelivery } from "../snapshot/snapshot-delivery.ts";
import type { SnapshotStarted, SnapshotStep } from "../snapshot/snapshot-run.ts";
import { type Passage, type Position, Progress } from "./scan.ts";
import type { SelectorChange } from "./selector-change.ts";
import { Steering } from "./steering.ts";
import { END, MORE, OPEN_CHANGE, SNAPSHOT, type StreamAction } from "./stream-action.ts";
import {
  checkpointFrame,
  closingFrame,
  type FeedView,
  openedFrame,
  selectorsChangedFrame,
  snapshotStartedFrame,
  stateOf,
} from "./stream-frames.ts";
import type { StreamOptions } from "./stream-options.ts";
import { nextPhase, type StreamOccurrence, type StreamPhase } from "./stream-phase.ts";

/** Share of the checkpoint interval that chance adds, so that streams opened together do not speak together for ever. */
const JITTER = 0.1;
/** So often a stream that is due to say a checkpoint, and stands amid a tick, looks whether that has come to its end. */
const AMID_TICK_MS = 100;

export type { FeedView } from "./stream-frames.ts";
export type { StreamOptions } from "./stream-options.ts";

const NEVER = Number.POSITIVE_INFINITY;

/**
 * One stream, as a machine without threads, timers or I/O: whoever drives it asks for the next `step` and does what it
 * says. Time and chance come from the clock that it is given, so a run can be replayed.
 *
 * A stream holds a position and nothing else. What follows the position comes from the log when the log has it (live) and
 * from the table when it has not (catching up); that is decided anew at every step from two numbers, so there is no moment
 * of changing over at which an event could be skipped or doubled. A slow client makes a slow stream, whose position falls
 * off the log's tail; it costs the table a few reads, and nobody else anything.
 *
 * Before it takes anything it asks its policy, which may have it leave something out, and say so first.
 *
 * Checkpoints are said only at tick boundaries after which nothing was delivered: all events of a transaction lie in one
 * tick, so they lie between two checkpoints. Those within a snapshot tell of progress and are called otherwise: there no
 * boundary comes before its end. Nor is there one in the middle of a piece that was thinned.
 */
export class Stream {
  readonly #view: FeedView;
  readonly #options: StreamOptions;
  readonly #clock: Clock;
  #steering: Steering;
  /** Takes what its lane has, whole: nothing steers it, slows it down or cuts it at ticks. As nearly all streams do. */
  readonly #plain: boolean;
  readonly #pace: Pace | undefined;
  readonly #patience: Patience | undefined;
  #phase: StreamPhase = "opening";
  #progress: Progress;
  #snapshot: SnapshotDelivery | undefined;
  /** Other selectors, which it has yet to come to. */
  #change: SelectorChange | undefined;
  /** Frames that were decided together and wait to be emitted. */
  readonly #queue: Frame[] = [];
  /** History that was read and not yet passed. */
  #page: Page | undefined;
  /** After which version history is being read. */
  #reading: Version | undefined;
  /** The state that the client was last told, or may take for granted. */
  #told: StreamState;
  /** The last checkpoint's version. */
  #toldVersion: Version;
  /** Whether there is something to tell since the last checkpoint. */
  #moved = false;
  #checkpointAtMs: number;
  #slowed = false;

  constructor(start: Position, view: FeedView, options: StreamOptions, clock: Clock) {
    const { lane, policy = BLOCK, maxEventsPerSecond, thinned, checkpointEveryTick: byTicks = false } = options;
    const nowMs = clock.monotonic();
    this.#view = view;
    this.#options = options;
    this.#clock = clock;
    this.#progress = new Progress(start);
    this.#patience = policy.kind === "DISCONNECT" ? new Patience(policy.maxLagEvents) : undefined;
    this.#pace = maxEventsPerSecond === undefined ? undefined : new Pace(maxEventsPerSecond, nowMs);
    this.#steering = new Steering({ lane, policy, feed: view, pace: this.#pace, byTicks }, start.version, thinned);
    this.#told = this.#inLog() ? "LIVE" : "CATCHING_UP";
    const keeps = policy.kind === "BLOCK" || policy.kind === "DISCONNECT";
    this.#plain = keeps && thinned === undefined && this.#pace === undefined && !byTicks;
    this.#toldVersion = start.version;
    this.#checkpointAtMs = this.#nextCheckpoint(nowMs);
  }

  get phase(): StreamPhase {
    return this.#phase;
  }

  /** Whether it waits although there is something to deliver: it may not be faster. */
  get slowed(): boolean {
    return this.#slowed;
  }

  /** Whose events it delivers. */
  get lane(): Lane {
    return this.#steering.lane;
  }

  /** Whether it has something to say, or do, about every append, whatever its lane wants. */
  get heedsEveryTick(): boolean {
    return this.#options.checkpointEveryTick === true || this.#change !== undefined;
  }

  /** Begins after the start position. */
  begin(): void {
    this.#occur("positioned");
    this.#patience?.begin(this.#lag);
    this.#queue.push(openedFrame(this.#view, this.#cursor(), this.#options.streamId));
  }

  /** Begins in a snapshot, whose first step this is. */
  beginSnapshot(started: SnapshotStarted): void {
    this.#occur("snapshot_begun");
    this.#snapshot = new SnapshotDelivery(started, this.lane.scan);
    // Whoever is cut between these two still holds what is to be dropped, and must be told of it again.
    const cursor = this.#cursor(started.restart ? "anew" : started.state.place);
    const opened = openedFrame(this.#view, cursor, this.#options.streamId);
    this.#queue.push(opened, snapshotStartedFrame(started, this.#cursor()));
  }

  /** What the snapshot did next; `undefined` when it is complete. */
  supplySnapshot(step: SnapshotStep | undefined): void {
    this.#snapshot?.supply(step);
    if (step?.kind === "started") {
      this.#queue.push(snapshotStartedFrame(step, this.#cursor()));
    }
  }

  /** Other selectors take the place of its own, at a boundary ahead, and instead of those that have yet to. */
  change(change: SelectorChange): void {
    this.#rouse(this.#change);
    this.#change = change;
  }

  /** The rows that the change adds begin; `undefined` when they are to be asked for again. */
  supplyChange(started: SnapshotStarted | undefined): void {
    if (started === undefined) {
      this.#rouse(this.#change);
    }
    this.#change?.supply(started);
  }

  /** What the read gave; `undefined` when there is nothing, or it failed and is to be tried again. */
  supply(page: Page | undefined): void {
    const after = this.#reading ?? this.#progress.scanned;
    this.#reading = undefined;
    if (page !== undefined && (after + 1 < page.firstVersion || after + 1 > pageEnd(page))) {
      throw new FeedError(
        "INTERNAL",
        `The page from version ${page.firstVersion} does not hold version ${after + 1}, which was asked for.`,
        "Report this as a fault of Millrace.",
      );
    }
    this.#page = page;
    // Rows may have come meanwhile, and led it past this.
    this.#letGoOfPassed(this.#progress.scanned);
  }

  /** Gives back history that was read: a client that takes nothing shall cost nothing. It is read again. */
  forget(): void {
    this.#page = undefined;
  }

  /**
   * Of a stream whose client takes nothing, which therefore makes no steps: what it ends with, or when to ask again.
   * `nowMs` is monotonic, as is what it answers; infinity for never.
   */
  stall(nowMs: number): FeedError | number {
    const { endsAtMs } = this.#options.life;
    if (nowMs >= endsAtMs) {
      return this.#tooSlow("took nothing any more when its time was over");
    }
    if (this.#patience === undefined || this.#snapshot !== undefined) {
      return endsAtMs;
    }
    return this.#isTooFarBehind(nowMs)
      ? this.#tooSlow(this.#behind())
      : Math.min(endsAtMs, this.#patience.lookAgainMs(nowMs));
  }

  /** `nowMs` is monotonic. */
  step(nowMs: number): StreamAction {
    if (this.#phase === "closing") {
      return END;
    }
    const queued = this.#queue.length === 0 ? undefined : this.#queue.shift();
    if (queued !== undefined) {
      return this.#emit(queued);
    }
    const { life } = this.#options;
    if (this.#view.draining || nowMs >= life.closesAtMs) {
      const reason = this.#view.draining ? "DRAINING" : life.reason;
      const closing = closingFrame(reason, this.#cursor(), this.#clock);
      this.#occur("closed");
      return this.#emit(closing);
    }
    return this.#snapshot === undefined ? this.#stepEvents(nowMs) : this.#stepSnapshot(this.#snapshot, nowMs);
  }

  #stepSnapshot(snapshot: SnapshotDelivery, nowMs: number): StreamAction {
    if (this.#moved && nowMs >= this.#checkpointAtMs) {
      return this.#checkpoint(nowMs);
    }
    const allowance = this.#pace?.allowance(nowMs) ?? NEVER;
    const events = allowance === 0 ? undefined : snapshot.take(allowance);
    if (events !== undefined) {
      this.#pace?.spend(events.length, nowMs);
      return this.#emit(this.lane.frame(events, this.#cursor(), false));
    }
    if (snapshot.complete) {
      return this.#emit(this.#snapshotComplete(snapshot, nowMs));
    }
    if (!snapshot.holdsEvents && snapshot.pull()) {
      return SNAPSHOT;
    }
    if (nowMs >= this.#checkpointAtMs) {
      return this.#checkpoint(nowMs);
    }
    const paceMs = snapshot.holdsEvents ? this.#pace?.readyAtMs() : undefined;
    return this.#wait(Math.min(this.#checkpointAtMs, paceMs ?? NEVER));
  }

  #snapshotComplete({ state }: SnapshotDelivery, nowMs: number): Frame {
    this.#snapshot = undefined;
    this.#progress = new Progress(state.position);
    this.#letGoOfPassed(this.#progress.scanned);
    this.#occur("snapshot_done");
    this.#patience?.begin(this.#lag);
    this.#told = this.#inLog() ? "LIVE" : "CATCHING_UP";
    const { version } = state.position;
    this.#toldVersion = version;
    this.#checkpointAtMs = this.#nextCheckpoint(nowMs);
    return { kind: "snapshot_complete", version, cursor: this.#cursor(), rows: state.rows };
  }

  #stepEvents(nowMs: number): StreamAction {
    const progress = this.#progress;
    if (!this.heedsEveryTick) {
      this.lane.skip(progress);
    }
    const inLog = this.#inLog();
    if (inLog !== (this.#phase === "live")) {
      this.#occur(inLog ? "met_the_log" : "fell_behind");
    }
    if (this.#change?.stop === undefined && this.#isTooFarBehind(nowMs)) {
      return { kind: "fail", error: this.#tooSlow(this.#behind()) };
    }
    if (this.#clean && this.#hasNews(nowMs)) {
      return this.#checkpoint(nowMs);
    }
    if (this.#change !== undefined) {
      const { head } = this.#view.log;
      const next = this.#change.next({ progress, clean: this.#clean, inLog, head });
      if (next !== "go_on") {
        return next === "open" ? OPEN_CHANGE : this.#become(this.#change);
      }
    } else if (this.#plain) {
      const step = this.lane.next(progress, this.#page);
      return step === undefined ? this.#lookAfter(progress.scanned, NEVER, nowMs) : this.#pass(step, nowMs);
    }
    const verdict = this.#steering.next(progress, this.#page, this.#change?.stop);
    switch (verdict.kind) {
      case "more":
        return MORE;
      case "look":
        return this.#lookAfter(verdict.after, NEVER, nowMs);
      case "announce":
        return this.#emit(this.#gap(verdict.leftOut, this.#piece));
      case "jump": {
        const gap = this.#gap(verdict.leftOut, undefined, verdict.to);
        progress.jump(verdict.to);
        this.#letGoOfPassed(progress.scanned);
        return this.#emit(gap);
      }
      case "deliver": {
        const taken = this.#steering.take(progress, this.#page, verdict, nowMs);
        return taken !== undefined && "scanned" in taken
          ? this.#pass(taken, nowMs)
          : this.#lookAfter(progress.scanned, taken?.waitUntilMs ?? NEVER, nowMs);
      }
    }
  }

  /** From here on with the new selectors; first come the rows that they add. */
  #become(change: SelectorChange): StreamAction {
    const { started, terms } = change;
    this.#change = undefined;
    this.#progress = new Progress(change.begin(this.#progress));
    this.#steering = this.#steering.anew(this.#progress.scanned, undefined, terms.lane);
    this.#patience?.begin(this.#lag);
    if (started !== undefined) {
      this.#occur("snapshot_begun");
      this.#snapshot = new SnapshotDelivery(started, terms.lane.scan);
      this.#queue.push(snapshotStartedFrame(started, this.#cursor()));
    }
    return this.#emit(selectorsChangedFrame(change, this.#cursor()));
  }

  /** Its policy, which rested for a change that does not come to be, acts again. */
  #rouse(change: SelectorChange | undefined): void {
    if (change?.stop !== undefined) {
      this.#steering = this.#steering.anew(this.#progress.scanned, this.#piece);
      this.#patience?.begin(this.#lag);
    }
  }

  #pass(passage: Passage, nowMs: number): StreamAction {
    this.#progress.pass(passage);
    this.#letGoOfPassed(this.#progress.scanned);
    if (passage.frame !== undefined) {
      return this.#emit(passage.frame);
    }
    return this.#clean && nowMs >= this.#checkpointAtMs ? this.#checkpoint(nowMs) : MORE;
  }

  /** There is nothing to deliver before what follows this version has come, or this moment. */
  #lookAfter(after: Version, untilMs: number, nowMs: number): StreamAction {
    this.#slowed = untilMs !== NEVER;
    if (untilMs === NEVER && this.#reading === undefined && this.#lacks(after)) {
      // Before a checkpoint that is due: else a client that is slower than its interval would get nothing but checkpoints.
      this.#reading = after;
      return { kind: "read", after };
    }
    if (this.#clean && nowMs >= this.#checkpointAtMs) {
      return this.#checkpoint(nowMs);
    }
    // Amid a tick nobody wakes it for the end, unless that holds something for it: it looks for itself.
    const speaksAtMs = this.#clean ? this.#checkpointAtMs : Math.max(this.#checkpointAtMs, nowMs + AMID_TICK_MS);
    return this.#wait(Math.min(untilMs, speaksAtMs));
  }

  #wait(untilMs: number): StreamAction {
    return { kind: "wait", untilMs: Math.min(untilMs, this.#options.life.closesAtMs) };
  }

  /** Neither is it at hand, nor will the log have it. */
  #lacks(after: Version): boolean {
    return after + 1 < this.#view.log.oldest && this.#steering.pageAfter(after, this.#page) === undefined;
  }

  #letGoOfPassed(scanned: Version): void {
    if (this.#page !== undefined && (this.#inLog() || pageEnd(this.#page) <= scanned)) {
      this.#page = undefined;
    }
  }

  /** Whether what comes next is in the log, or will be: the table may be ahead of it. */
  #inLog(): boolean {
    return this.#progress.scanned + 1 >= this.#view.log.oldest;
  }

  #state(): StreamState {
    return this.#snapshot === undefined ? stateOf(this.#view, this.#inLog()) : "SNAPSHOT";
  }

  /** The thinned piece in whose middle it stands. */
  get #piece(): Thinned | undefined {
    return this.#steering.pieceAt(this.#progress.scanned);
  }

  /** Whether a checkpoint may be said here. */
  get #clean(): boolean {
    return this.#progress.clean && this.#piece === undefined;
  }

  /** Whether a checkpoint is to be said before anything else. */
  #hasNews(nowMs: number): boolean {
    return (
      this.#told !== this.#state() ||
      (this.#moved && nowMs >= this.#checkpointAtMs) ||
      (this.#options.checkpointEveryTick === true && this.#progress.position.version > this.#toldVersion)
    );
  }

  get #lag(): number {
    return this.#view.log.head - this.#progress.scanned;
  }

  #isTooFarBehind(nowMs: number): boolean {
    return this.#patience?.isOver(this.#lag, nowMs) === true;
  }

  #behind(): string {
    return `is ${this.#lag} versions behind, more than it asked to be borne with`;
  }

  #tooSlow(what: string): FeedError {
    return slowConsumer(what, this.#cursor());
  }

  #occur(occurrence: StreamOccurrence): void {
    this.#phase = nextPhase(this.#phase, occurrence);
  }

  #emit(frame: Frame): StreamAction {
    this.#moved ||= frame.kind === "events" || frame.kind === "gap";
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
    const thinned = this.#snapshot === undefined ? this.#piece : undefined;
    return { epoch: this.#view.epoch, version, fingerprint: tick?.fingerprint ?? 0, snapshot, thinned };
  }

  /** Behind the gap, or in front of what is kept of it. */
  #gap({ lastVersion, dropped, reason }: LeftOut, thinned: Thinned | undefined, to = this.#position): Frame {
    const { epoch } = this.#view;
    const cursor = { epoch, version: to.version, fingerprint: to.tick?.fingerprint ?? 0, snapshot: undefined, thinned };
    return { kind: "gap", firstVersion: this.#position.version + 1, lastVersion, dropped, reason, cursor };
  }

  #checkpoint(nowMs: number): StreamAction {
    const state = this.#state();
    const position = this.#position;
    this.#told = state;
    this.#toldVersion = position.version;
    this.#moved = false;
    this.#checkpointAtMs = this.#nextCheckpoint(nowMs);
    const progress = this.#snapshot?.progress;
    const standing = { cursor: this.#cursor(), position, state, page: this.#page, progress };
    return this.#emit(checkpointFrame(this.#view, this.#clock, standing));
  }
}
