import { FeedError } from "../../src/core/errors.ts";
import { eventBytes, type Page, type Tick, tickEnd } from "../../src/core/page.ts";
import type { FeedStore, WakeUp } from "../../src/core/ports.ts";
import { createMemoryStore, type MemoryStore } from "../../src/memory/store.ts";
import type { SeenEvent } from "../support/checker/seen.ts";
import { Truth } from "../support/checker/truth.ts";
import type { Random } from "../support/workload/random.ts";
import type { VirtualTime } from "./virtual-time.ts";
import { SOURCES, seenOf } from "./wants.ts";

/** How the database answers. */
export interface DatabaseOptions {
  readonly time: VirtualTime;
  readonly random: Random;
  /** Each call takes up to so many milliseconds. */
  readonly latencyMs: number;
  /** Events of a page, at most: each page holds a number of its own, up to this. */
  readonly pageEvents: number;
  /** Share of the reads of history that fail. */
  readonly failing: number;
}

/** What a replica has been shown by its own tail. */
export interface ShownHead {
  readonly atMs: number;
  readonly head: number;
}

const ENDLESS = new AbortController().signal;
const NEVER = Number.POSITIVE_INFINITY;
const GONE = new FeedError("DATABASE_UNAVAILABLE", "The database is away.", "Wait until it is back.");

/**
 * The database of a simulation: the memory store, which settles and reads, behind a network that chance delays, refuses and
 * holds up. It notes all that is ever settled, for the checker.
 */
export class Database {
  truth: Truth;
  #memory: MemoryStore;
  #mode: "there" | "refusing" | "hanging" = "there";
  /** Since when it is away. */
  #awaySinceMs = NEVER;
  /** When it was last away. */
  #backSinceMs = 0;
  #oldest = 1;
  #failing: number;
  #latencyMs: number;
  #pageEvents: number;
  readonly #options: DatabaseOptions;
  readonly #hanging = new Set<() => void>();

