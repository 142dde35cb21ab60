import type { Clock, Timers } from "../ports.ts";

/** Somebody who waits often and is seldom woken by time. */
export interface Sleeper {
  /** Kept by the alarm clock: monotonic milliseconds, infinity while nothing is set. */
  ringsAtMs: number;
  /** Kept by the alarm clock: its place there. */
  ringsAs: number;
  /** Called once for what was set, at that time or a little later. Must not throw. */
  ring(nowMs: number): void;
}

/**
 * One timer for all who wait for some time to come: thousands of idle streams, each of which says a checkpoint now and then,
 * would else hold a timer each. They stand in a binary heap by time.
 *
 * An alarm is set, but never put off: when it rings too early its owner sees that and sets it again. So a busy stream, whose
 * next checkpoint moves with every frame, sets an alarm once per interval and not once per frame.
 */
export class AlarmClock {
  readonly #clock: Clock;
  readonly #timers: Timers;
  readonly #heap: Sleeper[] = [];
  #firesAtMs = Number.POSITIVE_INFINITY;
  #cancel: (() => void) | undefined;

  constructor(clock: Clock, timers: Timers) {
    this.#clock = clock;
    this.#timers = timers;
  }

  /** How many have set it. */
  get size(): number {
    return this.#heap.length;
  }

  /** Rings at this moment (monotonic milliseconds), or earlier when that was set before; never for infinity. */
  setFor(sleeper: Sleeper, atMs: number): void {
    if (sleeper.ringsAtMs <= atMs) {
      return;
    }
    if (sleeper.ringsAtMs === Number.POSITIVE_INFINITY) {
      sleeper.ringsAs = this.#heap.push(sleeper) - 1;
    }
    sleeper.ringsAtMs = atMs;
    this.#rise(sleeper);
    this.#arm();
  }

  stop(sleeper: Sleeper): void {
    if (sleeper.ringsAtMs !== Number.POSITIVE_INFINITY) {
      this.#remove(sleeper);
      if (this.#heap.length === 0) {
        this.#cancel?.();
        this.#cancel = undefined;
        this.#firesAtMs = Number.POSITIVE_INFINITY;
      }
    }
  }

  #arm(): void {
    const atMs = this.#heap[0]?.ringsAtMs ?? Number.POSITIVE_INFINITY;
    // One that fires too early for whoever is first now is set again then: cheaper than moving it with every change.
    if (this.#firesAtMs <= atMs) {
      return;
    }
    this.#cancel?.();
    this.#firesAtMs = atMs;
    this.#cancel = this.#timers.after(atMs - this.#clock.monotonic(), () => this.#fire());
  }

  #fire(): void {
    this.#cancel = undefined;
    const nowMs = this.#clock.monotonic();
    // Whoever sets an alarm for now while it rings gets it from the next timer: nobody keeps the others waiting.
    const due: Sleeper[] = [];
    for (let first = this.#heap[0]; first !== undefined && first.ringsAtMs <= nowMs; first = this.#heap[0]) {
      this.#remove(first);
      due.push(first);
    }
    this.#firesAtMs = Number.POSITIVE_INFINITY;
    for (const sleeper of due) {
      sleeper.ring(nowMs);
    }
    this.#arm();
  }

  #remove(sleeper: Sleeper): void {
    sleeper.ringsAtMs = Number.POSITIVE_INFINITY;
    const last = this.#heap.pop();
    if (last !== undefined && last !== sleeper) {
      last.ringsAs = sleeper.ringsAs;
      this.#heap[last.ringsAs] = last;
      this.#rise(last);
      this.#sink(last);
    }
    sleeper.ringsAs = -1;
  }

  #rise(sleeper: Sleeper): void {
    const heap = this.#heap;
    let at = sleeper.ringsAs;
    while (at > 0) {
      const up = (at - 1) >> 1;
      const above = heap[up];
      if (above === undefined || above.ringsAtMs <= sleeper.ringsAtMs) {
        break;
      }
      heap[at] = above;
      above.ringsAs = at;
      at = up;
    }
    heap[at] = sleeper;
    sleeper.ringsAs = at;
  }

  #sink(sleeper: Sleeper): void {
    const heap = this.#heap;
    let at = sleeper.ringsAs;
    for (;;) {
      let down = 2 * at + 1;
      const right = heap[down + 1];
      let below = heap[down];
      if (right !== undefined && below !== undefined && right.ringsAtMs < below.ringsAtMs) {
        below = right;
        down += 1;
      }
      if (below === undefined || below.ringsAtMs >= sleeper.ringsAtMs) {
        break;
      }
      heap[at] = below;
      below.ringsAs = at;
      at = down;
    }
    heap[at] = sleeper;
    sleeper.ringsAs = at;
  }
}
