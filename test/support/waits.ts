import { setTimeout as delay } from "node:timers/promises";

/** What a run waits for at this moment, so that one that does not end can say what it is. */
export class Waits {
  readonly #pending = new Set<{ readonly what: string; readonly since: number }>();

  /** Waits, under a name. */
  async until<T>(what: string, event: Promise<T>): Promise<T> {
    const wait = { what, since: performance.now() };
    this.#pending.add(wait);
    try {
      return await event;
    } finally {
      this.#pending.delete(wait);
    }
  }

  /** A line for each, the longest wait first. */
  list(): readonly string[] {
    return [...this.#pending].map(({ what, since }) => `waited for ${seconds(performance.now() - since)}: ${what}`);
  }
}

/** What `work` gives; rejects with what `explain` finds when it takes longer. Whoever works is left to himself then. */
export async function inTime<T>(limitMs: number, work: Promise<T>, explain: () => Promise<string>): Promise<T> {
  const stop = new AbortController();
  const late = delay(limitMs, undefined, { signal: stop.signal }).then(async () => {
    throw new Error(`No end after ${seconds(limitMs)}.\n${await explain()}`);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    stop.abort();
  }
}

/** Resolves soon after the condition holds; rejects when the signal aborts. */
export async function becomesTrue(condition: () => boolean, signal: AbortSignal): Promise<void> {
  while (!condition()) await delay(5, undefined, { signal });
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}
