import type { Cursor } from "./cursor.ts";
import type { Event, Version } from "./event.ts";
import type { EventsFrame } from "./frame.ts";
import type { Log } from "./log.ts";
import { type Page, pageEnd, tickEnd } from "./page.ts";
import { Batch, type Passage, type Progress, type ScanOptions, scan, trimToBoundary } from "./scan.ts";
import type { Matcher } from "./selector.ts";
import { WakeSet } from "./wake-set.ts";

/** Events looked at before others get their turn. */
const SCAN_BUDGET = 16_384;
/** A step that others took is made anew for whoever comes when so many times more has come in behind it. */
const WORTH_MAKING = 4;

/** How a lane's events become bytes. */
export interface LaneCodec {
  /** The same for codecs that make the same bytes of the same frame. */
  readonly identity: string;
  /** Bytes that an event takes in a batch. */
  readonly measure: (event: Event) => number;
}

/** Most that one events frame holds. An event that is larger gets a frame of its own. */
export interface BatchLimits {
  readonly maxEvents: number;
  /** By the codec's `measure`. */
  readonly maxBytes: number;
}

/** What the streams of a lane have in common. */
export interface LaneTerms {
  readonly matcher: Matcher;
  readonly codec: LaneCodec;
  readonly batch: BatchLimits;
}

/** What a lane sees of the feed. */
export interface LaneView {
  readonly epoch: string;
  readonly log: Log;
}

/** One passage of the lane: immutable, the same for every stream. */
export interface LaneStep extends Passage {
  /** What the frame's events add up to by `measure`. */
  readonly bytes: number;
}

/** The text under which streams find their lane. */
export function laneIdentity({ matcher, codec, batch }: LaneTerms): string {
  return JSON.stringify([matcher.selection, codec.identity, batch.maxEvents, batch.maxBytes]);
}

/**
 * All streams that want the same bytes.
 *
 * What follows a position is the same for all of them: it is looked for once, made into a frame once, and remembered by the
 * position. A stream that comes to the same position takes the same frame, whose bytes are made once too. Because each step
 * ends where the next begins, streams that fell apart meet again at the next position that one of them came to.
 */
export class Lane {
  readonly identity: string;
  readonly matcher: Matcher;
  readonly terms: LaneTerms;
  /** Streams that have nothing to do until the log brings something that this lane may want. */
  readonly parked = new WakeSet();
  readonly #view: LaneView;
  readonly #scan: ScanOptions;
  readonly #maxBytes: number;
  readonly #steps = new Map<Version, LaneStep>();
  #bytes = 0;
  /** Of the versions after the first of these, up to the second, the lane wants none. */
  #clearFrom: Version;
  #clearTo: Version;
  /** Since this one nothing has come that it may want. */
  #touchedEnd: Version;

  constructor(terms: LaneTerms, view: LaneView, maxBytes: number) {
    this.identity = laneIdentity(terms);
    this.terms = terms;
    this.matcher = terms.matcher;
    this.#view = view;
    this.#maxBytes = maxBytes;
    const { maxEvents, maxBytes: maxBatchBytes } = terms.batch;
    const { view: see } = terms.matcher;
    this.#scan = { view: see, measure: terms.codec.measure, maxBatchBytes, maxBatchEvents: maxEvents };
    this.#clearFrom = this.#clearTo = this.#touchedEnd = view.log.head;
  }

  get scan(): ScanOptions {
    return this.#scan;
  }

  /** Bytes of the frames that it remembers, by `measure`. */
  get bytes(): number {
    return this.#bytes;
  }

  /** The log has gone on from `before`, with something that this lane may want. */
  touch(before: Version): void {
    this.#clearFrom = this.#touchedEnd;
    this.#clearTo = before;
    this.#touchedEnd = this.#view.log.head;
    this.parked.wakeAll();
  }

