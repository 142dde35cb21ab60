import { nextWake, WakeSet } from "../core/wake-set.ts";
import type { Snapshot } from "./snapshot.ts";

/** Hands out transaction ids and knows which are in progress; prepared ones are, until they are committed or rolled back. */
export class Transactions {
  #next = 1;
  readonly #running = new Set<number>();
  readonly #ended = new WakeSet();

  begin(): number {
    const xid = this.#next++;
    this.#running.add(xid);
    return xid;
  }

  end(xid: number): void {
    this.#running.delete(xid);
    this.#ended.wakeAll();
  }

  begun(xid: number): boolean {
    return xid < this.#next;
  }

  running(xid: number): boolean {
    return this.#running.has(xid);
  }

  snapshot(): Snapshot {
    return { xmin: Math.min(this.#next, ...this.#running), xmax: this.#next, xip: new Set(this.#running) };
  }

  /** Resolves when the condition holds, which can change only as transactions end. */
  async until(condition: () => boolean, signal: AbortSignal): Promise<void> {
    while (!condition()) {
      await nextWake(this.#ended, signal);
    }
  }
}
