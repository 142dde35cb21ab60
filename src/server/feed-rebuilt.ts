import { FeedError } from "../core/errors.ts";

/** Why a feed ends whose configuration shows events otherwise from now on: another takes its place. */
export class FeedRebuilt extends FeedError {
  constructor() {
    super(
      "DATABASE_UNAVAILABLE",
      "The configuration file, which has builders or initial states, has changed.",
      "Reconnect with the last cursor.",
      { retryAfterMs: 100 },
    );
    this.name = "FeedRebuilt";
  }
}