  /** Passes what is known to hold nothing for this lane, without looking at it. */
  skip(progress: Progress): void {
    const { log } = this.#view;
    if (progress.scanned >= this.#clearFrom && progress.scanned < this.#clearTo) {
      pass(progress, this.#clearTo, log);
    }
    if (progress.scanned >= this.#touchedEnd && progress.scanned < log.head) {
      pass(progress, log.head, log);
    }
  }

  /**
   * What follows, from memory, from the log, or from this page of history; `undefined` when it is in none of them.
   *
   * @param page - holds the version after `progress.scanned`, or nothing that is of use
   */
  next(progress: Progress, page: Page | undefined): LaneStep | undefined {
    const known = this.#steps.get(progress.scanned);
    if (known !== undefined && !this.#isOutgrown(progress.scanned, known)) {
      return known;
    }
    const step = this.#make(progress, page);
    if (step !== undefined) {
      this.#remember(progress.scanned, step);
    }
    return step ?? known;
  }

  /** A frame of its own, of events that a stream has chosen among those of the lane. */
  frame(events: readonly Event[], cursor: Cursor, complete: boolean): EventsFrame {
    return { kind: "events", events, cursor, complete, shared: undefined };
  }

  /** Where much more has come in since, a larger frame is made: at most so often that each costs a share of the next. */
  #isOutgrown(after: Version, { scanned, bytes, frame }: LaneStep): boolean {
    const { maxBytes, maxEvents } = this.terms.batch;
    const { log } = this.#view;
    const ahead = log.head - scanned;
    return (
      ahead >= WORTH_MAKING * (scanned - after) &&
      bytes * WORTH_MAKING < maxBytes &&
      (frame?.events.length ?? 0) * WORTH_MAKING < maxEvents &&
      log.oldest <= after + 1
    );
  }

  #make(progress: Progress, page: Page | undefined): LaneStep | undefined {
    const ahead = progress.clone();
    ahead.boundary = undefined;
    const batch = new Batch(this.#scan.maxBatchBytes, this.#scan.maxBatchEvents);
    this.#collect(ahead, batch, page);
    trimToBoundary(ahead, batch);
    if (ahead.scanned === progress.scanned) {
      return undefined;
    }
    const { scanned, tick, boundary } = ahead;
    return { scanned, tick, boundary, frame: this.#shared(ahead, batch), bytes: batch.bytes };
  }

  #shared(ahead: Progress, batch: Batch): EventsFrame | undefined {
    if (batch.empty) {
      return undefined;
    }
    const { version, tick } = ahead.position;
    const cursor = { epoch: this.#view.epoch, version, fingerprint: tick?.fingerprint ?? 0, snapshot: undefined };
    const { events } = batch;
    return { kind: "events", events, cursor, complete: ahead.clean, shared: { bytes: undefined } };
  }

  #collect(progress: Progress, batch: Batch, page: Page | undefined): void {
    const stopAt = progress.scanned + SCAN_BUDGET;
    while (progress.scanned < stopAt) {
      const at = this.#view.log.read(progress.scanned) ?? pageFrom(page, progress.scanned);
      if (at === undefined || scan(at, progress, batch, this.#scan, stopAt - progress.scanned) === "batch_full") {
        return;
      }
    }
  }

  #remember(after: Version, step: LaneStep): void {
    this.#forget(after);
    this.#steps.set(after, step);
    this.#bytes += step.bytes;
    for (const oldest of this.#steps.keys()) {
      if (this.#bytes <= this.#maxBytes && this.#steps.size <= MAX_STEPS) {
        return;
      }
      this.#forget(oldest);
    }
  }

  #forget(after: Version): void {
    this.#bytes -= this.#steps.get(after)?.bytes ?? 0;
    this.#steps.delete(after);
  }
}

/** Steps without a frame have no bytes. */
const MAX_STEPS = 4_096;

function pageFrom(page: Page | undefined, scanned: Version): Page | undefined {
  return page !== undefined && page.firstVersion <= scanned + 1 && pageEnd(page) > scanned ? page : undefined;
}

function pass(progress: Progress, to: Version, log: Log): void {
  const tick = log.tickOf(to);
  progress.scanned = to;
  progress.tick = tick;
  if (tick !== undefined && tickEnd(tick) === to) {
    progress.boundary = { version: to, tick };
  }
}
