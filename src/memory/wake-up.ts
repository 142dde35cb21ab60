import { systemTimers } from "../core/clock.ts";
import type { Timers, WakeUp } from "../core/ports.ts";
import { type Waiter, WakeSet } from "../core/wake-set.ts";

/** Wakes every feed of this process as soon as a transaction commits; polls beside that, for hints may be missed. */
export function createMemoryWakeUp(idleMs: number, timers: Timers = systemTimers): WakeUp {
  const sleeping = new WakeSet();
  return {
    nudge: () => sleeping.wakeAll(),
    wait: (found, signal) => {
      if (found) {
        return timers.turn();
      }
      return new Promise((resolve, reject) => {
        signal.throwIfAborted();
        const stop = () => {
          cancel();
          sleeping.delete(waiter);
          signal.removeEventListener("abort", onAbort);
        };
        const wake = () => {
          stop();
          resolve();
        };
        const onAbort = () => {
          stop();
          reject(signal.reason);
        };
        const waiter: Waiter = { wake };
        const cancel = timers.after(idleMs, wake);
        signal.addEventListener("abort", onAbort, { once: true });
        sleeping.add(waiter);
      });
    },
  };
}
