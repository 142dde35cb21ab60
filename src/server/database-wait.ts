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
  /** Whether waiting may help. At the start it does not for a wrong password, a missing right or a newer schema. */
  readonly passes: (error: unknown) => boolean;
}

/** Tries until the database answers, or what it answers does not pass, which is thrown at once. */
export async function waitForDatabase<Opened>(open: () => Promise<Opened>, wait: DatabaseWait): Promise<Opened> {
  let pauseMs = FIRST_PAUSE_MS;
  for (let attempt = 1; ; attempt++) {
    wait.signal.throwIfAborted();
    try {
      return await open();
    } catch (error) {
      if (wait.signal.aborted || !wait.passes(error)) {
        throw error;
      }
      const failure = error instanceof FeedError ? error : unforeseen(error);
      wait.onWait(failure);
      wait.log[wait.logLevel](
        { attempt, nextTryMs: pauseMs, action: failure.action },
        `waiting for Postgres: ${failure.message}`,
      );
    }
    await pause(pauseMs, undefined, { signal: wait.signal });
    pauseMs = Math.min(pauseMs * 2, LONGEST_PAUSE_MS);
  }
}

function unforeseen(cause: unknown): FeedError {
  const message = cause instanceof Error ? cause.message : String(cause);
  return new FeedError("INTERNAL", message, "Report this as a fault of Millrace; it tries again.", { cause });
}
