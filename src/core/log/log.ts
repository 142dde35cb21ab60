import { FeedError } from "../errors.ts";
import type { Event, Version } from "../event.ts";
import { type Page, type Tick, tickEnd, tickHolding } from "../page.ts";
import { WakeSet } from "../wake-set.ts";

/** Small pages are gathered into a segment up to this, so that readers take many ticks at once and eviction is coarse. */
const SEGMENT_BYTES = 256 * 1024;
const SEGMENT_EVENTS = 1024;
/** A small log has smaller segments: what leaves it at once is at most this share of it. */
const SEGMENT_SHARE = 16;

/** Where a log begins and how much it holds. */
export interface LogOptions {
  /** What the events may add up to by `eventBytes`. The newest segment stays even when it alone is larger. */
  readonly maxBytes: number;
  /** The log begins after this version... */
  readonly head: Version;
  /** ...which this tick holds; `undefined` when it is not kept. */
  readonly tick: Tick | undefined;
}

/**
 * The recent events, in memory once for all streams.
 *
 * One writer, the tail, appends; any number of readers hold no more than a version, and look up what follows it when they
 * want it. So an append waits for nobody and costs nobody anything but a wake-up, and a reader that stands still costs
 * nothing: when the log has moved past it, `read` says so and the reader goes to the table. The alternative, a queue per
 * stream, was rejected: its memory grows with the slowest reader.
 *
 * Events lie in segments, which only grow at their end and leave whole, oldest first. A page that was read stays valid,
 * and immutable up to the length it had.
 */
export class Log {
  /** Woken by every append. */
  readonly changed = new WakeSet();
  /** Called with every page, once the log has it; must not throw. */
  onAppend: ((page: Page) => void) | undefined;
  readonly #maxBytes: number;
  readonly #segmentBytes: number;
  readonly #segments: Segment[] = [];
  #head: Version;
  #bytes = 0;
  /** The tick of the version before the oldest. */
  #tickBefore: Tick | undefined;

  constructor(options: LogOptions) {
    this.#maxBytes = options.maxBytes;
    this.#segmentBytes = Math.min(SEGMENT_BYTES, options.maxBytes / SEGMENT_SHARE);
    this.#head = options.head;
    this.#tickBefore = options.tick;
  }

  /** The newest version. */
  get head(): Version {
    return this.#head;
  }

  /** The oldest version held; `head + 1` when there is none. */
  get oldest(): Version {
    return this.#segments[0]?.firstVersion ?? this.#head + 1;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get events(): number {
    return this.#head - this.oldest + 1;
  }

  /** @throws FeedError INTERNAL when the page does not go on exactly where the log ends: better no event than a wrong one. */
  append(page: Page): void {
    assertGoesOn(page, this.#head);
    const last = this.#segments.at(-1);
    if (last?.hasRoomFor(page, this.#segmentBytes)) {
      last.add(page);
    } else {
      this.#segments.push(new Segment(page));
    }
    this.#head += page.events.length;
    this.#bytes += page.bytes;
    this.#evict();
    this.onAppend?.(page);
    this.changed.wakeAll();
  }

  /** A page that holds version `after + 1`, not necessarily as its first; `undefined` when the log does not hold it. */
  read(after: Version): Page | undefined {
    return this.#segmentOf(after + 1);
  }

  /** The tick that holds a version of the log, or the one before its oldest; `undefined` for all others. */
  tickOf(version: Version): Tick | undefined {
    if (version === this.oldest - 1) {
      return this.#tickBefore;
    }
    const segment = this.#segmentOf(version);
    return segment === undefined ? undefined : tickHolding(segment.ticks, version);
  }

  #segmentOf(version: Version): Segment | undefined {
    if (version > this.#head || version < this.oldest) {
      return undefined;
    }
    let low = 0;
    let high = this.#segments.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if ((this.#segments[middle]?.firstVersion ?? 0) <= version) {
        low = middle;
      } else {
        high = middle - 1;
      }
    }
    return this.#segments[low];
  }

  #evict(): void {
    while (this.#bytes > this.#maxBytes && this.#segments.length > 1) {
      const gone = this.#segments.shift();
      this.#bytes -= gone?.bytes ?? 0;
      this.#tickBefore = gone?.ticks.at(-1);
    }
  }
}

class Segment implements Page {
  readonly firstVersion: Version;
  readonly events: Event[];
  readonly ticks: Tick[];
  bytes: number;

  constructor(page: Page) {
    this.firstVersion = page.firstVersion;
    this.events = page.events.slice();
    this.ticks = page.ticks.slice();
    this.bytes = page.bytes;
  }

  hasRoomFor(page: Page, maxBytes: number): boolean {
    return this.bytes + page.bytes <= maxBytes && this.events.length + page.events.length <= SEGMENT_EVENTS;
  }

  add(page: Page): void {
    for (const event of page.events) {
      this.events.push(event);
    }
    for (const tick of page.ticks) {
      // A tick that goes on over the seam of two pages is named by both.
      if (tick.tick !== this.ticks.at(-1)?.tick) {
        this.ticks.push(tick);
      }
    }
    this.bytes += page.bytes;
  }
}

function assertGoesOn(page: Page, head: Version): void {
  let expected = head + 1;
  if (page.events.length === 0 || page.firstVersion !== expected) {
    throw broken(
      `A page of ${page.events.length} events from version ${page.firstVersion} does not follow version ${head}.`,
    );
  }
  for (const event of page.events) {
    if (event.version !== expected++) {
      throw broken(`Version ${event.version} stands where ${expected - 1} is due.`);
    }
  }
  const first = page.ticks[0];
  const last = page.ticks.at(-1);
  if (
    first === undefined ||
    last === undefined ||
    first.firstVersion > page.firstVersion ||
    tickEnd(last) < expected - 1
  ) {
    throw broken(`The ticks of the page from version ${page.firstVersion} do not cover its events.`);
  }
  for (let i = 1; i < page.ticks.length; i++) {
    const [before, tick] = [page.ticks[i - 1], page.ticks[i]];
    if (before !== undefined && tick !== undefined && tick.firstVersion !== tickEnd(before) + 1) {
      throw broken(`Tick ${tick.tick} does not begin where tick ${before.tick} ends.`);
    }
  }
}

function broken(message: string): FeedError {
  return new FeedError("INTERNAL", message, "Report this as a fault of Millrace; the feed tries again.");
}
