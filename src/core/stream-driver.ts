import { Alarm } from "./alarm.ts";
import { backOffMs } from "./back-off.ts";
import { FeedError } from "./errors.ts";
import type { Event, Version } from "./event.ts";
import type { Frame } from "./frame.ts";
import type { Clock, FeedStore, Timers } from "./ports.ts";
import type { Stream } from "./stream.ts";
import { Bell, type WakeSet } from "./wake-set.ts";

/** A stream works this long before others get their turn. */
const TURN_MS = 10;
/** A client that has not come back for its next frame for so long is slow: history read ahead for it is given back. */
const FORGET_MS = 1_000;

export interface DriveOptions {
  readonly stream: Stream;
  readonly store: Pick<FeedStore, "readAfter">;
  /** Rows of the snapshot that the stream begins with, if it does. */
  readonly rows: AsyncIterator<readonly Event[]> | undefined;
  /** Woken when there may be something new: an append, a change of state. */
  readonly changed: WakeSet;
  /** What has made the feed unusable for streams; they end with it. */
  readonly failure: () => FeedError | undefined;
  readonly clock: Clock;
  readonly timers: Timers;
  /** Ends the stream, which then throws its reason. Also aborted by the caller once the stream has ended. */
  readonly signal: AbortSignal;
}

/** Does what a stream says until it ends: the I/O and the waiting around `Stream`. */
export async function* driveStream(options: DriveOptions): AsyncGenerator<Frame, void, undefined> {
  const { stream, signal, clock } = options;
  const wait = new Wait(options);
  try {
    for (;;) {
      wait.assertGoesOn();
      const action = stream.step();
      switch (action.kind) {
        case "emit":
          wait.handedOver();
          yield action.frame;
          await wait.takenBack();
          break;
        case "read":
          wait.read(action.after);
          break;
        case "rows": {
          const next = await options.rows?.next();
          stream.supplyRows(next === undefined || next.done === true ? undefined : next.value);
          break;
        }
        case "wait":
          await wait.until(action.untilMs);
          break;
        case "turn":
          await wait.turn(clock.monotonic());
          break;
        case "end":
          return;
      }
      signal.throwIfAborted();
    }
  } finally {
    wait.stop();
  }
}

/** Everything that a driven stream may be waiting for: the feed, its one timer, its one read, its client. */
class Wait {
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

  stop(): void {
    this.#alarm.stop();
    this.#cancelRetry?.();
    this.#options.signal.removeEventListener("abort", this.#onAbort);
    this.#options.changed.delete(this.#bell);
  }

  assertGoesOn(): void {
    if (this.#error !== undefined) {
      throw this.#error.cause;
    }
    const failure = this.#options.failure();
    if (failure !== undefined) {
      throw failure;
    }
  }

  async until(atMs: number): Promise<void> {
    this.#options.changed.add(this.#bell);
    if (atMs !== Number.POSITIVE_INFINITY) {
      this.#alarm.setFor(atMs);
    }
    await this.#bell.heard();
    this.#turnBeganMs = this.#options.clock.monotonic();
  }

  async turn(nowMs: number): Promise<void> {
    if (nowMs - this.#turnBeganMs >= TURN_MS) {
      await this.#options.timers.turn();
      this.#turnBeganMs = this.#options.clock.monotonic();
    }
  }

  handedOver(): void {
    this.#handedOverMs = this.#options.clock.monotonic();
    if (this.#options.stream.phase === "catching_up") {
      this.#alarm.setFor(this.#handedOverMs + FORGET_MS);
    }
  }

  async takenBack(): Promise<void> {
    this.#handedOverMs = undefined;
    await this.turn(this.#options.clock.monotonic());
  }

  /** Reads in the background: a stream that waits for the table still says its checkpoints. */
  read(after: Version): void {
    const { store, stream, signal } = this.#options;
    store.readAfter(after, signal).then(
      (page) => {
        if (page === undefined) {
          this.#retryRead();
          return;
        }
        this.#readFailures = 0;
        this.#settle(() => stream.supply(page));
      },
      (error: unknown) => {
        if (error instanceof FeedError && error.code === "DATABASE_UNAVAILABLE") {
          this.#retryRead();
          return;
        }
        this.#error = { cause: error };
        this.#bell.wake();
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
    } catch (cause) {
      this.#error = { cause };
    }
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
