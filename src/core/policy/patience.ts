import { type Cursor, encodeCursor } from "../cursor.ts";
import { FeedError } from "../errors.ts";

/** So long a stream may be too far behind: a large transaction puts everybody there at once, and the fast are back at once. */
const GRACE_MS = 1_000;

/**
 * How long DISCONNECT bears with a stream. One that begins far behind, from an old cursor or after a snapshot, is not slow
 * for that: it may be so many versions behind where it once stood best.
 */
export class Patience {
  readonly #maxLagEvents: number;
  #best = Number.POSITIVE_INFINITY;
  #sinceMs: number | undefined;

  constructor(maxLagEvents: number) {
    this.#maxLagEvents = maxLagEvents;
  }

  /** The stream begins to be judged at this lag. */
  begin(lag: number): void {
    this.#best = lag;
  }

  /** Whether it is over, at this lag; `nowMs` is monotonic. */
  isOver(lag: number, nowMs: number): boolean {
    this.#best = Math.min(this.#best, lag);
    const allowed = this.#best <= this.#maxLagEvents ? this.#maxLagEvents : this.#best + this.#maxLagEvents;
    if (lag <= allowed) {
      this.#sinceMs = undefined;
      return false;
    }
    this.#sinceMs ??= nowMs;
    return nowMs - this.#sinceMs >= GRACE_MS;
  }

  /** When to look again, if nothing else leads to it; monotonic milliseconds. */
  lookAgainMs(nowMs: number): number {
    return nowMs + GRACE_MS;
  }
}

/** SLOW_CONSUMER, as a sentence about the client; it goes on after the cursor. */
export function slowConsumer(what: string, cursor: Cursor): FeedError {
  return new FeedError(
    "SLOW_CONSUMER",
    `The stream's client ${what}.`,
    "Go on from the cursor; take events faster, ask for fewer of them, or choose a policy that leaves some out.",
    { cursor: encodeCursor(cursor) },
  );
}
