import type { Clock, Timers } from "./ports.ts";

/** The machine's own time and chance. */
export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  random: () => Math.random(),
};

/** Above this `setTimeout` fires at once instead of late. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** The machine's own timers. */
export const systemTimers: Timers = {
  after(delayMs, wake) {
    const timer = setTimeout(wake, Math.min(Math.max(0, Math.ceil(delayMs)), MAX_TIMER_MS));
    return () => clearTimeout(timer);
  },
  turn: () => new Promise((resolve) => setImmediate(resolve)),
};
