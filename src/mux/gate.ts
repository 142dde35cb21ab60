/**
 * Lets what comes in reach the library only between its writes. Through a stream that is no socket each of its writes ends
 * an event-loop turn later, and while one lasts the library sends nothing: not even the GOAWAY that says why it gives the
 * connection up, which is lost then.
 */
export class Gate {
  readonly #deliver: (bytes: Uint8Array | null) => void;
  #waiting: (Uint8Array | null)[] = [];
  #writes = 0;
  /** What waits, in bytes. */
  bytes = 0;

  /** @param deliver `null` is the end */
  constructor(deliver: (bytes: Uint8Array | null) => void) {
    this.#deliver = deliver;
  }

  pass(bytes: Uint8Array | null): void {
    if (this.#writes === 0 && this.#waiting.length === 0) {
      this.#deliver(bytes);
    } else {
      this.#waiting.push(bytes);
      this.bytes += bytes?.length ?? 0;
    }
  }

  /** Ends a write of the library. The gate is shut until the library knows. */
  finish(written: () => void): void {
    this.#writes += 1;
    written();
    // The stream calls back in a tick, and the library in an immediate after that: this one comes later.
    process.nextTick(() => setImmediate(this.#finished));
  }

  /** Delivers everything, whatever the library is doing: nothing more will come. */
  flush(): void {
    for (const bytes of this.#waiting.splice(0)) {
      this.#deliver(bytes);
    }
    this.bytes = 0;
  }

  readonly #finished = (): void => {
    this.#writes -= 1;
    let next = 0;
    while (this.#writes === 0 && next < this.#waiting.length) {
      const bytes = this.#waiting[next] ?? null;
      next += 1;
      this.bytes -= bytes?.length ?? 0;
      // The library may write in reply, and shut the gate again.
      this.#deliver(bytes);
    }
    this.#waiting.splice(0, next);
  };
}
