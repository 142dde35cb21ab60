import { FeedError } from "../errors.ts";

/** When to try again what time heals. */
const RETRY_AFTER_MS = 1_000;

/** Nothing of the call has happened, and soon there is a feed that it can happen in. */
export function reopening(cause?: FeedError): FeedError {
  return new FeedError(
    "DATABASE_UNAVAILABLE",
    "The database goes on in another history than this server has followed so far, and is being opened anew.",
    "Try again in a moment.",
    { retryAfterMs: RETRY_AFTER_MS, cause },
  );
}

/** The feed has not read its log yet. */
export function starting(): FeedError {
  return new FeedError("DATABASE_UNAVAILABLE", "The feed is starting.", "Try again in a moment.", {
    retryAfterMs: RETRY_AFTER_MS,
  });
}

/** A publication was committed, and then its epoch ended. */
export function outcomeUnknown(epoch: string, cause: unknown): FeedError {
  return new FeedError(
    "EPOCH_CHANGED",
    `The events were committed in epoch ${epoch}, which has ended since: the history in force may have lost them.`,
    "Look whether they are there, and publish them again if not; with the same idempotency key there is no need to look.",
    { cause },
  );
}
