import type { Event, Version } from "../event.ts";

/** So many places at the front are left empty before the rest moves up. */
const SLACK = 1_024;

/** Stands where an event was that is forgotten. */
const FORGOTTEN: Event = {
  version: 0,
  topic: "",
  key: undefined,
  operation: "MESSAGE",
  before: undefined,
  after: undefined,
  transaction: "",
  occurredAtMicros: 0,
  headers: undefined,
};

/**
 * What a lane wants of the newest events, as it wants to see it: every event after `from`, up to the log's head, was shown
 * to it. A stream that stands in this stretch finds what follows without looking at the events in between.
 */
export class LaneTrail {
  #from: Version;
  #events: Event[] = [];
  /** Their versions beside them: to look at those of old events would bring each back into the processor's cache. */
  #versions: Version[] = [];
  #sizes: number[] = [];
  /** Index of the first that is still there. */
  #first = 0;
  #bytes = 0;

  constructor(from: Version) {
    this.#from = from;
  }

  get from(): Version {
    return this.#from;
  }

  /** What its events add up to. */
  get bytes(): number {
    return this.#bytes;
  }

  /** One past the index of the last. */
  get end(): number {
    return this.#events.length;
  }

  add(event: Event, size: number): void {
    this.#events.push(event);
    this.#versions.push(event.version);
    this.#sizes.push(size);
    this.#bytes += size;
  }

  sizeAt(index: number): number {
    return this.#sizes[index] ?? 0;
  }

  /** Infinity past the last. */
  versionAt(index: number): Version {
    return this.#versions[index] ?? Number.POSITIVE_INFINITY;
  }

  slice(start: number, end: number): readonly Event[] {
    return this.#events.slice(start, end);
  }

  /** Index of the first event after this version; `end` when there is none. */
  indexAfter(version: Version): number {
    let low = this.#first;
    let high = this.#events.length;
    // Nearly everybody stands before the newest or behind it.
    if (high > low && this.versionAt(high - 1) <= version) {
      return high;
    }
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.versionAt(middle) <= version) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }

  /** Forgets events before this version, the oldest first; only as long as there are more bytes than these. */
  dropBefore(version: Version, maxBytes = -1): void {
    while (this.#bytes > maxBytes && this.versionAt(this.#first) < version) {
      this.#from = this.versionAt(this.#first);
      this.#bytes -= this.sizeAt(this.#first);
      this.#events[this.#first] = FORGOTTEN;
      this.#first += 1;
    }
    const empty = this.#first > 0 && this.#first === this.#events.length;
    if (empty || (this.#first > SLACK && this.#first * 2 > this.#events.length)) {
      this.#events = this.#events.slice(this.#first);
      this.#versions = this.#versions.slice(this.#first);
      this.#sizes = this.#sizes.slice(this.#first);
      this.#first = 0;
    }
  }
}
