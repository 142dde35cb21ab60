import { Alarm } from "./alarm.ts";
import { backOffMs } from "./back-off.ts";
import { type Cursor, encodeCursor } from "./cursor.ts";
import { FeedError } from "./errors.ts";
import type { Version } from "./event.ts";
import type { Frame } from "./frame.ts";
import type { Lane } from "./lane.ts";
import { EpochOver } from "./lineage.ts";
import type { Outlet, StreamControl } from "./outlet.ts";
import type { Page } from "./page.ts";
import type { Clock, Timers } from "./ports.ts";
import type { Runnable, RunQueue } from "./run-queue.ts";
import type { SnapshotRun } from "./snapshot-run.ts";
import type { Stream } from "./stream.ts";
import type { Waiter } from "./wake-set.ts";

/** Frames of one run: then it is the next stream's turn. */
const FRAMES_PER_RUN = 32;
/** A client that has not come back for its next frame for so long is slow: history read ahead for it is given back. */
const FORGET_MS = 1_000;
/** Long before that the feed itself has noticed that its epoch is over, if it is: it asks ten times a second. */
const OVER_KNOWN_MS = 30_000;

/** Where a stream's history comes from. */
export interface History {
  /** As `FeedStore.readAfter`; `reader` tells whose turn it is. */
  readAfter(after: Version, reader: object, signal: AbortSignal): Promise<Page | undefined>;
}

/** What a driven stream needs of the world. */
export interface DeliveryOptions {
  readonly stream: Stream;
  readonly lane: Lane;
  readonly history: History;
  /** What the stream begins with, if it does. Closed as the stream ends. */
  readonly snapshot: SnapshotRun | undefined;
  /** Ends the snapshot's reads; aborted as the stream ends. */
  readonly ending: AbortController;
  readonly queue: RunQueue;
  /** What has made the feed unusable for streams; they end with it. */
  readonly failure: () => FeedError | undefined;
  /** Whether the feed has noticed that its epoch is over: then `failure` comes, sooner or later. */
  readonly over: () => boolean;
  readonly clock: Clock;
  readonly timers: Timers;
  readonly onEnd: () => void;
}

/**
 * Does what a stream says: the I/O and the waiting around `Stream`, by callbacks. There is no promise and no generator
 * between an append and the client's socket, for a chain of those costs more per frame than everything else that happens
 * to it. It works when it is woken: by its lane, its one timer, its read, its snapshot, or its outlet.
 */
export class Delivery implements Runnable, Waiter, StreamControl {
  queued = false;
  readonly #options: DeliveryOptions;
  readonly #alarm: Alarm;
  #outlet: Outlet | undefined;
  #ended = false;
  #running = false;
  #again = false;
  /** Since when the outlet takes nothing. */
  #blockedSinceMs: number | undefined;
  /** History was read for it since, or before, and is not given back. */
  #holdsHistory = false;
  #readFailures = 0;
  #cancelRetry: (() => void) | undefined;
  #error: { readonly cause: unknown } | undefined;
  #cursor: Cursor | undefined;

  constructor(options: DeliveryOptions) {
    this.#options = options;
    this.#alarm = new Alarm(options.clock, options.timers, () => this.#rung());
  }

  get stream(): Stream {
    return this.#options.stream;
  }

  /** The first frame, which waits for nothing. */
  first(): Frame {
    const { stream, clock } = this.#options;
    const action = stream.step(clock.monotonic());
    if (action.kind !== "emit") {
      throw new FeedError("INTERNAL", "A stream did not begin with a frame.", "Report this as a fault of Millrace.");
    }
    this.#saw(action.frame);
    return action.frame;
  }

  /** From now on frames go there. Once. */
  attach(outlet: Outlet): void {
    this.#outlet = outlet;
    this.wake();
  }

