import { setTimeout as pause } from "node:timers/promises";
import type { Logger } from "pino";
import { FeedError } from "../core/errors.ts";

const FIRST_PAUSE_MS = 250;
const LONGEST_PAUSE_MS = 5_000;

/** How the wait is told of. */
export interface DatabaseWait {
  readonly log: Logger;
  /** `debug` when somebody else tells of it. */
  readonly logLevel: "warn" | "debug";
  /** Told before each pause why the database is waited for. */
  readonly onWait: (failure: FeedError) => void;
  readonly signal: AbortSignal;
}

/**
 * Tries until the database answers. Only DATABASE_UNAVAILABLE is worth a wait: a wrong password, a missing right or a newer
 * schema does not mend itself, and is thrown at once.
 */
export async function waitForDatabase<Opened>(open: () => Promise<Opened>, wait: DatabaseWait): Promise<Opened> {
  let pauseMs = FIRST_PAUSE_MS;
  for (let attempt = 1; ; attempt++) {
    wait.signal.throwIfAborted();
    try {
      return await open();
    } catch (error) {
      if (!(error instanceof FeedError) || error.code !== "DATABASE_UNAVAILABLE") {
        throw error;
      }
      wait.onWait(error);
      wait.log[wait.logLevel](
        { attempt, nextTryMs: pauseMs, action: error.action },
        `waiting for Postgres: ${error.message}`,
      );
    }
    await pause(pauseMs, undefined, { signal: wait.signal });
    pauseMs = Math.min(pauseMs * 2, LONGEST_PAUSE_MS);
  }
}