  constructor(options: DatabaseOptions) {
    this.#options = options;
    this.#failing = options.failing;
    this.#latencyMs = options.latencyMs;
    this.#pageEvents = options.pageEvents;
    const epoch = "00000000-0000-4000-8000-000000000001";
    this.#memory = createMemoryStore({
      sources: SOURCES,
      pageEvents: 256,
      epoch,
      clock: options.time,
      snapshotRows: 7,
    });
    this.truth = new Truth(epoch);
  }

  /** Where writers write. */
  get memory(): MemoryStore {
    return this.#memory;
  }

  /** The oldest version that it keeps. */
  get oldest(): number {
    return this.#oldest;
  }

  /** Virtual milliseconds since it has answered everything; 0 while it does not. */
  get soundForMs(): number {
    return this.#mode === "there" ? this.#options.time.nowMs - this.#backSinceMs : 0;
  }

  get awayForMs(): number {
    return this.#mode === "there" ? 0 : this.#options.time.nowMs - this.#awaySinceMs;
  }

  goAway(mode: "refusing" | "hanging"): void {
    if (this.#mode === "there") {
      this.#mode = mode;
      this.#awaySinceMs = this.#options.time.nowMs;
    }
  }

  comeBack(): void {
    if (this.#mode !== "there") {
      this.#mode = "there";
      this.#awaySinceMs = NEVER;
      this.#backSinceMs = this.#options.time.nowMs;
      const hanging = [...this.#hanging];
      this.#hanging.clear();
      for (const wake of hanging) {
        wake();
      }
    }
  }

  /** From now on it answers fast, and everything. */
  heal(): void {
    this.#failing = 0;
    this.#latencyMs = 0.1;
    this.#pageEvents = 1_000;
    this.comeBack();
  }

  /** Everything after a version is forgotten, in another epoch. Whoever holds the store meets its end. */
  async restore(version: number): Promise<void> {
    await this.note();
    this.#memory = this.#memory.fork(version);
    this.truth = this.truth.fork(this.#memory.epoch, version);
  }

  async retainFrom(version: number): Promise<void> {
    await this.note();
    this.#memory.retainFrom(version);
    this.#oldest = Math.max(this.#oldest, Math.min(version, this.truth.head + 1));
  }

  /** Writes down what has been settled. */
  async note(): Promise<void> {
    const memory = this.#memory;
    const { truth } = this;
    for (;;) {
      const page = await memory.readAfter(truth.head, ENDLESS);
      if (page === undefined) {
        return;
      }
      const tick = page.ticks[0];
      if (tick !== undefined) {
        await noteTick(memory, truth, tick);
      }
    }
  }

  /** What one replica sees of it. `shown` is told of what its tail gets. */
  storeFor(shown: (head: number) => void): FeedStore {
    const memory = this.#memory;
    const { random } = this.#options;
    const cut = (page: Page | undefined) => cutPage(page, 1 + random.below(this.#pageEvents));
    const reached = async <T>(signal: AbortSignal, ask: () => Promise<T>): Promise<T> => {
      await this.#answer(signal);
      const answer = await ask();
      await this.note();
      signal.throwIfAborted();
      return answer;
    };
    return {
      epoch: memory.epoch,
      lineage: memory.lineage,
      bounds: (signal) => reached(signal, () => memory.bounds(signal)),
      advance: async (after, signal) => {
        const page = await reached(signal, async () => cut(await memory.advance(after, signal)));
        if (page !== undefined) {
          shown(page.firstVersion + page.events.length - 1);
        }
        return page;
      },
      readAfter: (after, signal) =>
        reached(signal, async () => {
          if (random.chance(this.#failing)) {
            throw GONE;
          }
          return cut(await memory.readAfter(after, signal));
        }),
      tickOf: (version, signal) => reached(signal, () => memory.tickOf(version, signal)),
      tickAt: (timeMicros, signal) => reached(signal, () => memory.tickAt(timeMicros, signal)),
      snapshot: (request, signal) => reached(signal, () => memory.snapshot(request, signal)),
      publish: (request, signal) => reached(signal, () => memory.publish(request, signal)),
      settled: (xid, signal) => reached(signal, () => memory.settled(xid, signal)),
    };
  }

  async #answer(signal: AbortSignal): Promise<void> {
    const { time, random } = this.#options;
    await time.pause(this.#latencyMs * random.next(), signal);
    while (this.#mode === "hanging") {
      await new Promise<void>((resolve, reject) => {
        const wake = () => {
          signal.removeEventListener("abort", onAbort);
          resolve();
        };
        const onAbort = () => {
          this.#hanging.delete(wake);
          reject(signal.reason);
        };
        signal.addEventListener("abort", onAbort, { once: true });
        this.#hanging.add(wake);
      });
    }
    if (this.#mode === "refusing") {
      throw GONE;
    }
  }
}

/** Wakes when it is nudged, and polls beside that. */
export class SeededWakeUp implements WakeUp {
  idleMs = 20;
  readonly #time: VirtualTime;
  readonly #sleeping = new Set<() => void>();

  constructor(time: VirtualTime) {
    this.#time = time;
  }

  nudge(): void {
    const sleeping = [...this.#sleeping];
    this.#sleeping.clear();
    for (const wake of sleeping) {
      wake();
    }
  }

  wait(found: boolean, signal: AbortSignal): Promise<void> {
    if (found) {
      return this.#time.turn();
    }
    return new Promise((resolve, reject) => {
      signal.throwIfAborted();
      const wake = () => {
        cancel();
        this.#sleeping.delete(wake);
        signal.removeEventListener("abort", onAbort);
        resolve();
      };
      const onAbort = () => {
        cancel();
        this.#sleeping.delete(wake);
        reject(signal.reason);
      };
      const cancel = this.#time.after(this.idleMs, wake);
      signal.addEventListener("abort", onAbort, { once: true });
      this.#sleeping.add(wake);
    });
  }
}

async function noteTick(memory: MemoryStore, truth: Truth, tick: Tick): Promise<void> {
  const { firstVersion, timeMicros } = tick;
  const lastVersion = tickEnd(tick);
  const events: SeenEvent[] = [];
  while (events.length <= lastVersion - firstVersion) {
    const page = await memory.readAfter(firstVersion - 1 + events.length, ENDLESS);
    events.push(...(page?.events.slice(0, lastVersion + 1 - page.firstVersion).map(seenOf) ?? []));
  }
  // Somebody else may have noted it meanwhile.
  if (truth.head < firstVersion) {
    truth.add({ firstVersion, lastVersion, timeMicros }, events);
  }
}

function cutPage(page: Page | undefined, maxEvents: number): Page | undefined {
  if (page === undefined || page.events.length <= maxEvents) {
    return page;
  }
  const events = page.events.slice(0, maxEvents);
  const last = page.firstVersion + maxEvents - 1;
  const ticks = page.ticks.filter(({ firstVersion }) => firstVersion <= last);
  return { ...page, events, ticks, bytes: events.reduce((sum, event) => sum + eventBytes(event), 0) };
}
