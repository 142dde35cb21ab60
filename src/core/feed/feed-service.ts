import { systemClock, systemTimers } from "../clock.ts";
import type { Cursor } from "../cursor.ts";
import { type FeedError, goingDown } from "../errors.ts";
import type { Version } from "../event.ts";
import type {
  EpochFeed,
  FeedFailure,
  FeedObserver,
  FeedState,
  FeedStatus,
  OpenStream,
  Start,
  StreamRequest,
  StreamUpdate,
} from "../feed.ts";
import type { Frame } from "../frame.ts";
import { createHistoryReaders, type HistoryReaders } from "../history/history-readers.ts";
import { EpochOver } from "../lineage.ts";
import { lastVersionHeld, lastVersionOf } from "../log/settlement.ts";
import { Tail } from "../log/tail.ts";
import type { Clock, FeedStore, Publication, Published, Timers, WakeUp } from "../ports.ts";
import { compileSelectors, type Matcher, type Selector } from "../selector/selector.ts";
import type { Delivery } from "../stream/delivery.ts";
import { locate, recognise } from "../stream/location.ts";
import { type PositionContext, passBarrier, type ResolvedStart, resolveStart } from "../stream/start.ts";
import { type RandomBytes, systemRandomBytes } from "../stream/stream-directory.ts";
import { lifeOf } from "../stream/stream-life.ts";
import type { StreamMail } from "../stream/stream-mail.ts";
import { StreamUpdates } from "../stream/stream-updates.ts";
import { SubscribedStream } from "../stream/subscribed-stream.ts";
import { nextWake } from "../wake-set.ts";
import type { Watchdog } from "../watchdog/watchdog.ts";
import { outcomeUnknown, reopening, starting } from "./feed-failures.ts";
import { DEFAULT_LIMITS, type FeedLimits, tooManySelectors } from "./feed-limits.ts";
import type { FeedStats } from "./feed-stats.ts";
import { type HostView, StreamHost } from "./stream-host.ts";

/** What a feed is made of, and how it waits. */
export interface FeedOptions {
  readonly store: FeedStore;
  readonly wakeUp: WakeUp;
  /** Default: the machine's. */
  readonly clock?: Clock;
  /** Default: the machine's. */
  readonly timers?: Timers;
  /** Default: the machine's. */
  readonly randomBytes?: RandomBytes;
  /** The way to streams of other replicas. Default: there are none. */
  readonly mail?: StreamMail;
  readonly limits?: Partial<FeedLimits>;
  /** Milliseconds without an answer of the database after which the feed calls itself STALE. Default 2,000. */
  readonly staleAfterMs?: number;
  /** Milliseconds that `publish` waits for its version. Default 5,000. */
  readonly settleTimeoutMs?: number;
  /**
   * Milliseconds after which a stream says `closing`, for its client to come again; chance takes up to a tenth of it away.
   * Default 0: never.
   */
  readonly maxStreamAgeMs?: number;
  /** Told of failures that nobody else is told of, and, without an error, when they are over. Default: nobody is. */
  readonly report?: (message: string, error?: unknown) => void;
  /**
   * Told once that the database does not continue what this feed has delivered: another epoch is in force, or what comes next
   * is not kept any more. Streams stay open, STALE, until whoever is told has opened another feed and calls `end`. Default:
   * they end at once with the reason.
   */
  readonly onOver?: (reason: FeedError) => void;
  /** Told of each tick. Default: nobody is. */
  readonly observer?: FeedObserver;
  /** Breaks off what the tail waits for in vain. Default: nobody does. */
  readonly watchdog?: Watchdog | undefined;
}

/** One process's view of the feed. Start it before use; see `Feed`. */
export function createFeed(options: FeedOptions): EpochFeed {
  return new FeedService({
    clock: systemClock,
    timers: systemTimers,
    randomBytes: systemRandomBytes,
    staleAfterMs: 2_000,
    settleTimeoutMs: 5_000,
    maxStreamAgeMs: 0,
    report: () => undefined,
    observer: { advanced: () => undefined, failed: () => undefined },
    ...options,
    limits: { ...DEFAULT_LIMITS, ...options.limits },
  });
}

type ResolvedOptions = Required<Omit<FeedOptions, "onOver" | "mail" | "watchdog">> &
  Pick<FeedOptions, "onOver" | "mail" | "watchdog"> & { readonly limits: FeedLimits };

