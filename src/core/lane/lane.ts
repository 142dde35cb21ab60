import type { Cursor } from "../cursor.ts";
import type { Event, Version } from "../event.ts";
import type { EventsFrame } from "../frame.ts";
import type { Log } from "../log/log.ts";
import { type Page, pageEnd, type Tick, ticksHolding } from "../page.ts";
import type { Matcher } from "../selector/selector.ts";
import type { AlarmClock } from "../stream/alarm-clock.ts";
import { Batch, type Passage, type Progress, type ScanOptions, scan, trimToBoundary } from "../stream/scan.ts";
import { Parked } from "../wake-set.ts";
import type { LaneBudget, Rememberer } from "./lane-budget.ts";
import { boundaryBetween, type Cut, cutTrail } from "./lane-cut.ts";
import { LaneHold } from "./lane-hold.ts";
import { LaneMemory } from "./lane-memory.ts";
import { LaneTrail } from "./lane-trail.ts";

/** Events looked at before others get their turn. */
const SCAN_BUDGET = 4_096;
/** A step that others took is made anew for whoever comes when so many times more has come in behind it. */
const WORTH_MAKING = 4;
/** So many events are looked at for streams of which none has come for any: they are slow, and look on demand. */
const LOOKED_AT_IN_VAIN = 16_384;

/** How a lane's events become bytes. */
export interface LaneCodec {
  /** The same for codecs that make the same bytes of the same frame. */
  readonly identity: string;
  /** Bytes that an event takes in a batch. */
  readonly measure: (event: Event) => number;
  /** Whether frames say which ticks hold their events: for those who give each event a cursor. Default false. */
  readonly wantsTicks?: boolean | undefined;
}

/** Most that one events frame holds. An event that is larger gets a frame of its own. */
export interface BatchLimits {
  readonly maxEvents: number;
  /** By the codec's `measure`. */
  readonly maxBytes: number;
  /** Milliseconds that events wait for more before they go out. Default 0. */
  readonly maxDelayMs?: number | undefined;
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

/** What the lanes of a feed share. */
export interface LaneMeans {
  /** Bytes that each lane may remember. */
  readonly maxLaneBytes: number;
  readonly budget: LaneBudget;
  /** For those whose events wait. */
  readonly alarms: AlarmClock;
}

/** One passage of the lane: immutable, the same for every stream. */
export interface LaneStep extends Passage {
  /** What the frame's events add up to by `measure`. */
  readonly bytes: number;
}

/** The text under which streams find their lane. */
export function laneIdentity({ matcher, codec, batch }: LaneTerms): string {
  return JSON.stringify([matcher.selection, codec.identity, batch.maxEvents, batch.maxBytes, batch.maxDelayMs ?? 0]);
}

/**
 * All streams that want the same bytes.
 *
 * What follows a position is the same for all of them: it is looked for once, made into a frame once, and remembered by the
 * position. A stream that comes to the same position takes the same frame, whose bytes are made once too. Because each step
 * ends where the next begins, streams that fell apart meet again at the next position that one of them came to.
 *
 * What is new it is shown as it comes, and keeps what it wants of it (the trail): so a stream at the head is woken only by
 * what concerns it, and finds it without looking for it, whatever went by meanwhile. A lane whose streams are all behind
 * keeps no trail; they look through the log, or the table, at their own pace.
 */
export class Lane implements Rememberer {
  readonly identity: string;
  readonly matcher: Matcher;
  readonly terms: LaneTerms;
  /** Streams that have nothing to do until something comes that this lane wants. */
  readonly parked = new Parked();
  counted = 0;
  inUse = false;
  readonly #view: LaneView;
  readonly #means: LaneMeans;
  readonly #scan: ScanOptions;
  readonly #hold: LaneHold;
  readonly #memory: LaneMemory;
  /** While a stream stands at the head, or has lately. */
  #trail: LaneTrail | undefined;
  /** The last event that it was shown. */
  #shown: Version = 0;
  /** Events that it was shown since a stream last came. */
  #shownInVain = 0;
  /** Where the head was when a stream last came. */
  #usedAt: Version = 0;
  #touched = false;

  constructor(terms: LaneTerms, view: LaneView, means: LaneMeans) {
    this.identity = laneIdentity(terms);
    this.terms = terms;
    this.matcher = terms.matcher;
    this.#view = view;
    this.#means = means;
    const { maxEvents, maxBytes } = terms.batch;
    const { view: see } = terms.matcher;
    this.#memory = new LaneMemory(means.maxLaneBytes / 2);
    this.#hold = new LaneHold(terms.batch, means.alarms, () => this.#release());
    this.#scan = { view: see, measure: terms.codec.measure, maxBatchBytes: maxBytes, maxBatchEvents: maxEvents };
  }

