/** Somebody who waits. `wake` must be cheap and must not throw: thousands are called in a row. */
export interface Waiter {
  wake(): void;
}

/**
 * Everybody who waits for one thing to change. Each is woken once and then forgotten, and enrols again before its next
 * wait: so a waiter costs one entry of a set, whatever happens meanwhile, and leaves nothing behind when it gives up.
 */
export class WakeSet {
  #waiters = new Set<Waiter>();

  get size(): number {
    return this.#waiters.size;
  }

  add(waiter: Waiter): void {
    this.#waiters.add(waiter);
  }

  delete(waiter: Waiter): void {
    this.#waiters.delete(waiter);
  }

  wakeAll(): void {
    if (this.#waiters.size === 0) {
      return;
    }
    const woken = this.#waiters;
    this.#waiters = new Set();
    for (const waiter of woken) {
      waiter.wake();
    }
  }
}

/** A waiter that knows its place among the parked, so that nobody needs to look for it. */
export interface Parkable extends Waiter {
  /** Kept by `Parked`; -1 while it is not parked. */
  parkedAt: number;
}

/** As `WakeSet`, for thousands that are woken and enrol again with every event. Each is parked in one place at most. */
export class Parked {
  #waiting: Parkable[] = [];

  get size(): number {
    return this.#waiting.length;
  }

  add(waiter: Parkable): void {
    if (waiter.parkedAt < 0) {
      waiter.parkedAt = this.#waiting.push(waiter) - 1;
    }
  }

  delete(waiter: Parkable): void {
    const at = waiter.parkedAt;
    if (at < 0) {
      return;
    }
    waiter.parkedAt = -1;
    const last = this.#waiting.pop();
    if (last !== undefined && last !== waiter) {
      this.#waiting[at] = last;
      last.parkedAt = at;
    }
  }

  /** Those who enrol meanwhile wait for the next time. */
  wakeAll(): void {
    if (this.#waiting.length === 0) {
      return;
    }
    const woken = this.#waiting;
    this.#waiting = [];
    for (const waiter of woken) {
      waiter.parkedAt = -1;
    }
    for (const waiter of woken) {
      waiter.wake();
    }
  }
}

/** Resolves at the next `wakeAll`; rejects with the signal's reason. For those who wait seldom. */
export function nextWake(set: WakeSet, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) {
      reject(signal.reason);
      return;
    }
    const waiter: Waiter = {
      wake() {
        signal.removeEventListener("abort", onAbort);
        resolve();
      },
    };
    const onAbort = () => {
      set.delete(waiter);
      reject(signal.reason);
    };
    signal.addEventListener("abort", onAbort, { once: true });
    set.add(waiter);
  });
}
