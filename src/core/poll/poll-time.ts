import type { Clock } from "../ports.ts";
import type { PageTerms } from "./polled-page.ts";

/** So long a poll looks through history that does not match before it says how far it has come, however short its timeout. */
const LOOKING_MS = 5_000;
/** What is left of it for a last look, after a wait. */
const LAST_LOOK_MS = 1_000;
/** A stream says `closing` so long before its deadline, or a tenth of its time when that is less. */
const CLOSING_LEAD_MS = 500;
const CLOSING_SHARE = 0.1;
/** A stream's checkpoints come after their interval, or up to a tenth later. */
const CHECKPOINT_JITTER = 1.1;

/** What a stream is opened with so that it ends in time. */
export interface StreamTime {
  readonly deadlineMs: number;
  readonly checkpointIntervalMs: number;
}

/** The time that one poll has, from when it is made. */
export class PollTime {
  readonly #clock: Clock;
  readonly #untilMs: number;
  readonly #lookUntilMs: number;
  readonly #callDeadlineMs: number | undefined;

  constructor({ timeoutMs, deadlineMs }: Pick<PageTerms, "timeoutMs" | "deadlineMs">, clock: Clock) {
    const nowMs = clock.monotonic();
    this.#clock = clock;
    this.#untilMs = nowMs + timeoutMs;
    this.#lookUntilMs = nowMs + Math.max(timeoutMs, LOOKING_MS);
    this.#callDeadlineMs = deadlineMs;
  }

  /** It may not wait any longer. */
  get isOver(): boolean {
    return this.#clock.monotonic() >= this.#untilMs;
  }

  /** Of a stream that says at once, by a checkpoint, that there is nothing more. */
  looking(): StreamTime {
    const untilMs = Math.max(this.#lookUntilMs, this.#clock.monotonic() + LAST_LOOK_MS);
    return { deadlineMs: this.#deadline(untilMs), checkpointIntervalMs: 0 };
  }

  /**
   * Of a stream that waits. A checkpoint near the end says how far it has come: the next poll need not look through that again.
   */
  waiting(): StreamTime {
    const leftMs = Math.max(1, this.#untilMs - this.#clock.monotonic());
    return { deadlineMs: this.#deadline(this.#untilMs), checkpointIntervalMs: leftMs / CHECKPOINT_JITTER };
  }

  /** With which it says `closing` at this moment, or a moment before the call's own deadline. */
  #deadline(endsAtMs: number): number {
    const leftMs = Math.max(1, endsAtMs - this.#clock.monotonic());
    const leadMs = Math.min(CLOSING_LEAD_MS, (leftMs / (1 - CLOSING_SHARE)) * CLOSING_SHARE);
    return Math.min(endsAtMs + leadMs, this.#callDeadlineMs ?? Number.POSITIVE_INFINITY);
  }
}
