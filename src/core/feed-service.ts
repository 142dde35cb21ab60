import { systemClock, systemTimers } from "./clock.ts";
import { FeedError, goingDown } from "./errors.ts";
import type { Version } from "./event.ts";
import type { Feed, FeedFailure, FeedState, FeedStatus, Subscription } from "./feed.ts";
import type { Frame } from "./frame.ts";
import type { Clock, FeedStore, Publication, Published, Timers, WakeUp } from "./ports.ts";
import type { ScanOptions } from "./scan.ts";
import { compileSelectors } from "./selector.ts";
import { lastVersionHeld, lastVersionOf } from "./settlement.ts";
import { passBarrier, type ResolvedStart, resolveStart, type StartContext } from "./start.ts";
import { type FeedView, Stream } from "./stream.ts";
import { StreamDriver } from "./stream-driver.ts";
import { SubscribedStream } from "./subscribed-stream.ts";
import { Tail } from "./tail.ts";
import { nextWake, WakeSet } from "./wake-set.ts";

/** What a feed takes on at most. */
export interface FeedLimits {
  /** Streams open at once on this process. Default 20,000. Beyond it: LIMIT_EXCEEDED. */
  readonly maxStreams: number;
  /** Bytes of events held in memory, by `eventBytes`. Default 64 MiB. */
  readonly logMaxBytes: number;
}

/** What a feed is made of, and how it waits. */
export interface FeedOptions {
  readonly store: FeedStore;
  readonly wakeUp: WakeUp;
  /** Default: the machine's. */
  readonly clock?: Clock;
  /** Default: the machine's. */
  readonly timers?: Timers;
  readonly limits?: Partial<FeedLimits>;
  /** Milliseconds without an answer of the database after which the feed calls itself STALE. Default 2,000. */
  readonly staleAfterMs?: number;
  /** Milliseconds that `publish` waits for its version. Default 5,000. */
  readonly settleTimeoutMs?: number;
  /** Told of failures that nobody else is told of, and, without an error, when they are over. Default: nobody is. */
  readonly report?: (message: string, error?: unknown) => void;
}

const DEFAULT_LIMITS: FeedLimits = { maxStreams: 20_000, logMaxBytes: 64 * 1024 * 1024 };
/** A stream says `closing` this long before its deadline, or a tenth of its time when that is less. */
const CLOSING_LEAD_MS = 500;
const RETRY_AFTER_MS = 1_000;

/** One process's view of the feed. Start it before use; see `Feed`. */
export function createFeed(options: FeedOptions): Feed {
  return new FeedService({
    clock: systemClock,
    timers: systemTimers,
    staleAfterMs: 2_000,
    settleTimeoutMs: 5_000,
    report: () => undefined,
    ...options,
    limits: { ...DEFAULT_LIMITS, ...options.limits },
  });
}

type ResolvedOptions = Required<FeedOptions> & { readonly limits: FeedLimits };

class FeedService implements Feed, FeedView {
  readonly #options: ResolvedOptions;
  readonly #tail: Tail;
  #draining = false;
  #streams = 0;
  /** Streams that have not fixed their start: nothing but a rejection can end these. */
  readonly #opening = new Set<AbortController>();
  readonly #ended = new WakeSet();

  constructor(options: ResolvedOptions) {
    this.#options = options;
    this.#tail = new Tail({ ...options, logMaxBytes: options.limits.logMaxBytes });
  }

  get epoch(): string {
    return this.#options.store.epoch;
  }

  get log() {
    return this.#tail.log;
  }

  get stale(): boolean {
    return this.#tail.stale;
  }

  get draining(): boolean {
    return this.#draining;
  }

  get oldest(): Version {
    return this.#tail.oldest;
  }

  async start(signal: AbortSignal): Promise<void> {
    await this.#tail.start(signal);
  }

  /** Ends everything without grace: waiting streams say `closing`, busy ones when they are next asked. */
  async stop(): Promise<void> {
    this.#beginDraining();
    await this.#tail.stop();
  }

  async drain(graceMs: number): Promise<void> {
    this.#beginDraining();
    const grace = new AbortController();
    const cancel = this.#options.timers.after(graceMs, () => grace.abort());
    try {
      while (this.#streams > 0) {
        await nextWake(this.#ended, grace.signal);
      }
    } catch (error) {
      if (!grace.signal.aborted) {
        throw error;
      }
    } finally {
      cancel();
    }
  }

  status(): FeedStatus {
    const tail = this.#tail;
    const log = tail.started ? tail.log : undefined;
    const last = log?.tickOf(log.head);
    return {
      epoch: this.epoch,
      state: this.#state(),
      head: log?.head ?? 0,
      oldest: Math.min(tail.oldest, (log?.head ?? 0) + 1),
      settledAgeMs: tail.answeredAtMs === undefined ? undefined : this.#options.clock.monotonic() - tail.answeredAtMs,
      settledAtMicros: last === undefined || last.count === 0 ? undefined : last.timeMicros,
      streams: this.#streams,
      logBytes: log?.bytes ?? 0,
      logEvents: log?.events ?? 0,
      logOldest: log?.oldest ?? 1,
      failure: this.#failure(),
    };
  }

  #failure(): FeedFailure | undefined {
    const { stale, failure, fatal } = this.#tail;
    if (!stale) {
      return undefined;
    }
    if (fatal !== undefined) {
      const action = "Restart Millrace, so that it serves the history in force. Its streams have ended.";
      return { code: fatal.code, message: fatal.message, action };
    }
    return {
      code: failure?.code ?? "DATABASE_UNAVAILABLE",
      message: failure?.message ?? "The database has not answered for a while.",
      action:
        failure?.action ?? "Check that Postgres runs and can be reached; Millrace goes on by itself once it answers.",
    };
  }

