import type { FeedError } from "../errors.ts";
import type { Clock, Timers } from "../ports.ts";
import { type PartOptions, type StuckPart, seconds, WatchedPart } from "./watched-part.ts";

/** What a watchdog goes by. */
export interface WatchdogOptions {
  readonly clock: Pick<Clock, "monotonic">;
  readonly timers: Pick<Timers, "after">;
  /**
   * Milliseconds without a sign of life, beyond what the piece of work is allowed, after which it is broken off; and after
   * which somebody else is asked what became of it. Default 10,000: longer than any pause of a busy machine or network.
   */
  readonly patienceMs?: number | undefined;
  /** Milliseconds of the process's own standstill that are worth telling of. Default 2,000. */
  readonly stallMs?: number | undefined;
  /** Break-offs in a row without success, after which a part is told that this does not help. Default 3. */
  readonly hopelessAfter?: number | undefined;
  /** Told of what is stuck, and, without an error, when it works again. Default: nobody is. */
  readonly report?: ((message: string, error?: FeedError) => void) | undefined;
  /** Told of each break-off, for metrics and annals. Default: nobody is. */
  readonly onRestart?: ((part: string, what: StuckPart) => void) | undefined;
}

/** How long what is over is still told of, in milliseconds, so that somebody who looks a little later sees it. */
const TOLD_MS = 60_000;
const LONGEST_BEAT_MS = 1_000;

/**
 * Notices what stands still although nothing fails: a server that takes a statement and never answers, a network that
 * swallows, an answer that goes astray in this process.
 *
 * Each part says when it begins a piece of work and when that has ended, how long it may legitimately be silent, and how it
 * is broken off, so that whoever waits for it gets an error and tries again in the way that he has for errors anyway. A sign
 * of life is a number that changes: bytes that came in. It is looked at from time to time, and costs nothing when it rises.
 *
 * Silence is counted in beats of this watchdog's own timer, and none counts for more than two, however late it comes: a
 * process that was frozen or too busy to listen must not take its own absence for the server's. Of its own standstill it
 * tells as well; nothing can be restarted for that.
 */
export class Watchdog {
  readonly #options: WatchdogOptions;
  readonly #patienceMs: number;
  readonly #beatMs: number;
  readonly #parts = new Map<string, WatchedPart>();
  #cancelBeat: (() => void) | undefined;
  #lastBeatMs = 0;
  #stall: { readonly forMs: number; readonly atMs: number } | undefined;
  #stopped = false;

  constructor(options: WatchdogOptions) {
    this.#options = options;
    this.#patienceMs = options.patienceMs ?? 10_000;
    this.#beatMs = Math.max(1, Math.min(LONGEST_BEAT_MS, this.#patienceMs / 10));
  }

  get patienceMs(): number {
    return this.#patienceMs;
  }

  /** The part of this name: the same each time. */
  part(options: PartOptions): WatchedPart {
    let part = this.#parts.get(options.name);
    if (part === undefined) {
      const { clock, hopelessAfter = 3, report = () => undefined, onRestart = () => undefined } = this.#options;
      part = new WatchedPart(options, { clock, patienceMs: this.#patienceMs, hopelessAfter, report, onRestart });
      this.#parts.set(options.name, part);
    }
    return part;
  }

  /** Looks from now on. Idempotent. */
  start(): void {
    if (this.#cancelBeat === undefined && !this.#stopped) {
      this.#lastBeatMs = this.#options.clock.monotonic();
      this.#beat();
    }
  }

  /** Looks no more, and breaks nothing off any more. Idempotent, safe before `start`. */
  stop(): void {
    this.#stopped = true;
    this.#cancelBeat?.();
    this.#cancelBeat = undefined;
  }

  /** What is stuck, or was so lately. Answers from memory. */
  problems(): readonly StuckPart[] {
    const nowMs = this.#options.clock.monotonic();
    const stuck = [...this.#parts.values()].flatMap((part) => part.problem ?? []);
    const stall = this.#stall;
    return stall === undefined || nowMs - stall.atMs > TOLD_MS
      ? stuck
      : [...stuck, blocked(stall.forMs, nowMs - stall.atMs)];
  }

  #beat(): void {
    this.#cancelBeat = this.#options.timers.after(this.#beatMs, () => {
      const nowMs = this.#options.clock.monotonic();
      const passedMs = nowMs - this.#lastBeatMs;
      this.#lastBeatMs = nowMs;
      this.#judgeProcess(passedMs - this.#beatMs, nowMs);
      for (const part of this.#parts.values()) {
        part.look(Math.min(passedMs, 2 * this.#beatMs), TOLD_MS);
      }
      if (!this.#stopped) {
        this.#beat();
      }
    });
  }

  #judgeProcess(lateMs: number, nowMs: number): void {
    const { stallMs = 2_000, report } = this.#options;
    if (lateMs >= stallMs) {
      this.#stall = { forMs: lateMs, atMs: nowMs };
      report?.(blocked(lateMs, 0).message);
    }
  }
}

function blocked(forMs: number, agoMs: number): StuckPart {
  return {
    code: "EVENT_LOOP_BLOCKED",
    message: `This process did nothing for ${seconds(forMs)}, until ${agoMs < 1_000 ? "now" : `${seconds(agoMs)} ago`}.`,
    action: "Find out what keeps its core busy or froze it; nothing can be restarted for that.",
  };
}
