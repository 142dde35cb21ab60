import type { Service, WakeUp } from "../core/ports.ts";
import { Listener, type ListenerOptions } from "./listener.ts";

/** What the wake-up announces, for tests and metrics. Each is called synchronously and must return at once. */
export interface WakeUpSignals {
  /** LISTEN is in force. */
  readonly onListening?: () => void;
  /** This process is the waiter and sleeps: writers will nudge it. */
  readonly onSleeping?: () => void;
  /** A nudge came from a writer. */
  readonly onWoken?: () => void;
}

/** What the wake-up listens on. */
export interface WakeUpOptions extends Pick<ListenerOptions, "watch" | "pingMs"> {
  /** For LISTEN; must not lead through a transaction-mode pooler. Without it there is only polling. */
  readonly directUrl: string | undefined;
  readonly signals?: WakeUpSignals | undefined;
  /** There is a letter for this replica; for any, perhaps, when nobody has listened for a while. Default: nobody is told. */
  readonly onMail?: ((replica: string | undefined) => void) | undefined;
  /** Something became of this subscription; of any, perhaps, when nobody has listened for a while. Default: nobody is told. */
  readonly onSubscription?: ((id: string | undefined) => void) | undefined;
}

/** Pause after an advance that found something, in milliseconds; doubles while nothing is found. */
const shortestMs = 2;
/**
 * While there is traffic, the pause is this many times as long as advances take of late, up to `longestBusyMs`: when the
 * server is busy enough for ticks to be slow, they get rarer and larger, and the writers keep the server.
 */
const pausePerAdvance = 2;
const longestBusyMs = 5;
/** Weight of the newest advance in "of late": one that waited for a disk must not lengthen the next pause. */
const newestWeight = 0.1;
/** Longest pause, asleep or not: the truth behind every hint. Ten idle ticks per second cost 3 ms of a core. */
const longestMs = 100;
/** A pause from which on it is worth sleeping instead: a nudge then comes sooner than the pause would end. */
const sleepFromMs = 16;
/** How often somebody who is not the waiter tries to become it. */
const retryLockMs = 500;

/**
 * When to ask the database again: the ladder from busy to asleep.
 *
 * Busy: after 2 ms, or twice what an advance takes of late, then 4, 8, … 100 while nothing is found. Writers pay nothing, as they find the waiter's lock free.
 * Asleep: on reaching 16 ms it takes the lock, advances once more, and from then on a writer's nudge wakes it. That last
 * advance closes the gap: an event that was committed before the lock was held is found by it, and whoever writes after
 * that finds the lock taken. (A writer in between holds the lock shared, so that it cannot be had.) Found something, or
 * woken: the lock goes back, and it is busy again.
 *
 * Nudges and notifications only shorten a pause. Where none can come (no direct connection, prepared transactions allowed,
 * the waiter frozen or killed, another process asleep too), an event waits for 100 ms at the most.
 *
 * NOTIFY in every transaction would be simpler and costs writers more than half of their throughput.
 */
export class PostgresWakeUp implements WakeUp, Service {
  readonly #signals: WakeUpSignals;
  readonly #listener: Listener | undefined;
  #pauseMs = shortestMs;
  #lastTick = -1;
  #heardTick = -1;
  #nudged = false;
  #wake: (() => void) | undefined;
  #nextTryAt = 0;
  #trying = false;
  /** When the last wait ended, and with it the advance began. */
  #resumedAt = performance.now();
  #advanceMs = shortestMs / pausePerAdvance;

  constructor({ directUrl, signals, onMail, onSubscription, watch, pingMs }: WakeUpOptions) {
    this.#signals = signals ?? {};
    if (directUrl === undefined) return;
    this.#listener = new Listener({
      url: directUrl,
      watch,
      pingMs,
      // Our own tick's notification overtakes its answer: what is heard counts only once that answer has come.
      onTick: (tick) => {
        this.#heardTick = Math.max(this.#heardTick, tick);
        if (this.#wake !== undefined && this.#behind) this.nudge();
      },
      onWake: () => {
        this.#signals.onWoken?.();
        // Every replica hears it; it is meant for the one that sleeps.
        if (this.#listener?.holdsLock === true) {
          this.#listener.release();
          this.nudge();
        }
      },
      onMail: (replica) => onMail?.(replica),
      onSubscription: (id) => onSubscription?.(id),
      onListening: () => {
        this.#signals.onListening?.();
        onMail?.(undefined);
        onSubscription?.(undefined);
        // What was said while nobody listened is lost.
        this.nudge();
      },
    });
  }

  /** Whether nudges and other replicas' ticks are heard at present. */
  get listening(): boolean {
    return this.#listener?.listening ?? false;
  }

  /** Never rejects because of the database: without it there is polling. */
  async start(_signal: AbortSignal): Promise<void> {
    await this.#listener?.start();
  }

  async stop(): Promise<void> {
    this.#end();
    await this.#listener?.stop();
  }

  /** The last tick that this process knows: its own notification need not wake it. */
  settled(tick: number): void {
    this.#lastTick = tick;
  }

  /** Another process has ticked, and this one has not read it yet. */
  get #behind(): boolean {
    return this.#heardTick > this.#lastTick;
  }

  nudge(): void {
    this.#nudged = true;
    this.#pauseMs = shortestMs;
    this.#end();
  }

  async wait(found: boolean, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (found) {
      this.#advanceMs += (performance.now() - this.#resumedAt - this.#advanceMs) * newestWeight;
      this.#pauseMs = Math.min(Math.max(shortestMs, pausePerAdvance * this.#advanceMs), longestBusyMs);
      this.#listener?.release();
    }
    await this.#sleep(signal);
    this.#resumedAt = performance.now();
  }

  async #sleep(signal: AbortSignal): Promise<void> {
    if (this.#nudged || this.#behind) {
      this.#nudged = false;
      return;
    }
    if (this.#listener !== undefined && this.#pauseMs >= sleepFromMs && (await this.#fallAsleep(this.#listener)))
      return;
    if (!this.#nudged && !this.#behind) await this.#pause(signal);
    this.#nudged = false;
    this.#pauseMs = Math.min(this.#pauseMs * 2, longestMs);
  }

  /** True when the lock has just been had: then there is one more advance to make before sleeping. */
  async #fallAsleep(listener: Listener): Promise<boolean> {
    const now = performance.now();
    if (listener.holdsLock) {
      this.#signals.onSleeping?.();
      return false;
    }
    if (this.#trying || now < this.#nextTryAt) return false;
    this.#trying = true;
    const trying = listener.acquire().finally(() => {
      this.#trying = false;
    });
    const held = await Promise.race([trying, lateness()]);
    if (held !== true) this.#nextTryAt = now + retryLockMs;
    // A session that does not answer holds nobody up: the feed polls. Too late, the lock is of no use: what was committed
    // before it was held has not been looked for.
    if (held === undefined) void trying.then(() => listener.release());
    return held === true;
  }

  #pause(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const done = () => {
        clearTimeout(timer);
        signal.removeEventListener("abort", abort);
        this.#wake = undefined;
      };
      const abort = () => {
        done();
        reject(signal.reason);
      };
      this.#wake = () => {
        done();
        resolve();
      };
      const timer = setTimeout(this.#wake, this.#pauseMs);
      signal.addEventListener("abort", abort, { once: true });
      if (signal.aborted) abort();
    });
  }

  #end(): void {
    this.#wake?.();
  }
}

/** `undefined` after the longest pause. */
function lateness(): Promise<undefined> {
  return new Promise((resolve) => {
    setTimeout(() => resolve(undefined), longestMs).unref();
  });
}
