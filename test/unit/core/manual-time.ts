import type { Clock, Timers } from "../../../src/core/ports.ts";

/** Time that stands still until it is moved. */
export class ManualTime implements Clock, Timers {
  #nowMs = 1_000_000;
  readonly #due = new Map<object, { readonly atMs: number; readonly wake: () => void }>();

  /** Timers that are set. */
  get pending(): number {
    return this.#due.size;
  }

  now(): number {
    return this.#nowMs;
  }

  monotonic(): number {
    return this.#nowMs;
  }

  random(): number {
    return 0.5;
  }

  after(delayMs: number, wake: () => void): () => void {
    const id = {};
    this.#due.set(id, { atMs: this.#nowMs + delayMs, wake });
    return () => this.#due.delete(id);
  }

  turn(): Promise<void> {
    return new Promise((resolve) => setImmediate(resolve));
  }

  /** Moves time on, timer by timer, and lets everybody who was woken come to rest. */
  async pass(ms: number): Promise<void> {
    const endMs = this.#nowMs + ms;
    do {
      await this.turn();
    } while (this.#ringNext(endMs));
    this.#nowMs = endMs;
    await this.turn();
  }

  /** The same for those who do all that they do when they are woken. */
  passAtOnce(ms: number): void {
    const endMs = this.#nowMs + ms;
    while (this.#ringNext(endMs)) {}
    this.#nowMs = endMs;
  }

  /** Nobody does anything for so long; then the timer that was due first rings, late. */
  oversleep(ms: number): void {
    this.#nowMs += ms;
    this.#ringNext(this.#nowMs);
  }

  /** False when no timer is due by then. */
  #ringNext(endMs: number): boolean {
    const next = [...this.#due].sort((a, b) => a[1].atMs - b[1].atMs)[0];
    if (next === undefined || next[1].atMs > endMs) {
      return false;
    }
    this.#due.delete(next[0]);
    this.#nowMs = Math.max(this.#nowMs, next[1].atMs);
    next[1].wake();
    return true;
  }
}