  #state(): FeedState {
    if (this.#draining) {
      return "DRAINING";
    }
    if (!this.#tail.started) {
      return "STARTING";
    }
    return this.#tail.stale ? "STALE" : "LIVE";
  }

  subscribe(request: Subscription, signal: AbortSignal): AsyncIterableIterator<Frame> {
    let counted = false;
    const open = async (ending: AbortController): Promise<StreamDriver> => {
      this.#assertOpen();
      counted = true;
      this.#streams += 1;
      return await this.#open(request, ending);
    };
    const onEnd = () => {
      if (counted) {
        this.#streams -= 1;
        this.#ended.wakeAll();
      }
    };
    return new SubscribedStream(signal, open, onEnd);
  }

  async #open(request: Subscription, ending: AbortController): Promise<StreamDriver> {
    const { clock, timers, store } = this.#options;
    const { checkpointIntervalMs, measure, maxBatchBytes } = request;
    const { matches, wantsSource } = compileSelectors(request.selectors);
    const closesAtMs = this.#closesAtMs(request.deadlineMs);
    const { position, snapshot, restart } = await this.#resolve(request, wantsSource, ending);
    const scan: ScanOptions = { matches, measure, maxBatchBytes };
    const stream = new Stream(position, this, { scan, checkpointIntervalMs, closesAtMs }, clock);
    if (snapshot === undefined) {
      stream.begin();
    } else {
      stream.beginSnapshot({ topics: snapshot.parts.map(({ topic }) => topic), restart });
    }
    const { changed } = this.log;
    const failure = () => this.#tail.fatal;
    const { signal } = ending;
    return new StreamDriver({ stream, store, snapshot, changed, failure, clock, timers, signal });
  }

  async publish(request: Publication, signal: AbortSignal): Promise<Published> {
    this.#assertServing();
    const after = this.log.head;
    const published = await this.#options.store.publish(request, signal);
    this.#options.wakeUp.nudge();
    return { ...published, version: published.version ?? (await this.#versionOf(published, after, signal)) };
  }

  /** The events are committed by now: that their version is not known in time is no failure. */
  async #versionOf(published: Published, after: Version, signal: AbortSignal): Promise<Version | undefined> {
    const { timers, settleTimeoutMs, store } = this.#options;
    const limit = new AbortController();
    const cancel = timers.after(settleTimeoutMs, () => limit.abort());
    const onAbort = () => limit.abort();
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      if (!published.duplicate) {
        return await lastVersionOf(published.xid, after, this.log, limit.signal);
      }
      const settled = await store.settled(published.xid, limit.signal);
      while (this.log.head < settled) {
        await nextWake(this.log.changed, limit.signal);
      }
      return lastVersionHeld(published.xid, this.log);
    } catch (error) {
      signal.throwIfAborted();
      if (!limit.signal.aborted) {
        this.#options.report("The version of a publication could not be found out.", error);
      }
      return undefined;
    } finally {
      cancel();
      signal.removeEventListener("abort", onAbort);
    }
  }

  async #resolve(
    request: Subscription,
    wantsSource: (topic: string) => boolean,
    ending: AbortController,
  ): Promise<ResolvedStart> {
    const { store, wakeUp } = this.#options;
    const failure = () => this.#tail.fatal;
    const context: StartContext = { store, wakeUp, log: this.log, wantsSource, oldest: this.oldest, failure };
    this.#opening.add(ending);
    try {
      if (request.afterTransaction !== undefined && request.afterTransaction !== "") {
        await passBarrier(request.afterTransaction, context, ending.signal);
      }
      return await resolveStart(request.start, context, ending.signal);
    } finally {
      this.#opening.delete(ending);
    }
  }

  #closesAtMs(deadlineMs: number | undefined): number {
    if (deadlineMs === undefined) {
      return Number.POSITIVE_INFINITY;
    }
    const remainingMs = Math.max(0, deadlineMs - this.#options.clock.monotonic());
    return deadlineMs - Math.min(CLOSING_LEAD_MS, remainingMs / 10);
  }

  #assertServing(): void {
    if (this.#draining) {
      throw goingDown();
    }
    const { fatal, started } = this.#tail;
    if (fatal !== undefined) {
      throw fatal;
    }
    if (!started) {
      throw new FeedError("DATABASE_UNAVAILABLE", "The feed is starting.", "Try again in a moment.", {
        retryAfterMs: RETRY_AFTER_MS,
      });
    }
  }

  #assertOpen(): void {
    this.#assertServing();
    const { maxStreams } = this.#options.limits;
    if (this.#streams >= maxStreams) {
      throw new FeedError(
        "LIMIT_EXCEEDED",
        `This server has ${maxStreams} streams open, which is its limit (maxStreams).`,
        "Close streams, try another replica, or raise the limit.",
        { retryAfterMs: RETRY_AFTER_MS },
      );
    }
  }

  #beginDraining(): void {
    this.#draining = true;
    for (const opening of this.#opening) {
      opening.abort(goingDown());
    }
    if (this.#tail.started) {
      this.log.changed.wakeAll();
    }
  }
}
