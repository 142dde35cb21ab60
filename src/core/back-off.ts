import type { Clock, Timers } from "./ports.ts";

const FIRST_MS = 50;
const LONGEST_MS = 2_000;

/** Milliseconds before the next try after this many failures in a row, from 1: doubling, up to 2 s, less up to a half by chance. */
export function backOffMs(failures: number, clock: Clock): number {
  const full = Math.min(LONGEST_MS, FIRST_MS * 2 ** Math.min(failures - 1, 16));
  return full * (1 - clock.random() / 2);
}

/** Resolves after `ms`; rejects with the signal's reason. */
export function pause(ms: number, timers: Timers, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) {
      reject(signal.reason);
      return;
    }
    const onAbort = () => {
      cancel();
      reject(signal.reason);
    };
    const cancel = timers.after(ms, () => {
      signal.removeEventListener("abort", onAbort);
      resolve();
    });
    signal.addEventListener("abort", onAbort, { once: true });
  });
}
