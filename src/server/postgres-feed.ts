import { FeedError } from "../core/errors.ts";
import type { FeedOpener } from "./server.ts";

/** Provisional. */
export const openPostgresFeed: FeedOpener = async () => {
  throw new FeedError("INTERNAL", "The Postgres store is not wired yet.", "Wait.");
};
