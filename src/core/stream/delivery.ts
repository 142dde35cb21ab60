import { type Cursor, encodeCursor } from "../cursor.ts";
import { FeedError } from "../errors.ts";
import type { Version } from "../event.ts";
import type { DeliveryTotals, StreamEnd } from "../feed/feed-stats.ts";
import type { Frame } from "../frame.ts";
import { DeliveryHistory, type HistoryConsumer, type HistoryMeans } from "../history/delivery-history.ts";
import type { Lane } from "../lane/lane.ts";
import { EpochOver } from "../lineage.ts";
import type { Outlet, StreamControl } from "../outlet.ts";
import type { Page } from "../page.ts";
import type { PolicyKind } from "../policy/policy.ts";
import type { SnapshotStarted } from "../snapshot/snapshot-run.ts";
import type { Parkable, Parked } from "../wake-set.ts";
import type { AlarmClock, Sleeper } from "./alarm-clock.ts";
import type { ChangeConsumer, DeliveryChange } from "./delivery-change.ts";
import type { Runnable, RunQueue } from "./run-queue.ts";
import type { RowSource } from "./selector-change-run.ts";
import type { Stream } from "./stream.ts";

/** Frames of one run: then it is the next stream's turn. */
const FRAMES_PER_RUN = 32;
/** So long one run looks for something to deliver: then it is the next stream's turn, too. */
const LOOKING_MS = 2;
/** A client that has not come back for its next frame for so long is slow: history read ahead for it is given back. */
const FORGET_MS = 1_000;
/** Long before that the feed itself has noticed that its epoch is over, if it is: it asks ten times a second. */
const OVER_KNOWN_MS = 30_000;

/** What all driven streams of a feed share. */
export interface DeliveryContext extends HistoryMeans {
  readonly queue: RunQueue;
  readonly alarms: AlarmClock;
  readonly totals: DeliveryTotals;
  /** The time of the append that is under way, so that the thousands it wakes need not look at the clock each. */
  readonly appendingAtMs: number | undefined;
  /** Where those streams wait that have something to say about every append. */
  readonly everyAppend: Parked;
  /** What has made the feed unusable for streams; they end with it. */
  readonly failure: FeedError | undefined;
  /** Whether the feed has noticed that its epoch is over: then `failure` comes, sooner or later. */
  readonly over: boolean;
  /** It has changed its lane; this one was its own. */
  changed(lane: Lane): void;
  /** Called once for each. */
  ended(delivery: Delivery): void;
}

/** The rows of a stream, while it has any. */
export interface DeliveredSnapshot {
  /** Closed as the stream ends. */
  readonly run: RowSource;
  /** Ends its reads; aborted as the stream ends. */
  readonly ending: AbortController;
}

/** What is driven. */
export interface DeliveryOptions {
  readonly stream: Stream;
  readonly snapshot: DeliveredSnapshot | undefined;
  /** Whose it is, as `StreamRequest.peer` has it. */
  readonly peer: string | undefined;
  readonly policy: PolicyKind;
  /** Under which its host knows it. */
  readonly streamId: string;
  readonly principal: string;
}

/**
 * Does what a stream says: the I/O and the waiting around `Stream`, by callbacks. There is no promise and no generator
 * between an append and the client's socket, for a chain of those costs more per frame than everything else that happens
 * to it. It works when it is woken: by its lane, its one timer, its read, its snapshot, or its outlet.
 */
export class Delivery implements Runnable, Parkable, Sleeper, HistoryConsumer, ChangeConsumer, StreamControl {
  readonly stream: Stream;
  readonly streamId: string;
  readonly principal: string;
  readonly peer: string | undefined;
  readonly policy: PolicyKind;
  queued = false;
  parkedAt = -1;
  ringsAtMs = Number.POSITIVE_INFINITY;
  ringsAs = -1;
  readonly #context: DeliveryContext;
  #snapshot: DeliveredSnapshot | undefined;
  /** Other selectors, which its stream has yet to come to. */
  #change: DeliveryChange | undefined;
  #changes = 0;
  #parkedIn: Parked | undefined;
  #outlet: Outlet | undefined;
  #inline = false;
  #ended = false;
  #running = false;
  #again = false;
  /** Since when the outlet takes nothing. */
  #blockedSinceMs: number | undefined;
  /** History was read for it since, or before, and is not given back. */
  #holdsHistory = false;
  #history: DeliveryHistory | undefined;
  /** Of an epoch that the snapshot believes to be over. */
  #cancelDoubt: (() => void) | undefined;
  /** It went on from the table, and has not met the log again. */
  #behind = false;
  #error: { readonly cause: unknown } | undefined;
  #cursor: Cursor | undefined;

