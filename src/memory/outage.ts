import { FeedError } from "../core/errors.ts";
import { nextWake, WakeSet } from "../core/wake-set.ts";

/** Makes the database of the memory store fail on demand, as real ones do. Writers are not affected. */
export class Outage {
  readonly #lifted = new WakeSet();
  #mode: "none" | "refusing" | "hanging" = "none";
  #next: unknown;
  #end: FeedError | undefined;

  /** Every call is refused with DATABASE_UNAVAILABLE until `lift`. */
  refuse(): void {
    this.#mode = "refusing";
  }

  /** Calls get no answer until `lift`. */
  hang(): void {
    this.#mode = "hanging";
  }

  /** Every call fails with this from now on, also those that hang. */
  refuseForGood(error: FeedError): void {
    this.#end = error;
    this.lift();
  }

  lift(): void {
    this.#mode = "none";
    this.#lifted.wakeAll();
  }

  /** The next call, and only that, fails with this. */
  failNext(error: unknown): void {
    this.#next = error;
  }

  /** Passed by every call before it does anything. */
  async gate(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (this.#next !== undefined) {
      const error = this.#next;
      this.#next = undefined;
      throw error;
    }
    while (this.#mode === "hanging") {
      await nextWake(this.#lifted, signal);
    }
    if (this.#end !== undefined) {
      throw this.#end;
    }
    if (this.#mode === "refusing") {
      throw new FeedError("DATABASE_UNAVAILABLE", "The database refuses connections.", "Wait until it is back.", {
        retryAfterMs: 1_000,
      });
    }
  }
}
