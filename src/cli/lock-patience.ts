import { setTimeout as delay } from "node:timers/promises";
import { sqlState, sqlStateOf } from "../postgres/database-error.ts";
import type { Terminal } from "./terminal.ts";

const attempts = 30;

/**
 * Runs a statement that waits for a lock for one second at most, because writers queue behind whoever waits, and tries
 * again with growing pauses while others hold it. Says each time who is in the way.
 */
export async function withLockPatience<T>(terminal: Terminal, run: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await run();
    } catch (error) {
      if (sqlStateOf(error) !== sqlState.lockNotAvailable || attempt === attempts) throw error;
      terminal.note(`millrace: ${error instanceof Error ? error.message : String(error)}; trying again`);
    }
    const pauseMs = Math.min(100 * 2 ** attempt, 5000) * (0.5 + Math.random() / 2);
    await delay(pauseMs, undefined, { signal: terminal.interrupted });
  }
}
