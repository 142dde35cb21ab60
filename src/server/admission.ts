/** So long new calls are worked on before everything else gets its turn, in milliseconds. */
const SLICE_MS = 5;

/**
 * Lets new calls in a few at a time.
 *
 * To open a call takes a fraction of a millisecond, and after a restart ten thousand come at once, in a few large reads of
 * a few sockets. Opened as they are read, they keep the event loop for seconds: the tick waits, and so does every answer of
 * the database, until timers that fire first take it for dead. In slices they take as long in sum, and nobody waits for
 * more than one slice. While there are few calls each is let in at once.
 */
export class Admission {
  readonly #now: () => number;
  readonly #nextTurn: (run: () => void) => void;
  #waiting: (() => void)[] = [];
  /** Of this turn of the event loop. */
  #spentMs = 0;
  #turning = false;

  /** Defaults: the machine's clock and event loop. */
  constructor(now = () => performance.now(), nextTurn: (run: () => void) => void = setImmediate) {
    this.#now = now;
    this.#nextTurn = nextTurn;
  }

  /** Calls `open` now or in a later turn, in the order in which they came. It must not throw. */
  admit(open: () => void): void {
    if (this.#waiting.length > 0 || this.#spentMs >= SLICE_MS) {
      this.#waiting.push(open);
    } else {
      this.#open(open);
    }
    if (!this.#turning) {
      this.#turning = true;
      this.#nextTurn(() => this.#turn());
    }
  }

  #turn(): void {
    this.#spentMs = 0;
    let opened = 0;
    for (const open of this.#waiting) {
      if (this.#spentMs >= SLICE_MS) {
        break;
      }
      opened += 1;
      this.#open(open);
    }
    this.#waiting = this.#waiting.slice(opened);
    this.#turning = this.#waiting.length > 0;
    if (this.#turning) {
      this.#nextTurn(() => this.#turn());
    } else {
      this.#spentMs = 0;
    }
  }

  #open(open: () => void): void {
    const beganMs = this.#now();
    open();
    this.#spentMs += this.#now() - beganMs;
  }
}
