import { setTimeout as pause } from "node:timers/promises";
import type { Logger } from "pino";
import type { BuilderStats } from "../core/builder/built-store.ts";
import { FeedError, goingDown } from "../core/errors.ts";
import type { EpochFeed, FeedFailure } from "../core/feed.ts";
import { type Ancestor, EpochOver, epochChanged } from "../core/lineage.ts";
import type { Sources } from "../core/source/sources.ts";
import type { Subscriptions } from "../core/subscription/subscriptions.ts";
import type { Problem, StorageReport } from "../rpc/status.ts";
import { waitForDatabase } from "./database-wait.ts";
import { FeedRebuilt } from "./feed-rebuilt.ts";
import type { FeedSlot } from "./feed-slot.ts";

/** A feed with what stands behind it. */
export interface OpenedFeed {
  readonly feed: EpochFeed;
  /** Of that feed. Where there are none, nobody can consume any. */
  readonly subscriptions?: Subscriptions;
  /** What its epoch descends from, newest first. */
  readonly lineage: readonly Ancestor[];
  /** What is wrong beside what the feed itself knows; answers from memory. */
  problems(): readonly Problem[];
  /** What is kept, as it was looked at last; answers from memory. */
  storage?(): StorageReport | undefined;
  /** The watched tables, where there are any to speak of. */
  readonly sources?: Sources;
  /** What builders have done, where there are any. */
  readonly builders?: (() => BuilderStats) | undefined;
  /** Ends the feed and its store, in that order. */
  stop(): Promise<void>;
}

/**
 * Opens a started feed, or rejects and leaves nothing behind. `onOver` is to be told once when the database does not continue
 * that feed: see `FeedOptions.onOver`.
 */
export type OpenFeed = (signal: AbortSignal, onOver: (reason: FeedError) => void) => Promise<OpenedFeed>;

/** What the first opening is told of. */
export interface Waiting {
  readonly signal: AbortSignal;
  /** `debug` when somebody else tells of it. */
  readonly logLevel: "warn" | "debug";
  readonly onWait: (failure: FeedFailure) => void;
}

/** A feed that is over sooner than this is not replaced at once: something at the address changes to and fro. */
const STEADY_MS = 5_000;
const UNSTEADY_PAUSE_MS = 1_000;
/** What has not ended by then is left to the end of the process: its connections may lead to a server that is gone. */
const STOP_MS = 10_000;

interface Held {
  readonly opened: OpenedFeed;
  readonly over: Promise<FeedError>;
  readonly sinceMs: number;
}

/**
 * Keeps a feed in the slot, of whatever epoch the database is in: when a feed is over, opens another, puts it in the slot,
 * and then ends the streams of the first with what has become of their epoch. In that order, so that whoever comes back at
 * once finds the new one.
 */
export class FeedHolder {
  readonly #open: OpenFeed;
  readonly #slot: FeedSlot;
  readonly #log: Logger;
  readonly #stopMs: number;
  readonly #stopping = new AbortController();
  #held: Held | undefined;
  #following: Promise<void> = Promise.resolve();
  /** Feeds that were replaced and have not come to their end. */
  #retired: Promise<unknown> = Promise.resolve();

  /** `stopMs`: after how long a feed that does not end is left, in milliseconds. Default 10,000. */
  constructor(open: OpenFeed, slot: FeedSlot, log: Logger, stopMs = STOP_MS) {
    this.#stopMs = stopMs;
    this.#open = open;
    this.#slot = slot;
    this.#log = log;
  }

  problems(): readonly Problem[] {
    return this.#held?.opened.problems() ?? [];
  }

  storage(): StorageReport | undefined {
    return this.#held?.opened.storage?.();
  }

  builders(): BuilderStats | undefined {
    return this.#held?.opened.builders?.();
  }

  sources(): Sources | undefined {
    return this.#held?.opened.sources;
  }

