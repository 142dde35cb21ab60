import type { Clock, Timers } from "../ports.ts";

/** Work that is done in turns. */
export interface Runnable {
  /** Kept by the queue. */
  queued: boolean;
  /** Works for a bounded time; true when it wants another turn at once. Does not throw. */
  run(nowMs: number): boolean;
}

/** So long the queue works before input and timers get their turn. */
const SLICE_MS = 10;
/** Runs between two looks at the clock, as long as so many together are short. */
const RUNS_PER_LOOK = 8;
const SHORT_MS = 1;

/**
 * Streams that have something to do, first come, first served. A feed of thousands of streams does their work in slices, so
 * that the socket they write to, and the tick that feeds them, are never kept waiting for longer.
 */
export class RunQueue {
  readonly #clock: Clock;
  readonly #timers: Timers;
  #waiting: Runnable[] = [];
  #scheduled = false;
  #runsPerLook = RUNS_PER_LOOK;

  constructor(clock: Clock, timers: Timers) {
    this.#clock = clock;
    this.#timers = timers;
  }

  /** It runs in a later turn of the event loop, once, however often it is added until then. */
  add(runnable: Runnable): void {
    if (runnable.queued) {
      return;
    }
    runnable.queued = true;
    this.#waiting.push(runnable);
    this.#schedule();
  }

  #schedule(): void {
    if (!this.#scheduled) {
      this.#scheduled = true;
      void this.#timers.turn().then(() => this.#slice());
    }
  }

  #slice(): void {
    this.#scheduled = false;
    const beganMs = this.#clock.monotonic();
    let nowMs = beganMs;
    const round = this.#waiting;
    this.#waiting = [];
    let runs = 0;
    for (let at = 0; at < round.length; at++) {
      if (runs >= this.#runsPerLook) {
        runs = 0;
        const lookedAtMs = nowMs;
        nowMs = this.#clock.monotonic();
        this.#runsPerLook = nowMs - lookedAtMs > SHORT_MS ? 1 : RUNS_PER_LOOK;
        if (nowMs - beganMs >= SLICE_MS) {
          this.#waiting = round.slice(at).concat(this.#waiting);
          break;
        }
      }
      const runnable = round[at];
      if (runnable !== undefined) {
        runnable.queued = false;
        runs += 1;
        if (runnable.run(nowMs)) {
          // It used up its turn, which was no short one.
          runs = RUNS_PER_LOOK;
          this.add(runnable);
        }
      }
    }
    if (this.#waiting.length > 0) {
      this.#schedule();
    }
  }
}
