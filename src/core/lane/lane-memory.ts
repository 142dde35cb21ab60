import type { Version } from "../event.ts";
import type { LaneStep } from "./lane.ts";

/**
 * More are never worth their place: what lies so far behind is taken in larger steps. A queue beside the map tells which is
 * the oldest, for a map itself finds its first entry slowly after many first entries have been taken from it.
 */
const MAX_STEPS = 1_024;

/** The steps that a lane has made lately, by the position that each begins at. */
export class LaneMemory {
  readonly #maxBytes: number;
  readonly #steps = new Map<Version, LaneStep>();
  /** In the order in which they came; those before `#first` are gone. */
  #order: Version[] = [];
  #first = 0;
  #bytes = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** What their frames add up to. */
  get bytes(): number {
    return this.#bytes;
  }

  get(after: Version): LaneStep | undefined {
    return this.#steps.get(after);
  }

  set(after: Version, step: LaneStep): void {
    const known = this.#steps.get(after);
    if (known === undefined) {
      this.#order.push(after);
    }
    this.#bytes += step.bytes - (known?.bytes ?? 0);
    this.#steps.set(after, step);
    while (this.#bytes > this.#maxBytes || this.#steps.size > MAX_STEPS) {
      this.#forgetOldest();
    }
  }

  clear(): void {
    this.#steps.clear();
    this.#order = [];
    this.#first = 0;
    this.#bytes = 0;
  }

  #forgetOldest(): void {
    const after = this.#order[this.#first] ?? 0;
    this.#first += 1;
    this.#bytes -= this.#steps.get(after)?.bytes ?? 0;
    this.#steps.delete(after);
    if (this.#first >= MAX_STEPS) {
      this.#order = this.#order.slice(this.#first);
      this.#first = 0;
    }
  }
}
