import type { Clock, Timers } from "../../src/core/ports.ts";
import type { Random } from "../support/workload/random.ts";

/** Steps between two looks at the real event loop, so that whoever runs the simulation is not starved. */
const STEPS_PER_BREATH = 2_000;

/** What is lost in adding must not make a timer ring too early: not even by that. */
const NOT_EARLY_MS = 1e-6;

/** How time passes. */
export interface TimeOptions {
  /** A timer rings up to so many milliseconds late. */
  readonly lateMs: number;
  /** A turn of the event loop comes after up to so many milliseconds. */
  readonly turnMs: number;
  /** Each look at the clock costs so many milliseconds: a slow machine. */
  readonly lookMs: number;
}

interface Task {
  readonly atMs: number;
  readonly order: number;
  run: (() => void) | undefined;
}

/**
 * Time that passes only as things happen: one task at a time, everything that follows from it without waiting, then the next.
 * What is due at the same time comes in an order that chance decides. There is no other clock, so the same seed gives the same
 * run.
 */
export class VirtualTime implements Clock, Timers {
  readonly #random: Random;
  readonly #options: TimeOptions;
  readonly #heap: Task[] = [];
  #nowMs = 1_000;
  #order = 0;
  #steps = 0;

  constructor(random: Random, options: TimeOptions) {
    this.#random = random;
    this.#options = options;
  }

  /** Tasks that have run. */
  get steps(): number {
    return this.#steps;
  }

  /** Virtual milliseconds; looking costs nothing. */
  get nowMs(): number {
    return this.#nowMs;
  }

  now(): number {
    return 1_700_000_000_000 + this.#nowMs;
  }

  monotonic(): number {
    this.#nowMs += this.#options.lookMs;
    return this.#nowMs;
  }

  random(): number {
    return this.#random.next();
  }

  after(delayMs: number, wake: () => void): () => void {
    const late = this.#options.lateMs * this.#random.next();
    return this.#set(this.#nowMs + (delayMs > 0 ? delayMs + NOT_EARLY_MS : 0) + late, wake);
  }

  turn(): Promise<void> {
    return new Promise((resolve) => {
      this.#set(this.#nowMs + this.#options.turnMs * this.#random.next(), resolve);
    });
  }

  /** What happens just now takes so long. */
  spend(ms: number): void {
    this.#nowMs += ms;
  }

  /** Resolves after so long; rejects with the signal's reason. */
  pause(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted === true) {
        reject(signal.reason);
        return;
      }
      const onAbort = () => {
        cancel();
        reject(signal?.reason);
      };
      const cancel = this.after(ms, () => {
        signal?.removeEventListener("abort", onAbort);
        resolve();
      });
      signal?.addEventListener("abort", onAbort, { once: true });
    });
  }

  /** Lets things happen until this is so, looking before each of them; rejects when nothing is left that could happen. */
  runUntil(over: () => boolean): Promise<void> {
    return new Promise((resolve, reject) => {
      const go = () => {
        try {
          if (over()) {
            resolve();
            return;
          }
          if (!this.#runNext()) {
            reject(new Error("nothing is left that could happen"));
            return;
          }
        } catch (error) {
          reject(error);
          return;
        }
        if (this.#steps % STEPS_PER_BREATH === 0) {
          setImmediate(go);
        } else {
          // A tick comes after all that was resolved meanwhile has been heard of, however long the chain.
          queueMicrotask(() => process.nextTick(go));
        }
      };
      setImmediate(go);
    });
  }

  #runNext(): boolean {
    for (let task = this.#take(); task !== undefined; task = this.#take()) {
      if (task.run !== undefined) {
        this.#nowMs = Math.max(this.#nowMs, task.atMs);
        this.#steps += 1;
        task.run();
        return true;
      }
    }
    return false;
  }

  #set(atMs: number, run: () => void): () => void {
    this.#order += 1;
    const task: Task = { atMs, order: this.#order, run };
    const heap = this.#heap;
    let at = heap.push(task) - 1;
    while (at > 0) {
      const up = (at - 1) >> 1;
      const above = heap[up];
      if (above === undefined || !isBefore(task, above)) {
        break;
      }
      heap[at] = above;
      at = up;
    }
    heap[at] = task;
    return () => {
      task.run = undefined;
    };
  }

  #take(): Task | undefined {
    const heap = this.#heap;
    const first = heap[0];
    const last = heap.pop();
    if (last === undefined || heap.length === 0) {
      return first;
    }
    let at = 0;
    for (;;) {
      let down = 2 * at + 1;
      const [left, right] = [heap[down], heap[down + 1]];
      const below = left !== undefined && right !== undefined && isBefore(right, left) ? right : left;
      down += below === left ? 0 : 1;
      if (below === undefined || !isBefore(below, last)) {
        break;
      }
      heap[at] = below;
      at = down;
    }
    heap[at] = last;
    return first;
  }
}

function isBefore(a: Task, b: Task): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);
}
