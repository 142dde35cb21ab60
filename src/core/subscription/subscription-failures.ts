import { FeedError } from "../errors.ts";

/** For what comes from an older generation. */
export function fenced(id: string, generation: number): FeedError {
  return new FeedError(
    "SUBSCRIPTION_FENCED",
    `Subscription "${id}" has a newer consumer, of generation ${generation}.`,
    "Subscribe again to take it back, or leave it to the other: what was not acknowledged comes again.",
  );
}

/** For a field that means nothing with this subscription. */
export function invalid(field: string, message: string): FeedError {
  return new FeedError("INVALID_REQUEST", `\`${field}\` ${message}.`, "Correct the request.", {
    violations: [{ field, message }],
  });
}

/** For one more than there may be. */
export function tooManySubscriptions(maxSubscriptions: number): FeedError {
  return new FeedError(
    "LIMIT_EXCEEDED",
    `There are ${maxSubscriptions} subscriptions, as many as there may be (maxSubscriptions).`,
    "Delete those that nobody uses, give those that come and go an `expire_after`, or raise the limit.",
    { retryAfterMs: 10_000 },
  );
}

/** For a feed that has no groups. */
export function noGroups(id: string): FeedError {
  return new FeedError(
    "SUBSCRIPTION_BUSY",
    `Subscription "${id}" is a group's, and this feed consumes none.`,
    "Consume it through a server.",
  );
}

/**
 * What a stream could not be opened with, in terms of a subscription: its position cannot be given with the next request, as
 * the ordinary remedy has it, but is moved.
 */
export function inTermsOf(id: string, error: unknown): unknown {
  if (!(error instanceof FeedError) || (error.code !== "EPOCH_CHANGED" && error.code !== "HISTORY_LOST")) {
    return error;
  }
  const { code, message, detail } = error;
  const { forkVersion } = detail;
  const action =
    forkVersion === undefined
      ? `Seek subscription "${id}" to where it is to go on: \`oldest\` accepts the loss.`
      : `Discard what came after version ${forkVersion}, and seek subscription "${id}" to \`after_version\` ${forkVersion}.`;
  return new FeedError(code, message, action, { ...detail, cause: error });
}
