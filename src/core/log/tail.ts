import { backOffMs, pause } from "../back-off.ts";
import { FeedError, goingDown } from "../errors.ts";
import type { Version } from "../event.ts";
import type { FeedObserver } from "../feed.ts";
import { EpochOver } from "../lineage.ts";
import type { Clock, FeedStore, Service, Timers, WakeUp } from "../ports.ts";
import type { Watchdog } from "../watchdog/watchdog.ts";
import type { WatchedPart } from "../watchdog/watched-part.ts";
import { Log } from "./log.ts";
import { warmLog } from "./log-warming.ts";

/** How often the oldest version is asked for: it moves with retention, and is only ever told, never relied on. */
const OLDEST_EVERY_MS = 10_000;
const WARM_BYTES = 64 * 1024 * 1024;
const WARM_MS = 2_000;

/** What the tail reads from and how it waits. */
export interface TailOptions {
  readonly store: FeedStore;
  readonly wakeUp: WakeUp;
  readonly clock: Clock;
  readonly timers: Timers;
  readonly staleAfterMs: number;
  readonly logMaxBytes: number;
  /** Bytes of the newest events that the log begins with, at most `logMaxBytes`. Default 64 MiB; 0 for none. */
  readonly warmBytes?: number | undefined;
  /** Milliseconds after which the log begins with what has been read by then. Default 2,000. */
  readonly warmMs?: number | undefined;
  /** Called once, when this tail can never move again: see `Tail.over`. */
  readonly onOver: (reason: FeedError) => void;
  readonly report: (message: string, error?: unknown) => void;
  readonly observer: FeedObserver;
  /** Breaks off a wait that does not end. Default: nobody does. */
  readonly watchdog?: Watchdog | undefined;
}

/**
 * The one reader that fills the log: settle what has committed, append it, sleep until there may be more.
 *
 * A database that does not answer is asked again, more and more rarely; a fault of our own (a page that does not fit the log)
 * is reported and tried again too, for the log stays right and the streams stay open. What it cannot do is keep quiet: as
 * long as nothing can be settled the feed is STALE, with the reason. It ends by itself only when its log can have no
 * continuation: when the database goes on in another epoch, or no longer keeps what comes next.
 *
 * What it waits for, an answer or a wake-up, can be broken off from outside: what comes of it later is not looked at, and it
 * goes on where its log ends. So whatever goes astray beneath it, streams stay open and get what they would have got.
 */
export class Tail implements Service {
  /** Called when the feed becomes stale, or no longer is. */
  onChange: (() => void) | undefined;
  /** Called with the log before anything is appended to it. */
  onLog: ((log: Log) => void) | undefined;
  readonly #options: TailOptions;
  readonly #stopping = new AbortController();
  #log: Log | undefined;
  #running: Promise<void> | undefined;
  #oldest: Version = 1;
  #oldestAskedAtMs = 0;
  #answeredAtMs: number | undefined;
  /** Since when an answer is due. Time asleep, when nothing is asked, is not time without an answer. */
  #askingSinceMs: number | undefined;
  #failure: FeedError | undefined;
  #over: FeedError | undefined;
  #failures = 0;
  /** The failure is not one that time alone may heal within `staleAfterMs`. */
  #broken = false;
  #stale = false;
  #cancelPulse: (() => void) | undefined;
  /** Aborts what is waited for at this moment. */
  #attempt = new AbortController();
  readonly #wakeUp: WatchedPart | undefined;
  /** Until the database has answered once, or should have. */
  #proving: (() => void) | undefined;
  /** It has taken too long for its first answer. */
  #unproven = false;

