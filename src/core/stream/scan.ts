import { FeedError } from "../errors.ts";
import type { Event, Version } from "../event.ts";
import type { EventsFrame } from "../frame.ts";
import { type Page, type Tick, tickEnd, tickIndexFrom } from "../page.ts";

/** A version and the tick that holds it, which is unknown when it is no longer kept. */
export interface Position {
  readonly version: Version;
  readonly tick: Tick | undefined;
}

/** What a stream wants, and how much of it at once. */
export interface ScanOptions {
  /** The event as the stream is to see it; `undefined` when it is not to. */
  readonly view: (event: Event) => Event | undefined;
  /** Bytes that such an event takes in a batch. */
  readonly measure: (event: Event) => number;
  readonly maxBatchBytes: number;
  readonly maxBatchEvents: number;
}

/** Why a scan came to its end: the page did, the next event does not fit, or its share of time is used up. */
export type ScanEnd = "page_done" | "batch_full" | "budget_spent";

/** From one position to a later one, and what is delivered on the way. */
export interface Passage {
  readonly scanned: Version;
  readonly tick: Tick | undefined;
  /** The last boundary that was passed on the way. */
  readonly boundary: Position | undefined;
  /** `undefined` when nothing matched. */
  readonly frame: EventsFrame | undefined;
}

/**
 * How far a stream has looked, and what it has told: the two differ when nothing matches.
 *
 * `boundary` is the last tick end that was passed. When nothing was delivered after it, the stream may speak of it as a
 * checkpoint although it has looked further: so a stream that waits in the middle of a tick that does not concern it is
 * not silent.
 */
export class Progress {
  /** Everything at or below it was looked at. */
  scanned: Version;
  /** The tick that holds `scanned`. */
  tick: Tick | undefined;
  /** `undefined` until one is passed: a stream may start in the middle of a tick. */
  boundary: Position | undefined;
  /** The last version that was delivered, or at which the stream began. */
  delivered: Version;

  constructor(start: Position) {
    this.scanned = start.version;
    this.delivered = start.version;
    this.tick = start.tick;
    // Retention cuts between ticks: a tick that is not kept any more was kept, or dropped, whole.
    this.boundary = start.tick === undefined || tickEnd(start.tick) === start.version ? start : undefined;
  }

  /** Whether everything delivered lies at or before the boundary. */
  get clean(): boolean {
    return this.boundary !== undefined && this.boundary.version >= this.delivered;
  }

  /** Where a copy of it that looks further begins. */
  clone(): Progress {
    const copy = new Progress({ version: this.scanned, tick: this.tick });
    copy.boundary = this.boundary;
    copy.delivered = this.delivered;
    return copy;
  }

  /** Everything on the way to there was looked at, and what was wanted of it delivered. */
  pass(step: Passage): void {
    this.scanned = step.scanned;
    this.tick = step.tick;
    this.boundary = step.boundary ?? this.boundary;
    this.delivered = step.frame?.events.at(-1)?.version ?? this.delivered;
  }

  /** Goes on behind what is left out. */
  jump(to: Position): void {
    this.scanned = to.version;
    this.tick = to.tick;
    this.boundary = to;
  }

  /** Goes back to the boundary: what was delivered after it was not delivered after all. */
  backToBoundary(boundary: Position): void {
    this.scanned = boundary.version;
    this.tick = boundary.tick;
    this.delivered = boundary.version;
  }

  /** What a cursor says now: it covers all that was delivered, and ends on a boundary where it can. */
  get position(): Position {
    if (this.boundary !== undefined && this.boundary.version >= this.delivered) {
      return this.boundary;
    }
    return { version: this.scanned, tick: this.tick };
  }
}

/** The events of one frame as they are gathered. */
export class Batch {
  readonly events: Event[] = [];
  #bytes = 0;
  readonly #maxBytes: number;
  readonly #maxEvents: number;

  constructor(maxBytes: number, maxEvents = Number.POSITIVE_INFINITY) {
    this.#maxBytes = maxBytes;
    this.#maxEvents = maxEvents;
  }

  /** What its events add up to; those that were dropped again included. */
  get bytes(): number {
    return this.#bytes;
  }

  get empty(): boolean {
    return this.events.length === 0;
  }

  /** False when it must wait for the next frame. An event that is too large for any frame gets one of its own. */
  add(event: Event, bytes: number): boolean {
    const { length } = this.events;
    if (length > 0 && (this.#bytes + bytes > this.#maxBytes || length >= this.#maxEvents)) {
      return false;
    }
    this.events.push(event);
    this.#bytes += bytes;
    return true;
  }

  dropAfter(version: Version): void {
    while ((this.events.at(-1)?.version ?? 0) > version) {
      this.events.pop();
    }
  }
}

/**
 * Makes of a batch one that holds whole ticks, or else a part of a single one: what it holds of a further tick is left for
 * the next. So a stream under load, whose batches are cut by their size, still comes by a boundary with every few of them,
 * where a client can act on whole transactions and the stream can say a checkpoint.
 */
export function trimToBoundary(progress: Progress, batch: Batch): void {
  const first = batch.events[0];
  const { boundary } = progress;
  if (first !== undefined && boundary !== undefined && !progress.clean && boundary.version >= first.version) {
    batch.dropAfter(boundary.version);
    progress.backToBoundary(boundary);
  }
}

/**
 * Looks through a page from where `progress` stands, moves `progress` and adds what matches to `batch`. Stops before the
 * first matching event that does not fit, so that `progress` also covers the events in between that nobody wanted.
 *
 * `budget` is the most events to look at.
 */
export function scan(page: Page, progress: Progress, batch: Batch, options: ScanOptions, budget: number): ScanEnd {
  const { view, measure } = options;
  const { events, firstVersion } = page;
  let at = progress.scanned + 1 - firstVersion;
  if (at < 0) {
    throw new FeedError(
      "INTERNAL",
      `The page from version ${firstVersion} was taken for one that holds version ${progress.scanned + 1}.`,
      "Report this as a fault of Millrace.",
    );
  }
  const end = Math.min(events.length, at + budget);
  let tickAt = tickIndexFrom(page.ticks, progress.scanned + 1);
  while (at < end) {
    const tick = page.ticks[tickAt++];
    const tickStop = tick === undefined ? end : Math.min(end, tickEnd(tick) + 1 - firstVersion);
    for (; at < tickStop; at++) {
      const settled = events[at];
      const event = settled && view(settled);
      if (event === undefined) {
        continue;
      }
      if (!batch.add(event, measure(event))) {
        move(progress, firstVersion + at - 1, tick);
        return "batch_full";
      }
      progress.delivered = event.version;
    }
    move(progress, firstVersion + at - 1, tick);
  }
  return at < events.length ? "budget_spent" : "page_done";
}

/** `scanned` may stand before the tick's first event: then it has not moved since the tick before. */
function move(progress: Progress, scanned: Version, tick: Tick | undefined): void {
  if (scanned === progress.scanned) {
    return;
  }
  progress.scanned = scanned;
  progress.tick = tick;
  if (tick !== undefined && tickEnd(tick) === scanned) {
    progress.boundary = { version: scanned, tick };
  }
}
