import { systemClock } from "../../core/clock.ts";
import type { Clock, Service } from "../../core/ports.ts";
import { createPool } from "../database.ts";
import type { WatchedSessions } from "../watch/watched-sessions.ts";
import { keepOutbox, type Upkeep } from "./upkeep.ts";

/** How to keep the outbox. */
export interface KeeperOptions {
  /** As a role that `millrace.allow` made a server. It has one connection of its own. */
  readonly url: string;
  /** Time between rounds, in milliseconds, more or less a fifth. Default 10,000. */
  readonly intervalMs?: number | undefined;
  /** Told of what was done, and of a failure when it is another than the last one. */
  readonly report?: ((message: string, error?: unknown) => void) | undefined;
  /** Called after each round that came to its end, for tests and metrics. Must return at once. */
  readonly onRound?: ((upkeep: Upkeep) => void) | undefined;
  readonly clock?: Clock | undefined;
  /** Who watches its connection. Default: nobody does. */
  readonly watch?: WatchedSessions | undefined;
}

/** How soon what somebody was in the way of is tried again: doubles from the first to the last, in milliseconds. */
const firstRetryMs = 2000;
const lastRetryMs = 60_000;
/** So that a server without work keeps no connection that it does not need, in milliseconds. */
const idleMs = 30_000;

/**
 * Keeps the outbox in order: partitions ahead, history within its limits. Every server has one, and each does what the
 * others have left.
 *
 * Beside the feed: nothing waits for it, it has a connection of its own, and a database that is away is asked again. Where a
 * long transaction is in the way it tries more and more rarely, for each try has writers queue for up to 200 ms.
 */
export function createKeeper(options: KeeperOptions): Service {
  return new Keeper(options);
}

class Keeper implements Service {
  readonly #options: KeeperOptions;
  readonly #clock: Clock;
  readonly #stopping = new AbortController();
  readonly #pool;
  #timer: NodeJS.Timeout | undefined;
  #round: Promise<void> = Promise.resolve();
  #waits = 0;
  #told: string | undefined;

  constructor(options: KeeperOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#pool = createPool({ url: options.url, max: 1, idleMs, watch: options.watch });
  }

  /** Resolves at once: the first round is soon after. */
  async start(): Promise<void> {
    this.#next(0);
  }

  async stop(): Promise<void> {
    this.#stopping.abort(new Error("the keeper of the outbox stops"));
    clearTimeout(this.#timer);
    await this.#round;
    if (!this.#pool.ended) await this.#pool.end();
  }

  #next(delayMs: number): void {
    if (this.#stopping.signal.aborted) return;
    this.#timer = setTimeout(() => {
      this.#round = this.#keep();
    }, delayMs);
  }

  async #keep(): Promise<void> {
    const { intervalMs = 10_000, onRound } = this.#options;
    const jitter = 0.8 + this.#clock.random() * 0.4;
    let delayMs = intervalMs;
    try {
      const upkeep = await keepOutbox(this.#pool, this.#stopping.signal);
      this.#waits = upkeep.waitsFor === undefined ? 0 : this.#waits + 1;
      if (this.#waits > 0) delayMs = Math.min(firstRetryMs * 2 ** (this.#waits - 1), lastRetryMs);
      this.#tell(upkeep);
      onRound?.(upkeep);
    } catch (error) {
      if (!this.#stopping.signal.aborted)
        this.#tellOnce("The outbox could not be kept in order; it is tried again.", error);
    }
    this.#next(delayMs * jitter);
  }

  #tell({ made, turned, forgotten, lost, expired, dropped, waitsFor }: Upkeep): void {
    const { report } = this.#options;
    if (made > 0) report?.(`Made ${made} partition${made === 1 ? "" : "s"} for events to come.`);
    if (turned) report?.("The default partition, which had taken events, is an ordinary one now.");
    if (forgotten > 0 || dropped.length > 0) {
      report?.(`Forgot ${forgotten} ticks, dropped ${dropped.length === 0 ? "no partition" : dropped.join(", ")}.`);
    }
    if (lost.length > 0) report?.(`History went past the cap of what may be held back: ${named(lost)} lost events.`);
    if (expired.length > 0) report?.(`Deleted what nobody used for its time: ${named(expired)}.`);
    if (waitsFor === undefined) this.#told = undefined;
    else this.#tellOnce(waitsFor);
  }

  #tellOnce(message: string, error?: unknown): void {
    const told = error instanceof Error ? error.message : message;
    if (told === this.#told) return;
    this.#told = told;
    this.#options.report?.(message, error);
  }
}

const mostNames = 10;

/** `subscriptions "a", "b" and 3 more`. */
function named(ids: readonly string[]): string {
  const names = ids.slice(0, mostNames).map((id) => `"${id}"`);
  const more = ids.length > mostNames ? ` and ${ids.length - mostNames} more` : "";
  return `subscription${ids.length === 1 ? "" : "s"} ${names.join(", ")}${more}`;
}
