import type { ClosingReason } from "../frame.ts";
import type { Clock } from "../ports.ts";

/** How long a stream lives, if nothing else ends it. Monotonic milliseconds; infinity for never. */
export interface StreamLife {
  /** When it says `closing`... */
  readonly closesAtMs: number;
  /** ...why... */
  readonly reason: ClosingReason;
  /** ...and when it ends, whether or not its client has taken that. */
  readonly endsAtMs: number;
}

/** A stream says `closing` this long before its deadline, or a tenth of its time when that is less. */
const DEADLINE_LEAD_MS = 500;
/** Share of its age by which chance makes a stream's life shorter, so that streams opened together do not end together. */
const AGE_JITTER = 0.1;
/** So long an old stream's client may take to come for `closing`. */
const CLOSING_GRACE_MS = 5_000;

/** For streams that only their client ends, or the server's own end. */
export const ENDLESS: StreamLife = {
  closesAtMs: Number.POSITIVE_INFINITY,
  reason: "MAX_AGE",
  endsAtMs: Number.POSITIVE_INFINITY,
};

/**
 * The life of a stream that is opened now.
 *
 * @param deadlineMs - monotonic milliseconds at which its call must have ended
 * @param maxAgeMs - 0 for any age
 */
export function lifeOf(deadlineMs: number | undefined, maxAgeMs: number, clock: Clock): StreamLife {
  const nowMs = clock.monotonic();
  const age = maxAgeMs <= 0 ? ENDLESS : aged(nowMs + maxAgeMs * (1 - AGE_JITTER * clock.random()));
  if (deadlineMs === undefined) {
    return age;
  }
  const leadMs = Math.min(DEADLINE_LEAD_MS, Math.max(0, deadlineMs - nowMs) / 10);
  const closesAtMs = deadlineMs - leadMs;
  // At the deadline itself it is the transport's, which knows how to say it.
  const endsAtMs = deadlineMs + DEADLINE_LEAD_MS;
  return age.closesAtMs < closesAtMs ? age : { closesAtMs, reason: "DEADLINE", endsAtMs };
}

function aged(closesAtMs: number): StreamLife {
  return { closesAtMs, reason: "MAX_AGE", endsAtMs: closesAtMs + CLOSING_GRACE_MS };
}