  /** There may be something to do. Cheap, from anywhere and any number of times. */
  wake(): void {
    if (this.#ended) {
      return;
    }
    if (this.#outlet?.inline !== true) {
      this.#options.queue.add(this);
    } else if (this.#running) {
      this.#again = true;
    } else if (this.run(this.#options.clock.monotonic())) {
      this.#options.queue.add(this);
    }
  }

  resume(): void {
    this.wake();
  }

  cancel(reason: unknown): void {
    this.#finish(reason);
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
    const { stream } = this.#options;
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
        case "read":
          this.#read(action.after);
          break;
        case "snapshot":
          this.#pull();
          break;
        case "more":
          frames += 1;
          break;
        case "wait":
          if (!this.#again) {
            this.#park(action.untilMs);
            return false;
          }
          break;
        case "end":
          this.#finish(undefined);
          return false;
      }
    }
    return true;
  }

  #saw(frame: Frame): void {
    this.#cursor = frame.cursor;
  }

  #hasFailed(): boolean {
    if (this.#error !== undefined) {
      this.#finish(this.#error.cause);
      return true;
    }
    const failure = this.#options.failure();
    if (failure !== undefined) {
      this.#finish(failure);
      return true;
    }
    return false;
  }

  #park(untilMs: number): void {
    this.#options.lane.parked.add(this);
    if (untilMs !== Number.POSITIVE_INFINITY) {
      this.#alarm.setFor(untilMs);
    }
  }

  #block(nowMs: number): void {
    this.#blockedSinceMs ??= nowMs;
    this.#awaitForgetting();
  }

  #awaitForgetting(): void {
    if (this.#holdsHistory && this.#blockedSinceMs !== undefined) {
      this.#alarm.setFor(this.#blockedSinceMs + FORGET_MS);
    }
  }

  /** Leaves nothing behind. */
  #finish(error: unknown): void {
    if (this.#ended) {
      return;
    }
    this.#ended = true;
    const { ending, snapshot, lane, onEnd } = this.#options;
    this.#alarm.stop();
    this.#cancelRetry?.();
    lane.parked.delete(this);
    ending.abort(new FeedError("INTERNAL", "The stream has ended.", "Open another one."));
    snapshot?.close().catch(() => undefined);
    onEnd();
    this.#outlet?.end(withCursor(error, this.#cursor));
  }

  /** In the background, too. A snapshot that fails ends the stream: its cursors say where it goes on. */
  #pull(): void {
    const { stream, snapshot } = this.#options;
    snapshot?.next().then(
      (step) => this.#settle(() => stream.supplySnapshot(step)),
      (error: unknown) => {
        if (error instanceof EpochOver) {
          this.#awaitFailure(error);
        } else {
          this.#fail(error);
        }
      },
    );
  }

  /**
   * An epoch that is over ends the stream by `failure`, which knows more about it. But behind an address that leads to
   * several servers the snapshot may have met another one than the feed, which then goes on.
   */
  #awaitFailure(error: EpochOver): void {
    const { timers, over } = this.#options;
    if (this.#ended) {
      return;
    }
    this.#cancelRetry = timers.after(OVER_KNOWN_MS, () => {
      if (!over()) {
        this.#fail(error);
      }
    });
  }

  /** Reads in the background: a stream that waits for the table still says its checkpoints. */
  #read(after: Version): void {
    const { history, stream, ending } = this.#options;
    history.readAfter(after, this, ending.signal).then(
      (page) => {
        if (page === undefined) {
          this.#retryRead();
          return;
        }
        this.#readFailures = 0;
        this.#holdsHistory = true;
        this.#settle(() => stream.supply(page));
        this.#awaitForgetting();
      },
      (error: unknown) => {
        // An epoch that is over ends the stream by `failure`, which knows more about it.
        if (error instanceof EpochOver || (error instanceof FeedError && error.code === "DATABASE_UNAVAILABLE")) {
          this.#retryRead();
          return;
        }
        this.#fail(error);
      },
    );
  }

  #retryRead(): void {
    const { stream, clock, timers } = this.#options;
    if (this.#ended) {
      return;
    }
    this.#readFailures += 1;
    const delayMs = backOffMs(this.#readFailures, clock);
    this.#cancelRetry = timers.after(delayMs, () => this.#settle(() => stream.supply(undefined)));
  }

  #settle(supply: () => void): void {
    if (this.#ended) {
      return;
    }
    try {
      supply();
      this.wake();
    } catch (error) {
      this.#fail(error);
    }
  }

  #fail(cause: unknown): void {
    this.#error ??= { cause };
    this.wake();
  }

  #rung(): void {
    const nowMs = this.#options.clock.monotonic();
    if (this.#blockedSinceMs !== undefined && nowMs >= this.#blockedSinceMs + FORGET_MS) {
      this.#holdsHistory = false;
      this.#options.stream.forget();
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
