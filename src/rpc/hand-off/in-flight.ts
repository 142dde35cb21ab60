/** What the streams of one connection may have in flight: written by the feed, and not yet with the operating system. */
export interface InFlightLimits {
  /** Bytes of all of them; beyond it each goes on with `leastStreamBytes`. Default 16 MiB. */
  readonly connectionBytes: number;
  /** What a stream may have in flight whatever the others of its connection do. Default 16 KiB. */
  readonly leastStreamBytes: number;
}

/** See `InFlightLimits`. */
export const defaultInFlightLimits: InFlightLimits = {
  connectionBytes: 16 * 1024 * 1024,
  leastStreamBytes: 16 * 1024,
};

/**
 * Bytes in flight on one connection. When they are too many, each stream's share becomes small, and not zero: some of these
 * bytes may be those of readers that are stuck, for which the others of the connection shall not have to wait.
 */
export class ConnectionInFlight {
  readonly #limits: InFlightLimits;
  #bytes = 0;

  constructor(limits: InFlightLimits) {
    this.#limits = limits;
  }

  /** What a stream that wants `maxBytes` in flight may have now. */
  share(maxBytes: number): number {
    const { connectionBytes, leastStreamBytes } = this.#limits;
    return this.#bytes < connectionBytes ? maxBytes : Math.min(maxBytes, leastStreamBytes);
  }

  /** A stream has so many more in flight than before, or fewer. */
  add(bytes: number): void {
    this.#bytes += bytes;
  }
}
