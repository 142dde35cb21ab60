import { FeedError } from "../errors.ts";

const NAME = /^[A-Za-z0-9_.:/-]{1,255}$/;

/** Whether a text can be the name of a subscription: nothing else is ever one, in whatever encoding a database is. */
export function isSubscriptionId(text: string): boolean {
  return NAME.test(text);
}

/** @throws FeedError INVALID_REQUEST */
export function assertSubscriptionId(text: string): void {
  if (isSubscriptionId(text)) return;
  throw new FeedError(
    "INVALID_REQUEST",
    "That is no name for a subscription.",
    "Take 1 to 255 letters, digits, `_`, `-`, `.`, `:` and `/`.",
    { violations: [{ field: "subscription_id", message: "must have 1 to 255 letters, digits, _ - . : /" }] },
  );
}