  constructor(context: DeliveryContext, options: DeliveryOptions) {
    const { stream, peer, policy, snapshot, streamId, principal } = options;
    this.#context = context;
    this.stream = stream;
    this.streamId = streamId;
    this.principal = principal;
    this.peer = peer;
    this.policy = policy;
    this.#snapshot = snapshot;
  }

  get lane(): Lane {
    return this.stream.lane;
  }

  /** For the next change of its selectors. */
  nextChange(): number {
    this.#changes += 1;
    return this.#changes;
  }

  /** Takes the place of one that is still ahead. */
  change(change: DeliveryChange): void {
    this.#change?.withdraw(overAndOut());
    this.#change = change;
    this.stream.change(change.change);
    this.wake();
  }

  /** How far it is behind the head in versions; 0 when it waits for what it wants to come. */
  lagAt(head: Version): number {
    const waits =
      this.parkedAt >= 0 &&
      this.#change === undefined &&
      this.#history?.reading !== true &&
      this.stream.phase === "live";
    return (waits && !this.stream.slowed) || this.#cursor === undefined ? 0 : Math.max(0, head - this.#cursor.version);
  }

  /** The first frame, which waits for nothing. */
  first(): Frame {
    const action = this.stream.step(this.#context.clock.monotonic());
    if (action.kind !== "emit") {
      throw new FeedError("INTERNAL", "A stream did not begin with a frame.", "Report this as a fault of Millrace.");
    }
    this.#saw(action.frame);
    return action.frame;
  }

  /** From now on frames go there. Once. */
  attach(outlet: Outlet): void {
    this.#outlet = outlet;
    this.#inline = outlet.inline;
    this.wake();
  }

  /** There may be something to do. Cheap, from anywhere and any number of times. */
  wake(): void {
    if (this.#ended) {
      return;
    }
    const { queue, appendingAtMs, clock } = this.#context;
    if (!this.#inline) {
      queue.add(this);
    } else if (this.#running) {
      this.#again = true;
    } else if (this.run(appendingAtMs ?? clock.monotonic())) {
      queue.add(this);
    }
  }

  resume(): void {
    this.wake();
  }

  cancel(reason: unknown): void {
    this.#finish(reason, "CANCELLED");
  }

  run(nowMs: number): boolean {
    const outlet = this.#outlet;
    if (outlet === undefined || this.#running) {
      return false;
    }
    this.#running = true;
    try {
      return this.#work(outlet, nowMs);
    } catch (error) {
      this.#finish(error);
      return false;
    } finally {
      this.#running = false;
    }
  }

  #work(outlet: Outlet, nowMs: number): boolean {
    const { stream } = this;
    for (let frames = 0; frames < FRAMES_PER_RUN; ) {
      if (this.#ended || this.#hasFailed()) {
        return false;
      }
      if (!outlet.ready) {
        this.#block(nowMs);
        return false;
      }
      this.#blockedSinceMs = undefined;
      this.#again = false;
      const action = stream.step(nowMs);
      switch (action.kind) {
        case "emit":
          frames += 1;
          this.#saw(action.frame);
          outlet.write(action.frame);
          break;
        case "open_change":
          this.#change?.open(this);
          break;
        case "read":
          this.#read(action.after);
          break;
        case "snapshot":
          this.#pull();
          break;
        case "more":
          // It may have looked through thousands of events, and nobody else has had a turn meanwhile.
          if (this.#context.clock.monotonic() - nowMs >= LOOKING_MS) {
            return true;
          }
          frames += 1;
          break;
        case "wait":
          if (!this.#again) {
            this.#park(action.untilMs);
            return false;
          }
          break;
        case "fail":
          this.#finish(action.error);
          return false;
        case "end":
          this.#finish(undefined);
          return false;
      }
    }
    return true;
  }