  get scan(): ScanOptions {
    return this.#scan;
  }

  /** Bytes of what it remembers, by `measure`. */
  get bytes(): number {
    return this.#memory.bytes + (this.#trail?.bytes ?? 0);
  }

  /** Streams that stand here, or before it and want nothing in between, wait. */
  get horizon(): Version {
    const { from } = this.#hold;
    return from === undefined ? this.#view.log.head : from - 1;
  }

  /**
   * Shows it an event that the log has just got. Wakes nobody yet: true when it is to `settle` afterwards, said once.
   * An event that it was shown before is passed over.
   */
  offer(event: Event): boolean {
    const trail = this.#trail;
    if (trail === undefined || event.version <= this.#shown) {
      return false;
    }
    this.#shown = event.version;
    this.#shownInVain += 1;
    try {
      const seen = this.#scan.view(event);
      if (seen !== undefined) {
        trail.add(seen, this.#scan.measure(seen));
      } else if (this.#shownInVain < LOOKED_AT_IN_VAIN || this.parked.size > 0) {
        return false;
      } else {
        this.#stopFollowing();
      }
    } catch {
      // Those whose streams it concerns meet the error where they can end with it: as they look themselves.
      this.#stopFollowing();
    }
    const first = !this.#touched;
    this.#touched = true;
    return first;
  }

  /** All of a page was offered, which came after `before`. */
  settle(before: Version, nowMs: number): void {
    this.#touched = false;
    this.#trim(before);
    this.#means.budget.count(this);
    if (this.#trail === undefined || !this.#hold.hold(this.#trail, this.#view.log.head, nowMs)) {
      this.parked.wakeAll();
    }
  }

  /** Passes what is known to hold nothing for this lane, without looking at it. */
  skip(progress: Progress): void {
    const { log } = this.#view;
    const trail = this.#trail;
    const { scanned } = progress;
    if (trail === undefined || scanned < trail.from || scanned >= log.head) {
      return;
    }
    const to = Math.min(log.head, trail.versionAt(trail.indexAfter(scanned)) - 1);
    // What the log no longer holds has no tick to speak of: then the table is asked.
    if (to > scanned && to + 1 >= log.oldest) {
      const tick = log.tickOf(to);
      const boundary = boundaryBetween(scanned, to, tick, log);
      progress.pass({ scanned: to, tick, boundary, frame: undefined });
    }
  }

  /**
   * What follows, from memory, from the log, or from this page of history; `undefined` when it is in none of them.
   *
   * @param page - holds the version after `progress.scanned`, or nothing that is of use
   */
  next(progress: Progress, page: Page | undefined): LaneStep | undefined {
    const { scanned } = progress;
    const { head } = this.#view.log;
    this.#shownInVain = 0;
    this.#usedAt = head;
    this.inUse = true;
    if (scanned >= this.horizon) {
      if (scanned >= head) {
        this.#follow(head);
      }
      if (page === undefined || scanned < head) {
        return undefined;
      }
    }
    const known = this.#memory.get(scanned);
    if (known !== undefined && !this.#isOutgrown(scanned, known)) {
      return known;
    }
    const step = this.#make(progress, page);
    if (step !== undefined) {
      this.#remember(scanned, step);
    }
    return step ?? known;
  }

  /**
   * A frame of its own, of events that a stream has chosen among those of the lane.
   *
   * @param page - of history, that holds what the log does not
   */
  frame(events: readonly Event[], cursor: Cursor, complete: boolean, page?: Page): EventsFrame {
    return { kind: "events", events, cursor, complete, ticks: this.#ticksOf(events, page), shared: undefined };
  }

  #ticksOf(events: readonly Event[], page: Page | undefined): readonly Tick[] | undefined {
    return this.terms.codec.wantsTicks === true ? ticksHolding(events, this.#view.log, page) : undefined;
  }

  shed(): void {
    this.#memory.clear();
    this.#trail?.dropBefore(Number.POSITIVE_INFINITY);
  }

  /** Nobody uses it any more. */
  close(): void {
    this.#stopFollowing();
    this.shed();
    this.#means.budget.count(this);
  }

  #follow(head: Version): void {
    if (this.#trail === undefined) {
      this.#trail = new LaneTrail(head);
      this.#shown = head;
      this.#hold.release(head);
    }
  }

  #stopFollowing(): void {
    this.#trail = undefined;
    this.#hold.release(this.#view.log.head);
  }

