import type { Logger } from "pino";
import { systemClock, systemTimers } from "../core/clock.ts";
import { FeedError } from "../core/errors.ts";
import type { EpochFeed } from "../core/feed.ts";
import type { Clock } from "../core/ports.ts";
import { Watchdog } from "../core/watchdog/watchdog.ts";
import type { StuckPart } from "../core/watchdog/watched-part.ts";
import { SessionWatch, type SessionWatchOptions } from "../postgres/watch/session-watch.ts";

/** How a feed is watched. */
export interface FeedWatchOptions {
  readonly url: string;
  /** Milliseconds without a sign of life, beyond what a statement may take, after which it counts as stuck. */
  readonly stuckAfterMs: number;
  /** Milliseconds for which a waiter, of whatever server, may say nothing. Default 30,000: it is to say something every ten. */
  readonly waiterSilentMs?: number | undefined;
  readonly allowedMs?: SessionWatchOptions["allowedMs"];
  readonly log: Pick<Logger, "info" | "warn">;
  /** Told of each part that was restarted. */
  readonly onRestart: (part: string) => void;
  /** The feed's connections are restarted in vain, while others are answered: it is to be opened anew. Called once. */
  readonly onHopeless: (reason: FeedError) => void;
}

type WatchedFeed = Pick<EpochFeed, "status" | "restart">;

/** Watches everything that one feed is made of. */
export interface FeedWatch {
  readonly watchdog: Watchdog;
  readonly sessions: SessionWatch;
  /** The tail was restarted several times in a row, in vain. */
  tailIsHopeless(reason: FeedError): void;
  /** From now on this feed is compared with the database as another connection sees it. */
  follow(feed: WatchedFeed): void;
  problems(): readonly StuckPart[];
  stop(): Promise<void>;
}

/** Between two comparisons: half of the patience, so that two of them are within it. */
const LOOKS_PER_PATIENCE = 2;
const WAITER_SILENT_MS = 30_000;

/** Watches from now on. Stop it after everything that it watches. */
export function createFeedWatch(options: FeedWatchOptions): FeedWatch {
  return new Watch(options);
}

class Watch implements FeedWatch {
  readonly watchdog: Watchdog;
  readonly sessions: SessionWatch;
  readonly #options: FeedWatchOptions;
  #timer: NodeJS.Timeout | undefined;
  #looking: Promise<void> = Promise.resolve();
  #stopped = false;
  #hopeless = false;

  constructor(options: FeedWatchOptions) {
    const { url, stuckAfterMs, allowedMs, log, onRestart } = options;
    this.#options = options;
    this.watchdog = new Watchdog({
      clock: systemClock,
      timers: systemTimers,
      patienceMs: stuckAfterMs,
      report: (message, error) =>
        error === undefined ? log.info({}, message) : log.warn({ reason: error.message }, message),
      onRestart: (part, what) => {
        onRestart(part);
        this.sessions.note(part, what);
      },
    });
    this.sessions = new SessionWatch({ url, watchdog: this.watchdog, allowedMs });
    this.sessions.start();
  }

  /**
   * To open another feed ends the streams of this one: only where that can be expected to help. Others are answered; and this
   * one has ever been, or else it is itself one that was opened in vain.
   */
  tailIsHopeless(reason: FeedError): void {
    if (this.#hopeless || this.#stopped || !this.sessions.worked("tail")) return;
    void this.sessions.answers().then((answers) => {
      if (!answers) {
        this.#options.log.warn({}, "Nor is another connection answered: the feed waits for the database.");
      } else if (!this.#hopeless && !this.#stopped) {
        this.#hopeless = true;
        this.#options.onHopeless(reason);
      }
    });
  }

  follow(feed: WatchedFeed): void {
    const { stuckAfterMs, waiterSilentMs = WAITER_SILENT_MS } = this.#options;
    const comparison = createComparison({ feed, patienceMs: stuckAfterMs, clock: systemClock });
    const look = async (): Promise<void> => {
      try {
        const behind = comparison(await this.sessions.head());
        if (behind !== undefined && !this.sessions.busy("tail")) {
          this.sessions.brokenOff("tail", behind);
          feed.restart(
            new FeedError("DATABASE_UNAVAILABLE", `The tail stood still: ${behind.evidence}.`, "Nothing: it goes on."),
          );
        }
        await this.sessions.endSilentWaiter(waiterSilentMs);
      } catch {
        // The database does not answer here either: of that the feed itself tells.
      }
      if (!this.#stopped) next();
    };
    const next = (): void => {
      this.#timer = setTimeout(() => {
        this.#looking = look();
      }, stuckAfterMs / LOOKS_PER_PATIENCE);
    };
    next();
  }

  problems(): readonly StuckPart[] {
    return this.watchdog.problems();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    await this.#looking;
    await this.sessions.stop();
  }
}

/** A feed that the database is ahead of. */
interface Behind {
  readonly silentMs: number;
  readonly evidence: string;
}

/**
 * Compares a feed with what the database has settled, whoever asks and whenever: says so once the feed has stood at the same
 * version for as long as patience lasts, with the database ahead of it.
 */
function createComparison(options: {
  readonly feed: WatchedFeed;
  readonly patienceMs: number;
  readonly clock: Clock;
}): (databaseHead: number) => Behind | undefined {
  const { feed, patienceMs, clock } = options;
  let stands: { readonly head: number; readonly sinceMs: number } | undefined;
  return (databaseHead) => {
    const { head } = feed.status();
    const nowMs = clock.monotonic();
    if (databaseHead <= head) {
      stands = undefined;
      return undefined;
    }
    if (stands?.head !== head) stands = { head, sinceMs: nowMs };
    const silentMs = nowMs - stands.sinceMs;
    if (silentMs < patienceMs) return undefined;
    stands = undefined;
    return { silentMs, evidence: `the database stands at version ${databaseHead} and the feed at ${head}` };
  };
}