  #saw(frame: Frame): void {
    const { totals } = this.#context;
    this.#cursor = frame.cursor;
    totals.frames += 1;
    if (frame.kind === "events") {
      totals.events += frame.events.length;
    } else if (frame.kind === "gap") {
      totals.droppedEvents += frame.dropped ?? 0;
    } else if (frame.kind === "selectors_changed") {
      this.#changed();
    }
  }

  #changed(): void {
    this.#parkedIn?.delete(this);
    this.#parkedIn = undefined;
    const change = this.#change;
    this.#change = undefined;
    this.#snapshot = change?.take() ?? this.#snapshot;
    if (change !== undefined) {
      this.#context.changed(change.before);
    }
  }

  #hasFailed(): boolean {
    if (this.#error !== undefined) {
      this.#finish(this.#error.cause);
      return true;
    }
    const { failure } = this.#context;
    if (failure !== undefined) {
      this.#finish(failure);
      return true;
    }
    return false;
  }

  #park(untilMs: number): void {
    const place = this.stream.heedsEveryTick ? this.#context.everyAppend : this.lane.parked;
    if (this.#parkedIn !== place) {
      this.#parkedIn?.delete(this);
      this.#parkedIn = place;
    }
    place.add(this);
    if (this.#behind && this.stream.phase === "live") {
      this.#behind = false;
    }
    if (untilMs < this.ringsAtMs) {
      this.#context.alarms.setFor(this, untilMs);
    }
  }

  #block(nowMs: number): void {
    this.#blockedSinceMs ??= nowMs;
    const outcome = this.stream.stall(nowMs);
    if (typeof outcome !== "number") {
      this.#finish(outcome);
      return;
    }
    this.#context.alarms.setFor(this, outcome);
    this.#awaitForgetting();
  }

  #awaitForgetting(): void {
    if (this.#holdsHistory && this.#blockedSinceMs !== undefined) {
      this.#context.alarms.setFor(this, this.#blockedSinceMs + FORGET_MS);
    }
  }

  /** Leaves nothing behind. */
  #finish(error: unknown, end = endOf(error)): void {
    if (this.#ended) {
      return;
    }
    this.#ended = true;
    const { alarms, totals } = this.#context;
    alarms.stop(this);
    this.#cancelDoubt?.();
    this.#parkedIn?.delete(this);
    this.#change?.withdraw(overAndOut());
    this.#history?.stop(overAndOut());
    this.#snapshot?.ending.abort(overAndOut());
    this.#snapshot?.run.close().catch(() => undefined);
    totals.countEnd(end);
    this.#context.ended(this);
    this.#outlet?.end(withCursor(error, this.#cursor));
  }

  /** In the background, too. A snapshot that fails ends the stream: its cursors say where it goes on. */
  #pull(): void {
    const { stream } = this;
    this.#snapshot?.run.next().then(
      (step) => this.#settle(() => stream.supplySnapshot(step)),
      (error: unknown) => {
        if (error instanceof EpochOver) {
          this.#awaitFailure(error);
        } else {
          this.fail(error);
        }
      },
    );
  }

  /**
   * An epoch that is over ends the stream by `failure`, which knows more about it. But behind an address that leads to
   * several servers the snapshot may have met another one than the feed, which then goes on.
   */
  #awaitFailure(error: EpochOver): void {
    if (this.#ended) {
      return;
    }
    this.#cancelDoubt = this.#context.timers.after(OVER_KNOWN_MS, () => {
      if (!this.#context.over) {
        this.fail(error);
      }
    });
  }

  /** Reads in the background: a stream that waits for the table still says its checkpoints. */
  #read(after: Version): void {
    if (!this.#behind) {
      this.#behind = true;
      this.#context.totals.catchUps += 1;
    }
    this.#history ??= new DeliveryHistory(this.#context, this);
    this.#history.read(after);
  }

  supplyChange(started: SnapshotStarted | undefined): void {
    this.#settle(() => this.stream.supplyChange(started));
  }

  supply(page: Page | undefined): void {
    this.#holdsHistory ||= page !== undefined;
    this.#settle(() => this.stream.supply(page));
    this.#awaitForgetting();
  }

  #settle(supply: () => void): void {
    if (this.#ended) {
      return;
    }
    try {
      supply();
      this.wake();
    } catch (error) {
      this.fail(error);
    }
  }

  fail(cause: unknown): void {
    this.#error ??= { cause };
    this.wake();
  }

  ring(nowMs: number): void {
    if (this.#blockedSinceMs !== undefined && nowMs >= this.#blockedSinceMs + FORGET_MS) {
      this.#holdsHistory = false;
      this.stream.forget();
    }
    this.#awaitForgetting();
    this.wake();
  }
}

/** A stream that is cut because the server goes down says where to go on, as `closing` would have. */
function withCursor(error: unknown, cursor: Cursor | undefined): unknown {
  if (!(error instanceof FeedError) || error.code !== "DRAINING" || cursor === undefined) {
    return error;
  }
  const { code, message, action, detail } = error;
  return new FeedError(code, message, action, { ...detail, cursor: encodeCursor(cursor) });
}

function overAndOut(): FeedError {
  return new FeedError("INTERNAL", "The stream has ended.", "Open another one.");
}

function endOf(error: unknown): StreamEnd {
  if (error === undefined) {
    return "CLOSING";
  }
  return error instanceof FeedError ? error.code : "CANCELLED";
}
