/** Somebody who remembers what can be made again. */
export interface Rememberer {
  /** Bytes that it remembers now. */
  readonly bytes: number;
  /** Kept by the budget: bytes it has last heard of. */
  counted: number;
  /** Set by whoever is in use; cleared by the budget. */
  inUse: boolean;
  /** Forgets everything. */
  shed(): void;
}

/**
 * The bytes that all lanes of a feed remember together. When they are too many, lanes that nobody has used for a while
 * forget theirs first, then, in turns, all others: what is forgotten is made again when it is asked for.
 */
export class LaneBudget {
  readonly #maxBytes: number;
  /** Those that remember anything; whoever was spared last stands last. */
  readonly #holders = new Set<Rememberer>();
  #bytes = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** To be told whenever `bytes` has changed. */
  count(holder: Rememberer): void {
    const { bytes, counted } = holder;
    if (counted === 0 && bytes > 0) {
      this.#holders.add(holder);
    } else if (bytes === 0) {
      this.#holders.delete(holder);
    }
    this.#bytes += bytes - counted;
    holder.counted = bytes;
  }

  /** Not while anybody uses what it would forget. */
  enforce(): void {
    while (this.#bytes > this.#maxBytes) {
      const { value: holder, done } = this.#holders.values().next();
      if (done === true) {
        return;
      }
      this.#holders.delete(holder);
      if (holder.inUse) {
        holder.inUse = false;
        this.#holders.add(holder);
      } else {
        holder.shed();
        this.count(holder);
      }
    }
  }
}
