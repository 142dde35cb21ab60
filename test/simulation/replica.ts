import type { FeedError } from "../../src/core/errors.ts";
import type { FeedLimits } from "../../src/core/feed/feed-limits.ts";
import { createFeed } from "../../src/core/feed/feed-service.ts";
import type { EpochFeed } from "../../src/core/feed.ts";
import type { Truth } from "../support/checker/truth.ts";
import { type Database, SeededWakeUp, type ShownHead } from "./database.ts";
import type { VirtualTime } from "./virtual-time.ts";

/** How the feeds of a world are set up. */
export interface ReplicaOptions {
  readonly limits: Partial<FeedLimits>;
  readonly staleAfterMs: number;
  readonly maxStreamAgeMs: number;
}

/** Heads that are remembered: those of the last seconds. */
const HEADS_KEPT = 4_000;

/** One process: a feed over the database, from its start to its end. */
export class Replica {
  readonly feed: EpochFeed;
  readonly truth: Truth;
  readonly wakeUp: SeededWakeUp;
  readonly options: ReplicaOptions;
  readonly #time: VirtualTime;
  #upSinceMs = 0;
  #stale = false;
  #changedMs = 0;
  #heads: ShownHead[] = [];
  #state: "starting" | "up" | "draining" | "down" = "starting";

  /** `onOver` is told, once, that the feed can never go on; whoever is told opens another and ends this one. */
  constructor(
    database: Database,
    time: VirtualTime,
    options: ReplicaOptions,
    onOver: (replica: Replica, reason: FeedError) => void,
  ) {
    this.#time = time;
    this.options = options;
    this.truth = database.truth;
    this.wakeUp = new SeededWakeUp(time);
    const store = database.storeFor((head) => this.#shown(head));
    const { wakeUp } = this;
    this.feed = createFeed({
      store,
      wakeUp,
      clock: time,
      timers: time,
      ...options,
      onOver: (reason) => onOver(this, reason),
    });
  }

  get state(): "starting" | "up" | "draining" | "down" {
    return this.#state;
  }

  async start(signal: AbortSignal): Promise<void> {
    await this.feed.start(signal);
    this.#shown(this.feed.status().head);
    if (this.#state === "starting") {
      this.#state = "up";
      this.#upSinceMs = this.#time.nowMs;
    }
  }

  /** Virtual milliseconds since it took calls. */
  get upForMs(): number {
    return this.#time.nowMs - this.#upSinceMs;
  }

  /** Virtual milliseconds for which it has been seen to call itself stale, or not to; 0 for the other one. */
  get staleForMs(): number {
    return this.#stale ? this.#time.nowMs - this.#changedMs : 0;
  }

  get soundForMs(): number {
    return this.#stale ? 0 : this.#time.nowMs - this.#changedMs;
  }

  /** Somebody has looked whether it calls itself stale. */
  looked(stale: boolean): void {
    if (stale !== this.#stale) {
      this.#stale = stale;
      this.#changedMs = this.#time.nowMs;
    }
  }

  /** Why the feed can never go on, once it knows. */
  get overWith(): string | undefined {
    const { failure } = this.feed.status();
    return failure?.code === "DATABASE_UNAVAILABLE" ? undefined : failure?.code;
  }

  async drain(graceMs: number): Promise<void> {
    this.#state = "draining";
    await this.feed.drain(graceMs);
  }

  async stop(): Promise<void> {
    this.#state = "down";
    await this.feed.stop();
  }

  /** What its log may have ended with lately: a page is on its way from the store to the log for a moment. */
  get heads(): readonly number[] {
    return this.#heads.slice(-2).map(({ head }) => head);
  }

  /** Its newest version so many milliseconds ago. */
  headBefore(ms: number): number {
    const { nowMs } = this.#time;
    return this.#heads.findLast(({ atMs }) => atMs <= nowMs - ms)?.head ?? 0;
  }

  #shown(head: number): void {
    this.#heads.push({ atMs: this.#time.nowMs, head });
    if (this.#heads.length > 2 * HEADS_KEPT) {
      this.#heads = this.#heads.slice(-HEADS_KEPT);
    }
  }
}