  constructor(options: TailOptions) {
    this.#options = options;
    this.#wakeUp = options.watchdog?.part({ name: "wake-up", code: "WAKE_UP_STUCK", noun: "The tail's sleep" });
    this.#stopping.signal.addEventListener("abort", () => this.#attempt.abort(this.#stopping.signal.reason), {
      once: true,
    });
  }

  /** @throws FeedError INTERNAL before `start`. */
  get log(): Log {
    if (this.#log === undefined) {
      throw new FeedError("INTERNAL", "The feed has not been started.", "Await `start` before anything else.");
    }
    return this.#log;
  }

  /** It has begun, and the database has settled for it, or has let it wait for too long. */
  get started(): boolean {
    return this.#log !== undefined && this.#proving === undefined;
  }

  get stale(): boolean {
    return this.#stale;
  }

  get oldest(): Version {
    return this.#oldest;
  }

  get answeredAtMs(): number | undefined {
    return this.#answeredAtMs;
  }

  /** What the last attempt failed with; `undefined` while all is well. */
  get failure(): FeedError | undefined {
    return this.#failure;
  }

  /** Why the log will never go on: the database has another epoch, or has dropped what comes next. */
  get over(): FeedError | undefined {
    return this.#over;
  }

  /** Gives the events in memory back: a stream that nobody reads any more would keep them as long as its connection. */
  release(): void {
    const { logMaxBytes: maxBytes } = this.#options;
    this.#log = this.#log && new Log({ maxBytes, head: this.#log.head, tick: undefined });
  }

  /** Resolves when commits become versions; or when the database has let it wait for too long, and it is stale. */
  async start(signal: AbortSignal): Promise<void> {
    const { store, clock, logMaxBytes, warmBytes = WARM_BYTES, warmMs = WARM_MS } = this.#options;
    const bounds = await store.bounds(signal);
    const log = await warmLog({
      ...this.#options,
      bounds,
      warmBytes: Math.min(warmBytes, logMaxBytes),
      warmMs,
      signal: AbortSignal.any([signal, this.#stopping.signal]),
    });
    signal.throwIfAborted();
    this.#stopping.signal.throwIfAborted();
    this.#oldest = bounds.oldest;
    this.#oldestAskedAtMs = clock.monotonic();
    this.#answeredAtMs = clock.monotonic();
    this.#log = log;
    this.onLog?.(log);
    this.#pulse();
    const proven = this.#proof(signal);
    this.#running = this.#run(log);
    await proven;
    if (signal.aborted) {
      await this.stop();
      throw signal.reason;
    }
  }

  /** Breaks off what it waits for, and has it go on where its log ends. Streams stay open. */
  restart(reason: FeedError): void {
    const attempt = this.#attempt;
    if (!this.#stopping.signal.aborted) this.#attempt = new AbortController();
    attempt.abort(reason);
  }

  /** The bounds came from the database too, but say nothing of its being able to settle. */
  #proof(signal: AbortSignal): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const abort = () => this.#proving?.();
    signal.addEventListener("abort", abort, { once: true });
    const cancel = this.#options.timers.after(this.#options.staleAfterMs, () => {
      this.#unproven = true;
      this.#proving?.();
      this.#judge();
    });
    this.#proving = () => {
      cancel();
      signal.removeEventListener("abort", abort);
      this.#proving = undefined;
      resolve();
    };
    return promise;
  }

  async stop(): Promise<void> {
    this.#stopping.abort(goingDown());
    this.#cancelPulse?.();
    this.#proving?.();
    await this.#running;
  }

  async #run(log: Log): Promise<void> {
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      const found = await this.#advance(log, signal);
      if (signal.aborted || this.#over !== undefined) {
        return;
      }
      try {
        await (found === undefined
          ? pause(backOffMs(this.#failures, this.#options.clock), this.#options.timers, signal)
          : this.#sleep(found));
      } catch (error) {
        if (!signal.aborted) {
          this.#options.report("The wake-up failed; the feed polls instead.", error);
          await pause(100, this.#options.timers, signal).catch(() => undefined);
        }
      }
    }
  }

  /** A wake-up that never comes would be the end of the feed, and nothing would have failed. */
  async #sleep(found: boolean): Promise<void> {
    const { wakeUp } = this.#options;
    const { signal } = this.#attempt;
    const work = this.#wakeUp?.begin({
      what: "be woken",
      allowedMs: 0,
      breakOff: (reason) => this.restart(reason),
    });
    try {
      await unlessAborted(wakeUp.wait(found, signal), signal);
      work?.end("done");
    } finally {
      work?.end("failed");
    }
  }

  /** Whether there was anything; `undefined` when it could not be found out. */
  async #advance(log: Log, signal: AbortSignal): Promise<boolean | undefined> {
    const { store, clock } = this.#options;
    const beganMs = clock.monotonic();
    this.#askingSinceMs ??= beganMs;
    try {
      const attempt = this.#attempt.signal;
      const page = await unlessAborted(store.advance(log.head, attempt), attempt);
      this.#options.observer.advanced(clock.monotonic() - beganMs, page?.events.length ?? 0);
      if (page !== undefined) {
        log.append(page);
      }
      this.#answered();
      return page !== undefined;
    } catch (error) {
      if (!signal.aborted) {
        this.#failed(error);
      }
      return undefined;
    }
  }

  #answered(): void {
    const nowMs = this.#options.clock.monotonic();
    if (this.#failure !== undefined) {
      this.#options.report("The feed moves again.");
    }
    this.#askingSinceMs = undefined;
    this.#answeredAtMs = nowMs;
    this.#failure = undefined;
    this.#failures = 0;
    this.#broken = false;
    this.#unproven = false;
    this.#proving?.();
    if (this.#stale) {
      this.#judge();
    }
    if (nowMs - this.#oldestAskedAtMs >= OLDEST_EVERY_MS) {
      this.#oldestAskedAtMs = nowMs;
      this.#askOldest();
    }
  }

  #failed(error: unknown): void {
    const failure = asFeedError(error);
    this.#options.observer.failed(failure.code);
    const over = failure.code === "EPOCH_CHANGED" || failure.code === "HISTORY_LOST";
    if (this.#failure?.message !== failure.message) {
      this.#options.report(
        over ? "The history that this feed follows is over." : "The feed cannot move; it tries again.",
        error,
      );
    }
    this.#failure = failure;
    this.#failures += 1;
    this.#broken = failure.code !== "DATABASE_UNAVAILABLE";
    this.#judge();
    if (this.#broken) {
      this.#proving?.();
    }
    if (over) {
      this.#over = failure;
      this.#cancelPulse?.();
      this.#options.onOver(failure);
    }
  }

  /** Beside the tail's own work: an answer that is late or missing here changes nothing. */
  #askOldest(): void {
    const { store, report } = this.#options;
    store.bounds(this.#stopping.signal).then(
      ({ oldest }) => {
        this.#oldest = Math.max(this.#oldest, oldest);
      },
      (error: unknown) => {
        // Of these the next advance tells, with more to go by.
        const told = error instanceof EpochOver || asFeedError(error).code === "DATABASE_UNAVAILABLE";
        if (!this.#stopping.signal.aborted && !told) {
          report("The oldest version could not be asked for.", error);
        }
      },
    );
  }

  /** An advance that hangs ends no attempt, so somebody else must look at the time. */
  #pulse(): void {
    const { timers, staleAfterMs } = this.#options;
    this.#cancelPulse = timers.after(staleAfterMs / 4, () => {
      this.#judge();
      this.#pulse();
    });
  }

  #judge(): void {
    const { clock, staleAfterMs } = this.#options;
    const since = this.#askingSinceMs;
    const late = since !== undefined && clock.monotonic() - since > staleAfterMs;
    const stale = this.#broken || this.#unproven || late;
    if (stale !== this.#stale) {
      this.#stale = stale;
      this.#log?.changed.wakeAll();
      this.onChange?.();
    }
  }
}

function asFeedError(error: unknown): FeedError {
  if (error instanceof FeedError) {
    return error;
  }
  const message = error instanceof Error ? error.message : String(error);
  return new FeedError("INTERNAL", message, "Report this as a fault of Millrace; the feed tries again.", {
    cause: error,
  });
}

/** What `work` gives, unless it is broken off first: also where whoever works does not heed the signal. */
function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    signal.addEventListener("abort", abort, { once: true });
    if (signal.aborted) {
      abort();
    }
    work.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}