  #trim(before: Version): void {
    const trail = this.#trail;
    if (trail === undefined) {
      return;
    }
    trail.dropBefore(this.#view.log.oldest);
    // The page that has just come stays, however large it is: streams at the head are about to take it.
    trail.dropBefore(before + 1, this.#means.maxLaneBytes / 2);
    if (this.#usedAt < trail.from && this.#usedAt < before) {
      // Nobody came while it went round once, and who is parked is not at the head: else it had been woken, and come.
      this.#stopFollowing();
    }
  }

  #release(): void {
    this.#hold.release(this.#view.log.head);
    this.parked.wakeAll();
  }

  /** Where much more has come in since, a larger frame is made: at most so often that each costs a share of the next. */
  #isOutgrown(after: Version, { scanned, bytes, frame }: LaneStep): boolean {
    const { maxBytes, maxEvents } = this.terms.batch;
    const ahead = this.horizon - scanned;
    return (
      ahead >= WORTH_MAKING * (scanned - after) &&
      bytes * WORTH_MAKING < maxBytes &&
      (frame?.events.length ?? 0) * WORTH_MAKING < maxEvents &&
      this.#view.log.oldest <= after + 1
    );
  }

  #make(progress: Progress, page: Page | undefined): LaneStep | undefined {
    const { scanned } = progress;
    const trail = this.#trail;
    // Beyond the horizon the trail has nothing: what a page holds of it is ahead of the log, or waits.
    const onTrail = scanned < this.horizon && this.#view.log.oldest <= scanned + 1;
    if (onTrail && trail !== undefined && trail.from <= scanned) {
      const cut = cutTrail(trail, scanned, this.horizon, this.#scan, this.#view.log);
      return this.#step(cut, cut, undefined);
    }
    const ahead = progress.clone();
    ahead.boundary = undefined;
    const batch = new Batch(this.#scan.maxBatchBytes, this.#scan.maxBatchEvents);
    this.#collect(ahead, batch, page);
    trimToBoundary(ahead, batch);
    if (ahead.scanned === scanned) {
      return undefined;
    }
    const { boundary } = ahead;
    return this.#step(ahead, { boundary, events: batch.events, bytes: batch.bytes }, page);
  }

  #step(
    { scanned, tick }: { readonly scanned: Version; readonly tick: Tick | undefined },
    { boundary, events, bytes }: Pick<Cut, "boundary" | "events" | "bytes">,
    page: Page | undefined,
  ): LaneStep {
    const last = events.at(-1);
    if (last === undefined) {
      return { scanned, tick, boundary, frame: undefined, bytes: 0 };
    }
    const complete = boundary !== undefined && boundary.version >= last.version;
    const position = complete ? boundary : { version: scanned, tick };
    const { version } = position;
    const fingerprint = position.tick?.fingerprint ?? 0;
    const cursor = { epoch: this.#view.epoch, version, fingerprint, snapshot: undefined };
    const ticks = this.#ticksOf(events, page);
    const frame: EventsFrame = { kind: "events", events, cursor, complete, ticks, shared: { bytes: undefined } };
    return { scanned, tick, boundary, frame, bytes };
  }

  #collect(progress: Progress, batch: Batch, page: Page | undefined): void {
    const { log } = this.#view;
    const { from: held = Number.POSITIVE_INFINITY } = this.#hold;
    const stopAt = Math.min(progress.scanned + SCAN_BUDGET, held - 1);
    while (progress.scanned < stopAt) {
      const at = log.read(progress.scanned) ?? pageFrom(page, progress.scanned);
      if (at === undefined || scan(at, progress, batch, this.#scan, stopAt - progress.scanned) === "batch_full") {
        return;
      }
    }
  }

  #remember(after: Version, step: LaneStep): void {
    if (step.frame === undefined && this.#trail !== undefined && this.#trail.from <= after) {
      return;
    }
    this.#memory.set(after, step);
    this.#means.budget.count(this);
    this.#means.budget.enforce();
  }
}

function pageFrom(page: Page | undefined, scanned: Version): Page | undefined {
  return page !== undefined && page.firstVersion <= scanned + 1 && pageEnd(page) > scanned ? page : undefined;
}
