import { Alarm } from "./alarm.ts";
import { backOffMs } from "./back-off.ts";
import { FeedError } from "./errors.ts";
import type { Version } from "./event.ts";
import type { Frame } from "./frame.ts";
import { EpochOver } from "./lineage.ts";
import type { Clock, FeedStore, Timers } from "./ports.ts";
import type { SnapshotRun } from "./snapshot-run.ts";
import type { Stream } from "./stream.ts";
import { Bell, type WakeSet } from "./wake-set.ts";

/** A stream works this long before others get their turn. */
const TURN_MS = 10;
/** A client that has not come back for its next frame for so long is slow: history read ahead for it is given back. */
const FORGET_MS = 1_000;
/** Long before that the feed itself has noticed that its epoch is over, if it is: it asks ten times a second. */
const OVER_KNOWN_MS = 30_000;

/** What a driven stream needs of the world. */
export interface DriveOptions {
  readonly stream: Stream;
  readonly store: Pick<FeedStore, "readAfter">;
  /** What the stream begins with, if it does. Closed as the stream ends. */
  readonly snapshot: SnapshotRun | undefined;
  /** Woken when there may be something new: an append, a change of state. */
  readonly changed: WakeSet;
  /** What has made the feed unusable for streams; they end with it. */
  readonly failure: () => FeedError | undefined;
  /** Whether the feed has noticed that its epoch is over: then `failure` comes, sooner or later. */
  readonly over: () => boolean;
  readonly clock: Clock;
  readonly timers: Timers;
  /** Ends the stream, which then throws its reason. Also aborted by the caller once the stream has ended. */
  readonly signal: AbortSignal;
}

/**
 * Does what a stream says until it ends: the I/O and the waiting around `Stream`. It waits for the feed, its one timer, its
 * one read, its snapshot and its client, all through one bell. A class with one async method, because a chain of async
 * generators costs more per frame than everything else that a stream does.
 */
export class StreamDriver {
  readonly #options: DriveOptions;
  readonly #bell = new Bell();
  readonly #alarm: Alarm;
  readonly #onAbort = () => this.#bell.wake();
  /** When the client got the frame that it has not come back from. */
  #handedOverMs: number | undefined;
  #turnBeganMs: number;
  #readFailures = 0;
  #cancelRetry: (() => void) | undefined;
  #error: { readonly cause: unknown } | undefined;

  constructor(options: DriveOptions) {
    this.#options = options;
    this.#alarm = new Alarm(options.clock, options.timers, () => this.#rung());
    this.#turnBeganMs = options.clock.monotonic();
    options.signal.addEventListener("abort", this.#onAbort);
  }

  /** The next frame; `undefined` after the last. One call at a time. */
  async next(): Promise<Frame | undefined> {
    const { stream, clock } = this.#options;
    this.#handedOverMs = undefined;
    let nowMs = clock.monotonic();
    for (;;) {
      if (nowMs - this.#turnBeganMs >= TURN_MS) {
        await this.#options.timers.turn();
        nowMs = this.#turnBeganMs = clock.monotonic();
      }
      this.#assertGoesOn();
      const action = stream.step(nowMs);
      switch (action.kind) {
        case "emit":
          this.#handOver(nowMs);
          return action.frame;
        case "read":
          this.#read(action.after);
          break;
        case "snapshot":
          this.#pull();
          break;
        case "wait":
          await this.#wait(action.untilMs);
          nowMs = this.#turnBeganMs = clock.monotonic();
          break;
        case "more":
          nowMs = clock.monotonic();
          break;
        case "end":
          return undefined;
      }
    }
  }

  /** Leaves nothing behind. */
  async stop(): Promise<void> {
    this.#alarm.stop();
    this.#cancelRetry?.();
    this.#options.signal.removeEventListener("abort", this.#onAbort);
    this.#options.changed.delete(this.#bell);
    await this.#options.snapshot?.close();
  }

  #assertGoesOn(): void {
    this.#options.signal.throwIfAborted();
    if (this.#error !== undefined) {
      throw this.#error.cause;
    }
    const failure = this.#options.failure();
    if (failure !== undefined) {
      throw failure;
    }
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
    const { timers, over, signal } = this.#options;
    if (signal.aborted) {
      return;
    }
    this.#cancelRetry = timers.after(OVER_KNOWN_MS, () => {
      if (!over()) {
        this.#fail(error);
      }
    });
  }

  #wait(untilMs: number): Promise<void> {
    this.#options.changed.add(this.#bell);
    if (untilMs !== Number.POSITIVE_INFINITY) {
      this.#alarm.setFor(untilMs);
    }
    return this.#bell.heard();
  }

  #handOver(nowMs: number): void {
    this.#handedOverMs = nowMs;
    if (this.#options.stream.phase === "catching_up") {
      this.#alarm.setFor(nowMs + FORGET_MS);
    }
  }

  /** Reads in the background: a stream that waits for the table still says its checkpoints. */
  #read(after: Version): void {
    const { store, stream, signal } = this.#options;
    store.readAfter(after, signal).then(
      (page) => {
        if (page === undefined) {
          this.#retryRead();
          return;
        }
        this.#readFailures = 0;
        this.#settle(() => stream.supply(page));
        if (this.#handedOverMs !== undefined) {
          this.#alarm.setFor(this.#handedOverMs + FORGET_MS);
        }
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
    const { stream, clock, timers, signal } = this.#options;
    if (signal.aborted) {
      return;
    }
    this.#readFailures += 1;
    const delayMs = backOffMs(this.#readFailures, clock);
    this.#cancelRetry = timers.after(delayMs, () => this.#settle(() => stream.supply(undefined)));
  }

  #settle(supply: () => void): void {
    try {
      supply();
      this.#bell.wake();
    } catch (error) {
      this.#fail(error);
    }
  }

  #fail(cause: unknown): void {
    this.#error ??= { cause };
    this.#bell.wake();
  }

  #rung(): void {
    if (this.#handedOverMs !== undefined) {
      const forgetAtMs = this.#handedOverMs + FORGET_MS;
      if (this.#options.clock.monotonic() >= forgetAtMs) {
        this.#options.stream.forget();
      } else {
        this.#alarm.setFor(forgetAtMs);
      }
    }
    this.#bell.wake();
  }
}
