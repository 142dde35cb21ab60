import { FeedError } from "../errors.ts";
import type { OpenStream } from "../feed.ts";
import type { Frame } from "../frame.ts";
import type { Outlet, StreamControl } from "../outlet.ts";
import type { Clock, Timers } from "../ports.ts";

/** A consumer that never waits is held up for a turn of the event loop this often. */
const TURN_MS = 10;

/** How an iterator opens and waits. */
export interface SubscribedOptions {
  /** May throw. Called once. */
  readonly open: (signal: AbortSignal) => Promise<OpenStream>;
  readonly clock: Clock;
  readonly timers: Timers;
}

/**
 * What `Feed.subscribe` gives: an iterator that opens at the first `next()` and cleans up however it ends. A frame is made
 * when it is asked for, not before. Unlike a generator's, its `return()` also ends a `next()` that waits.
 */
export class SubscribedStream implements AsyncIterableIterator<Frame>, Outlet {
  readonly inline = true;
  readonly #options: SubscribedOptions;
  readonly #signal: AbortSignal;
  readonly #ending = new AbortController();
  readonly #onAbort = () => this.#abort(this.#signal.reason);
  #control: StreamControl | undefined;
  #state: "new" | "open" | "ended" = "new";
  #busy = false;
  #turnBeganMs: number | undefined;
  /** Who waits for the next frame. */
  #waiting: PromiseWithResolvers<Frame | undefined> | undefined;

  constructor(signal: AbortSignal, options: SubscribedOptions) {
    this.#signal = signal;
    this.#options = options;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  get ready(): boolean {
    return this.#waiting !== undefined;
  }

  write(frame: Frame): void {
    const waiting = this.#waiting;
    this.#waiting = undefined;
    waiting?.resolve(frame);
  }

  end(error: unknown): void {
    this.#leave();
    const waiting = this.#waiting;
    this.#waiting = undefined;
    if (error === undefined) {
      waiting?.resolve(undefined);
    } else if (waiting === undefined) {
      this.#error = { cause: error };
    } else {
      waiting.reject(error);
    }
  }

  /** What the stream ended with while nobody waited: the next `next()` throws it. */
  #error: { readonly cause: unknown } | undefined;

  async next(): Promise<IteratorResult<Frame, undefined>> {
    if (this.#busy) {
      throw new FeedError("INTERNAL", "A stream was asked for a frame twice at once.", "Await one `next` at a time.");
    }
    this.#busy = true;
    try {
      const frame = await this.#next();
      return frame === undefined ? { done: true, value: undefined } : { done: false, value: frame };
    } finally {
      this.#busy = false;
    }
  }

  async return(): Promise<IteratorResult<Frame, undefined>> {
    this.#returned = true;
    this.#error = undefined;
    this.#abort(new FeedError("INTERNAL", "The stream has ended.", "Open another one."));
    return { done: true, value: undefined };
  }

  /** After `return` it is nobody's error that the stream has ended. */
  #returned = false;

  async #next(): Promise<Frame | undefined> {
    try {
      const error = this.#error;
      this.#error = undefined;
      if (error !== undefined) {
        throw error.cause;
      }
      if (this.#state === "ended") {
        return undefined;
      }
      await this.#takeTurns();
      return await (this.#control === undefined ? this.#begin() : this.#ask(this.#control));
    } catch (error) {
      this.#leave();
      if (this.#returned) {
        return undefined;
      }
      throw error;
    }
  }

  #ask(control: StreamControl): Promise<Frame | undefined> {
    if (this.#state === "ended") {
      return Promise.resolve(undefined);
    }
    const waiting = Promise.withResolvers<Frame | undefined>();
    this.#waiting = waiting;
    control.resume();
    return waiting.promise;
  }

  async #takeTurns(): Promise<void> {
    const { clock, timers } = this.#options;
    this.#turnBeganMs ??= clock.monotonic();
    if (clock.monotonic() - this.#turnBeganMs >= TURN_MS) {
      await timers.turn();
      this.#turnBeganMs = clock.monotonic();
    }
  }

  async #begin(): Promise<Frame> {
    this.#state = "open";
    this.#signal.addEventListener("abort", this.#onAbort, { once: true });
    this.#signal.throwIfAborted();
    const stream = await this.#options.open(this.#ending.signal);
    if (this.#ending.signal.aborted) {
      stream.close();
      this.#ending.signal.throwIfAborted();
    }
    this.#control = stream.attach(this);
    return stream.opened;
  }

  #abort(reason: unknown): void {
    const wasNew = this.#state === "new";
    this.#ending.abort(reason);
    this.#control?.cancel(reason);
    if (wasNew) {
      this.#state = "ended";
    }
  }

  #leave(): void {
    this.#state = "ended";
    this.#signal.removeEventListener("abort", this.#onAbort);
  }
}