class FeedService implements EpochFeed, HostView {
  readonly #options: ResolvedOptions;
  readonly #tail: Tail;
  readonly #readers: HistoryReaders;
  readonly #host: StreamHost;
  readonly #updates: StreamUpdates<Delivery>;
  #draining = false;
  /** Streams that have not fixed their start: nothing but a rejection can end these. */
  readonly #opening = new Set<AbortController>();
  /** Publications that wait for a version that may never come. */
  readonly #over = new AbortController();
  /** What streams end with. */
  #reason: FeedError | undefined;

  constructor(options: ResolvedOptions) {
    this.#options = options;
    const onOver = (reason: FeedError) => this.#onOver(reason);
    const { store, clock, timers, randomBytes, limits } = options;
    const { logMaxBytes, warmBytes, maxReads, historyCacheBytes: cacheMaxBytes } = limits;
    this.#tail = new Tail({ ...options, logMaxBytes, warmBytes, onOver });
    this.#readers = createHistoryReaders(store, { maxReads, cacheMaxBytes, clock, timers });
    this.#host = new StreamHost(this, { store, history: this.#readers, randomBytes, limits, clock, timers });
    const { directory } = this.#host;
    const change = (stream: Delivery, { selectors }: StreamUpdate) => this.#change(stream, selectors);
    this.#updates = new StreamUpdates({ directory, mail: options.mail, change });
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

  get failure(): FeedError | undefined {
    return this.#reason;
  }

  get over(): boolean {
    return this.#tail.over !== undefined;
  }

  async start(signal: AbortSignal): Promise<void> {
    this.#tail.onLog = (log) => {
      log.onAppend = (page) => this.#host.appended(page);
    };
    this.#tail.onChange = () => this.#host.wakeAll();
    await this.#tail.start(signal);
    this.#updates.start();
  }

  /** Ends everything without grace: waiting streams say `closing`, busy ones when they are next asked. */
  async stop(): Promise<void> {
    this.#beginDraining();
    this.#updates.stop();
    this.#readers.stop();
    await this.#tail.stop();
  }

  end(reason: FeedError): void {
    this.#reason ??= reason;
    this.#refuseOpening(this.#refusal(reason));
    if (this.#tail.started) {
      const { changed } = this.log;
      this.#tail.release();
      this.#readers.stop(reason);
      changed.wakeAll();
      this.#host.wakeAll();
    }
  }

  restart(reason: FeedError): void {
    this.#tail.restart(reason);
  }

