import { setTimeout as delay } from "node:timers/promises";

/** `true` when it resolved in time. For requirements that name a time; everything else waits as long as it takes. */
export async function within(ms: number, event: Promise<unknown>): Promise<boolean> {
  const stop = new AbortController();
  const late = delay(ms, false, { signal: stop.signal }).catch(() => false);
  try {
    return await Promise.race([event.then(() => true), late]);
  } finally {
    stop.abort();
  }
}

/** Asks every 20 ms until the answer is neither `undefined` nor `false`. */
export async function eventually<T>(ask: () => Promise<T | undefined | false>): Promise<T> {
  for (;;) {
    const answer = await ask();
    if (answer !== undefined && answer !== false) return answer;
    await delay(20);
  }
}

/** Keeps a condition that a full-length run asks for, such as ten seconds without a database. */
export function hold(ms: number): Promise<void> {
  return delay(ms);
}

/** Asks until the answer is yes; fails when it has not been for 50 s: tests share the machine with much else. */
export async function until(what: string, holds: () => Promise<boolean>): Promise<void> {
  const end = performance.now() + 50_000;
  while (!(await holds())) {
    if (performance.now() > end) throw new Error(`still not so: ${what}`);
    await new Promise((resolve) => setImmediate(resolve));
  }
}
