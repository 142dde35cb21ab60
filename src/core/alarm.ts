import type { Clock, Timers } from "./ports.ts";

/**
 * The one timer of somebody who waits often and is seldom woken by it. It is set, but never put off: when it fires too
 * early its owner sees that and sets it again. So a busy stream, whose next checkpoint moves with every frame, sets a timer
 * once per interval and not once per frame.
 */
export class Alarm {
  readonly #clock: Clock;
  readonly #timers: Timers;
  readonly #ring: () => void;
  #firesAtMs = Number.POSITIVE_INFINITY;
  #cancel: (() => void) | undefined;

  constructor(clock: Clock, timers: Timers, ring: () => void) {
    this.#clock = clock;
    this.#timers = timers;
    this.#ring = ring;
  }

  /** Rings at this moment (monotonic milliseconds) or earlier; never for infinity. */
  setFor(atMs: number): void {
    if (this.#firesAtMs <= atMs) {
      return;
    }
    this.#cancel?.();
    this.#firesAtMs = atMs;
    this.#cancel = this.#timers.after(atMs - this.#clock.monotonic(), () => {
      this.#firesAtMs = Number.POSITIVE_INFINITY;
      this.#cancel = undefined;
      this.#ring();
    });
  }

  stop(): void {
    this.#cancel?.();
    this.#cancel = undefined;
    this.#firesAtMs = Number.POSITIVE_INFINITY;
  }
}