  #onOver(reason: FeedError): void {
    this.#over.abort(reason);
    if (this.#options.onOver === undefined) {
      this.end(reason);
    } else {
      this.#refuseOpening(this.#refusal(reason));
      this.#options.onOver(reason);
    }
  }

  async drain(graceMs: number): Promise<void> {
    this.#beginDraining();
    const grace = new AbortController();
    const cancel = this.#options.timers.after(graceMs, () => grace.abort());
    try {
      while (this.#host.size > 0) {
        await nextWake(this.#host.left, grace.signal);
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
      streams: this.#host.size,
      logBytes: log?.bytes ?? 0,
      logEvents: log?.events ?? 0,
      logOldest: log?.oldest ?? 1,
      failure: this.#failing(),
    };
  }

  stats(): FeedStats {
    const stats = this.#host.stats();
    const lagMs = stats.lagVersions.map((versions) => this.#lagMs(versions));
    return { ...stats, lagMs, history: this.#readers.stats() };
  }

  #lagMs(versions: number): number | undefined {
    if (versions === 0) {
      return 0;
    }
    const { log } = this;
    const next = log.tickOf(log.head - versions + 1);
    return next === undefined ? undefined : Math.max(0, this.#options.clock.now() - next.timeMicros / 1000);
  }

  #failing(): FeedFailure | undefined {
    const { stale, failure, over } = this.#tail;
    if (!stale) {
      return undefined;
    }
    if (over !== undefined) {
      const action =
        this.#options.onOver === undefined
          ? "Open the store and the feed anew. Its streams have ended."
          : "Nothing: Millrace opens the history in force by itself, and its streams then end.";
      return { code: over.code, message: over.message, action };
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

  subscribe(request: StreamRequest, signal: AbortSignal): AsyncIterableIterator<Frame> {
    const { clock, timers } = this.#options;
    return new SubscribedStream(signal, { open: (ending) => this.open(request, ending), clock, timers });
  }

  async open(request: StreamRequest, signal: AbortSignal): Promise<OpenStream> {
    this.#assertServing();
    this.#host.enter(request.peer);
    const ending = new AbortController();
    const onAbort = () => ending.abort(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      signal.throwIfAborted();
      return await this.#open(request, ending);
    } catch (error) {
      this.#host.leave(request.peer);
      throw error;
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }

  async #open(request: StreamRequest, ending: AbortController): Promise<OpenStream> {
    const matcher = this.#compile(request.selectors);
    const life = lifeOf(request.deadlineMs, this.#options.maxStreamAgeMs, this.#options.clock);
    const start = await this.#resolve(request, matcher, ending);
    try {
      return this.#host.open({ request, matcher, start, ending, life });
    } catch (error) {
      // A snapshot that has begun has no stream that would end it.
      ending.abort(error);
      await start.snapshot?.run.close().catch(() => undefined);
      throw error;
    }
  }

  #compile(selectors: readonly Selector[]): Matcher {
    const { limits, store } = this.#options;
    if (selectors.length > limits.maxSelectors) {
      throw tooManySelectors(selectors.length, limits);
    }
    const onFilterError = () => this.#host.totals.countFilterError();
    return compileSelectors(selectors, { limits, onFilterError, hides: store.hides });
  }

  async update(request: StreamUpdate, signal: AbortSignal): Promise<number> {
    this.#assertServing();
    return await this.#updates.update(request, signal);
  }

  /** Synchronous from finding the stream to changing it: in between it cannot end. */
  #change(stream: Delivery, selectors: readonly Selector[]): number {
    this.#assertServing();
    return this.#host.change(stream, this.#compile(selectors));
  }

  async publish(request: Publication, signal: AbortSignal): Promise<Published> {
    this.#assertServing();
    const after = this.log.head;
    const published = await this.#unlessOver(this.#options.store.publish(request, signal));
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
    this.#over.signal.addEventListener("abort", onAbort, { once: true });
    try {
      this.#over.signal.throwIfAborted();
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
      if (this.#over.signal.aborted || error instanceof EpochOver) {
        throw outcomeUnknown(this.epoch, error);
      }
      if (!limit.signal.aborted) {
        this.#options.report("The version of a publication could not be found out.", error);
      }
      return undefined;
    } finally {
      cancel();
      signal.removeEventListener("abort", onAbort);
      this.#over.signal.removeEventListener("abort", onAbort);
    }
  }

  async #resolve(request: StreamRequest, matcher: Matcher, ending: AbortController): Promise<ResolvedStart> {
    const context = { ...this.#positions, matcher };
    const { start, afterTransaction = "" } = request;
    this.#opening.add(ending);
    try {
      if (afterTransaction !== "") {
        await this.#unlessOver(passBarrier(afterTransaction, context, ending.signal));
      }
      return await this.#unlessOver(resolveStart(start, context, ending.signal));
    } finally {
      this.#opening.delete(ending);
    }
  }

  get #positions(): PositionContext {
    const { store, wakeUp } = this.#options;
    return { store, wakeUp, log: this.log, oldest: this.oldest, failure: () => this.#reason };
  }

  check(selectors: readonly Selector[]): void {
    this.#compile(selectors);
  }

  async locate(start: Start, signal: AbortSignal): Promise<Cursor> {
    this.#assertServing();
    return await this.#unlessOver(locate(start, this.#positions, signal));
  }

  async recognise(cursor: string, signal: AbortSignal): Promise<Cursor> {
    this.#assertFollowing();
    return await this.#unlessOver(recognise(cursor, this.#positions, signal));
  }

  /** Whoever meets another epoch before the tail does is told what the tail will find; and the tail shall look at once. */
  async #unlessOver<T>(work: Promise<T>): Promise<T> {
    try {
      return await work;
    } catch (error) {
      if (!(error instanceof EpochOver)) {
        throw error;
      }
      this.#options.wakeUp.nudge();
      throw this.#refusal(error);
    }
  }

  /** What is told to calls that this feed can serve no more: to try again only where somebody opens another one. */
  #refusal(over: FeedError): FeedError {
    return this.#options.onOver === undefined ? over : reopening(over);
  }

  #assertServing(): void {
    if (this.#draining) {
      throw goingDown();
    }
    this.#assertFollowing();
  }

  #assertFollowing(): void {
    const { over, started } = this.#tail;
    if (over !== undefined) {
      throw this.#refusal(over);
    }
    if (!started) {
      throw starting();
    }
  }

  #refuseOpening(reason: FeedError): void {
    for (const opening of this.#opening) {
      opening.abort(reason);
    }
  }

  #beginDraining(): void {
    this.#draining = true;
    this.#refuseOpening(goingDown());
    this.#host.wakeAll();
  }
}
