import { FeedError } from "./errors.ts";
import type { Frame } from "./frame.ts";
import type { StreamDriver } from "./stream-driver.ts";

/**
 * What `Feed.subscribe` gives: an iterator that opens at the first `next()` and cleans up however it ends. Unlike a
 * generator's, its `return()` also ends a `next()` that waits.
 */
export class SubscribedStream implements AsyncIterableIterator<Frame> {
  readonly #open: (ending: AbortController) => Promise<StreamDriver>;
  readonly #signal: AbortSignal;
  readonly #ending = new AbortController();
  readonly #onAbort = () => this.#ending.abort(this.#signal.reason);
  readonly #onEnd: () => void;
  #driver: StreamDriver | undefined;
  #state: "new" | "open" | "ended" = "new";
  #busy = false;

  /** `open` may throw; `onEnd` is called once for every stream whose `open` was called. */
  constructor(signal: AbortSignal, open: (ending: AbortController) => Promise<StreamDriver>, onEnd: () => void) {
    this.#signal = signal;
    this.#open = open;
    this.#onEnd = onEnd;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async next(): Promise<IteratorResult<Frame, undefined>> {
    if (this.#state === "ended") {
      return { done: true, value: undefined };
    }
    if (this.#busy) {
      throw new FeedError("INTERNAL", "A stream was asked for a frame twice at once.", "Await one `next` at a time.");
    }
    this.#busy = true;
    try {
      this.#driver ??= await this.#begin();
      const frame = await this.#driver.next();
      if (frame !== undefined) {
        return { done: false, value: frame };
      }
      await this.#end();
    } catch (error) {
      // After `return` it is nobody's error that the stream has ended.
      const returned = this.#ended;
      await this.#end();
      if (!returned) {
        throw error;
      }
    } finally {
      this.#busy = false;
    }
    return { done: true, value: undefined };
  }

  async return(): Promise<IteratorResult<Frame, undefined>> {
    if (this.#state === "new") {
      this.#state = "ended";
    }
    await this.#end();
    return { done: true, value: undefined };
  }

  get #ended(): boolean {
    return this.#state === "ended";
  }

  async #begin(): Promise<StreamDriver> {
    this.#state = "open";
    this.#signal.addEventListener("abort", this.#onAbort, { once: true });
    this.#signal.throwIfAborted();
    const driver = await this.#open(this.#ending);
    if (this.#ended) {
      await driver.stop();
      this.#ending.signal.throwIfAborted();
    }
    return driver;
  }

  async #end(): Promise<void> {
    if (this.#state !== "open") {
      return;
    }
    this.#state = "ended";
    this.#signal.removeEventListener("abort", this.#onAbort);
    this.#ending.abort(new FeedError("INTERNAL", "The stream has ended.", "Open another one."));
    this.#onEnd();
    await this.#driver?.stop();
  }
}