  /** Waits for the database as long as that can help; then for changes of its epoch. */
  async start({ signal, logLevel, onWait }: Waiting): Promise<void> {
    this.#held = await waitForDatabase(() => this.#opening(signal), {
      log: this.#log,
      logLevel,
      onWait,
      signal,
      // Another replica may be beginning an epoch at this moment.
      passes: (error) =>
        error instanceof EpochOver || (error instanceof FeedError && error.code === "DATABASE_UNAVAILABLE"),
    });
    this.#fill(this.#held.opened);
    this.#following = this.#follow();
  }

  /** Resolves also when a feed does not end. */
  async stop(): Promise<void> {
    this.#stopping.abort(goingDown());
    await this.#following;
    const ended = Promise.all([this.#held?.opened.stop(), this.#retired]);
    const inTime = new AbortController();
    try {
      const waited = await Promise.race([ended, pause(this.#stopMs, "late", { signal: inTime.signal })]);
      if (waited === "late") this.#log.warn({ afterMs: this.#stopMs }, "the feed did not end in time, and is left");
    } finally {
      inTime.abort();
    }
  }

  #fill({ feed, subscriptions }: OpenedFeed): void {
    this.#slot.fill(feed, subscriptions);
  }

  async #opening(signal: AbortSignal): Promise<Held> {
    const over = Promise.withResolvers<FeedError>();
    return { opened: await this.#open(signal, over.resolve), over: over.promise, sinceMs: performance.now() };
  }

  async #follow(): Promise<void> {
    const { signal } = this.#stopping;
    const stopped = new Promise<undefined>((resolve) => {
      signal.addEventListener("abort", () => resolve(undefined), { once: true });
    });
    for (;;) {
      const held = this.#held;
      const reason = await Promise.race([held?.over, stopped]);
      if (held === undefined || reason === undefined) return;
      try {
        await this.#replace(held, reason, signal);
      } catch (error) {
        if (signal.aborted) return;
        throw error;
      }
    }
  }

  async #replace(old: Held, reason: FeedError, signal: AbortSignal): Promise<void> {
    const { epoch } = old.opened.feed.status();
    this.#log.warn({ epoch, err: reason }, whyReplaced(reason));
    if (performance.now() - old.sinceMs < STEADY_MS) await pause(UNSTEADY_PAUSE_MS, undefined, { signal });
    const next = await waitForDatabase(() => this.#opening(signal), {
      log: this.#log,
      logLevel: "warn",
      onWait: (failure) => {
        this.#slot.explain(failure);
        // Nobody knows how long it takes to mend what time does not.
        if (failure.code !== "DATABASE_UNAVAILABLE" && !(failure instanceof EpochOver)) old.opened.feed.end(reason);
      },
      signal,
      passes: () => true,
    });
    this.#held = next;
    this.#fill(next.opened);
    const { epoch: inForce, head, oldest } = next.opened.feed.status();
    const { lineage } = next.opened;
    old.opened.feed.end(inForce === epoch ? interrupted() : epochChanged(epoch, { epoch: inForce, lineage }, head));
    this.#log.warn({ epoch: inForce, before: epoch, head, oldest }, "the feed moves again");
    this.#retire(old);
  }

  /** Beside the new feed, which must not wait: the connections of the old one may lead to a server that is gone. */
  #retire({ opened }: Held): void {
    const ended = opened.stop().catch((error: unknown) => {
      this.#log.warn({ err: error }, "the feed that was replaced did not end in order");
    });
    this.#retired = Promise.all([this.#retired, ended]);
  }
}

function whyReplaced(reason: FeedError): string {
  if (reason instanceof FeedRebuilt) return "events are shown otherwise from now on: opening the feed anew";
  return reason.code === "DATABASE_UNAVAILABLE"
    ? "the feed stands still whatever is restarted of it: opening it anew"
    : "the history that was followed is over: opening the one in force";
}

/** Something else stood at the database's address for a moment, or this process slept longer than history is kept. */
function interrupted(): FeedError {
  return new FeedError(
    "DATABASE_UNAVAILABLE",
    "The feed was interrupted and opened again, in the same epoch.",
    "Reconnect with the last cursor.",
    { retryAfterMs: 100 },
  );
}
