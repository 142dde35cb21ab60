import type { SeenEvent } from "./seen.ts";
import { Matching, type Selection } from "./selection.ts";

/** One settled batch as the database tells of it. */
export interface TrueTick {
  readonly firstVersion: number;
  readonly lastVersion: number;
  readonly timeMicros: number;
}

/** All that was ever settled in one epoch, in order: what streams are judged by. Forgets nothing. */
export class Truth {
  readonly epoch: string;
  readonly events: SeenEvent[] = [];
  readonly #ticks: TrueTick[] = [];
  readonly #tickAt: number[] = [];
  readonly #matching = new Map<Selection, Matching>();

  constructor(epoch: string) {
    this.epoch = epoch;
  }

  get head(): number {
    return this.events.length;
  }

  /** Of an epoch that takes over its parent's history up to a version. */
  fork(epoch: string, version: number): Truth {
    const truth = new Truth(epoch);
    for (const tick of this.#ticks) {
      if (tick.lastVersion <= version) truth.add(tick, this.events.slice(tick.firstVersion - 1, tick.lastVersion));
    }
    return truth;
  }

  /** A whole tick, in turn. */
  add(tick: TrueTick, events: readonly SeenEvent[]): void {
    if (tick.firstVersion !== this.head + 1 || events.length !== tick.lastVersion - this.head) {
      throw new Error(`A tick from ${tick.firstVersion} to ${tick.lastVersion} does not follow ${this.head}.`);
    }
    for (const event of events) {
      this.events.push(event);
      this.#tickAt.push(this.#ticks.length);
    }
    this.#ticks.push(tick);
  }

  matching(selection: Selection): Matching {
    let found = this.#matching.get(selection);
    if (found === undefined) {
      found = new Matching(selection, this.events);
      this.#matching.set(selection, found);
    }
    return found;
  }

  /** The tick that holds a version. */
  tickOf(version: number): TrueTick | undefined {
    return this.#ticks[this.#tickAt[version - 1] ?? -1];
  }

  /** Whether a tick ends with this version. */
  isBoundary(version: number): boolean {
    return version === 0 || this.tickOf(version)?.lastVersion === version;
  }

  /** The first end of a tick after a version. */
  boundaryAfter(version: number): number | undefined {
    return this.tickOf(version + 1)?.lastVersion;
  }

  /** The last end of a tick at or before a version. */
  boundaryUpTo(version: number): number {
    const tick = this.tickOf(Math.min(version, this.head));
    if (tick === undefined) return 0;
    return tick.lastVersion <= version ? tick.lastVersion : tick.firstVersion - 1;
  }
}
