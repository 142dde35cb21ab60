import type { Cursor } from "../cursor.ts";
import { FeedError } from "../errors.ts";
import type { Event, Version } from "../event.ts";
import type { OpenStream } from "../feed.ts";
import type { ClosingReason, EventsFrame, Frame } from "../frame.ts";
import type { Outlet, StreamControl } from "../outlet.ts";
import { type Tick, tickEnd, tickHolding } from "../page.ts";
import { isPiece, type Thinned } from "../policy/policy.ts";

/** What of a stream becomes a page. */
export interface PageBounds {
  readonly maxEvents: number;
  readonly maxBytes: number;
  readonly measure: (event: Event) => number;
  /**
   * `settled`: what is settled by now. `tick`: the first tick that has something, however long that takes; of what comes after
   * it nothing. A tick that is known: as `settled`, up to the end of that one. `frame`: as `settled`, but no more than one
   * frame is taken from the stream, and all of it: what a subscription has delivered it counts as delivered.
   */
  readonly until: "settled" | "tick" | "frame" | Tick;
  /** The last settled version by now. */
  readonly head: () => Version;
}

/**
 * Why a page is over. `cut`: by a limit. `idle`: there is nothing more. `tick`: at the end of the tick that it is to hold.
 * `in_tick`: within that, whose rest has yet to be looked at. `closed`: the stream ended before any of that.
 */
export type PageEnd = "cut" | "idle" | "tick" | "in_tick" | "closed";

/** What came of it. */
export interface Collected {
  readonly end: PageEnd;
  readonly events: readonly Event[];
  readonly cursor: Cursor;
  readonly complete: boolean;
  /** The tick that a page that was waited for holds. */
  readonly tick: Tick | undefined;
  /** Only where it was cut: the limits and the events alone made it what it is. */
  readonly settled: boolean;
  /** Of a stream that said why it ended. */
  readonly closing: ClosingReason | undefined;
}

/**
 * Takes from a stream what makes a page, and ends the stream.
 *
 * How a stream cuts its frames is chance: memory or table, what others have asked for, when the server had time. So frames are
 * put together and cut anew, by the limits alone; and the cursor of a page that was cut is derived from its last event and that
 * event's tick, never from how far the stream has looked. That makes such a page a function of what is settled.
 */
export class PageCollector implements Outlet {
  readonly inline = false;
  /** Resolves with the page; rejects with what the stream ended with before there was any. */
  readonly done: Promise<Collected>;
  readonly #bounds: PageBounds;
  readonly #settle: PromiseWithResolvers<Collected>;
  readonly #events: Event[] = [];
  /** Of the page's events; `undefined` as long as all of them came in one frame, which is within the limits by itself. */
  #bytes: number | undefined;
  #cursor: Cursor;
  #complete = false;
  /** The piece that a policy had thinned, in whose middle the page may end. */
  #thinned: Thinned | undefined;
  /** Of the last event. */
  #ticks: readonly Tick[] = [];
  #until: Tick | undefined;
  /** The most events are there; whether their tick goes on for the page's selectors is not known. */
  #counted = false;
  #inSnapshot: boolean;
  #closing: ClosingReason | undefined;
  /** The version of the last checkpoint. */
  #toldAt: Version | undefined;
  #control: StreamControl | undefined;
  #ended = false;

  /** @param opened - of the stream's first frame */
  constructor(opened: Cursor, bounds: PageBounds) {
    this.#bounds = bounds;
    this.#cursor = opened;
    this.#thinned = opened.thinned;
    this.#until = typeof bounds.until === "object" ? bounds.until : undefined;
    this.#inSnapshot = opened.snapshot !== undefined;
    this.#settle = Promise.withResolvers();
    this.done = this.#settle.promise;
  }

  get ready(): boolean {
    return !this.#ended;
  }

  /** Of the stream that it is attached to. */
  drivenBy(control: StreamControl): void {
    this.#control = control;
    // A stream may have had the whole page at hand as it was attached.
    if (this.#ended) {
      control.cancel(undefined);
    }
  }

  write(frame: Frame): void {
    switch (frame.kind) {
      case "events":
        this.#take(frame);
        break;
      case "checkpoint":
        this.#checkpoint(frame.cursor, frame.progress === undefined);
        break;
      case "snapshot_started":
        this.#inSnapshot = true;
        this.#cursor = frame.cursor;
        if (frame.restart) {
          this.#fail(anewIsNoPage());
        }
        break;
      case "snapshot_complete":
        this.#cursor = frame.cursor;
        this.#complete = true;
        this.#finish("idle");
        break;
      case "closing":
        this.#cursor = this.#counted ? this.#afterLast(undefined).cursor : frame.cursor;
        this.#closing = frame.reason;
        this.#finish("closed");
        break;
      default:
        this.#cursor = frame.cursor;
    }
  }

  end(error: unknown): void {
    if (this.#ended) {
      return;
    }
    if (this.#events.length > 0) {
      this.#cursor = this.#counted ? this.#afterLast(undefined).cursor : this.#cursor;
      this.#finish("closed");
    } else {
      this.#fail(error);
    }
  }

  #take(frame: EventsFrame): void {
    if (this.#inSnapshot || this.#bounds.until === "frame") {
      this.#takeWhole(frame);
      return;
    }
    if (this.#bounds.until === "tick") {
      this.#until ??= tickHolding(frame.ticks ?? [], frame.events[0]?.version ?? 0);
    }
    const until = this.#until === undefined ? Number.POSITIVE_INFINITY : tickEnd(this.#until);
    if (this.#events.length > 0) {
      this.#bytes ??= this.#measured();
    }
    for (const event of frame.events) {
      if (event.version > until) {
        this.#finishTick();
        return;
      }
      if (this.#counted || !this.#fits(event)) {
        this.#cut(event.version);
        return;
      }
      this.#events.push(event);
      this.#ticks = frame.ticks ?? [];
    }
    this.#cursor = frame.cursor;
    this.#complete = frame.complete;
    this.#passed(frame.complete);
  }

  /** The last frame ends where it ends: on a boundary, or not. */
  #passed(onBoundary: boolean): void {
    const until = this.#until;
    if (onBoundary && until !== undefined && this.#cursor.version >= tickEnd(until)) {
      this.#finishTick();
    } else if (this.#bounds.until === "tick") {
      this.#finish("in_tick");
    } else if (this.#events.length >= this.#bounds.maxEvents) {
      if (onBoundary) {
        this.#cut(undefined);
      } else {
        this.#counted = true;
      }
    }
  }

  /** Places in a snapshot are behind whole frames only; and one stream of a subscription is asked for one frame. */
  #takeWhole(frame: EventsFrame): void {
    const { maxEvents, maxBytes, measure, until } = this.#bounds;
    const bytes = frame.events.reduce((sum, event) => sum + measure(event), this.#bytes ?? 0);
    const { length } = this.#events;
    if (length > 0 && (length + frame.events.length > maxEvents || bytes > maxBytes)) {
      this.#finish("cut");
      return;
    }
    this.#events.push(...frame.events);
    this.#bytes = bytes;
    this.#cursor = frame.cursor;
    this.#complete = frame.complete;
    if (until === "frame" || this.#events.length >= maxEvents) {
      this.#finish("cut");
    }
  }

  #checkpoint(cursor: Cursor, isBoundary: boolean): void {
    if (this.#counted) {
      this.#cut(undefined);
      return;
    }
    this.#cursor = cursor;
    this.#complete = isBoundary;
    const { until, head } = this.#bounds;
    if (!isBoundary || until === "tick") {
      return;
    }
    if (this.#until === undefined) {
      // Also a group's member that comes no further: what follows waits for others, or for what it has not acknowledged.
      const stands = cursor.delivery !== undefined && cursor.version === this.#toldAt;
      this.#toldAt = cursor.version;
      if (stands || cursor.version >= head()) {
        this.#finish("idle");
      }
    } else if (cursor.version >= tickEnd(this.#until)) {
      this.#finishTick();
    }
  }

  #fits(event: Event): boolean {
    const { maxEvents, maxBytes, measure } = this.#bounds;
    const { length } = this.#events;
    if (length >= maxEvents) {
      return false;
    }
    if (this.#bytes === undefined) {
      return true;
    }
    const bytes = this.#bytes + measure(event);
    if (length > 0 && bytes > maxBytes) {
      return false;
    }
    this.#bytes = bytes;
    return true;
  }

  #measured(): number {
    return this.#events.reduce((sum, event) => sum + this.#bounds.measure(event), 0);
  }

  /** @param next - version of the next event that matches; `undefined` when a tick ends before it */
  #cut(next: Version | undefined): void {
    const { cursor, complete, known } = this.#afterLast(next ?? Number.POSITIVE_INFINITY);
    const tick = this.#until;
    if (complete && tick !== undefined && cursor.version >= tickEnd(tick)) {
      this.#finishTick();
      return;
    }
    this.#cursor = cursor;
    this.#complete = complete;
    this.#finish("cut", known && (next !== undefined || cursor.version < this.#bounds.head()));
  }

  /**
   * Behind the last event: at the end of its tick, where nothing more of that matches.
   *
   * @param next - version of the next event that matches; `undefined` when nobody knows
   */
  #afterLast(next: Version | undefined): {
    readonly cursor: Cursor;
    readonly complete: boolean;
    readonly known: boolean;
  } {
    const { version = this.#cursor.version } = this.#events.at(-1) ?? {};
    const { epoch } = this.#cursor;
    const tick = tickHolding(this.#ticks, version);
    const whole = tick !== undefined && next !== undefined && next > tickEnd(tick);
    const piece = this.#thinned;
    if (whole && (piece === undefined || !isPiece(tickEnd(tick), piece))) {
      const cursor = { epoch, version: tickEnd(tick), fingerprint: tick.fingerprint, snapshot: undefined };
      return { cursor, complete: true, known: true };
    }
    const thinned = piece !== undefined && isPiece(version, piece) ? { thinned: piece } : {};
    const cursor = { epoch, version, fingerprint: tick?.fingerprint ?? 0, snapshot: undefined, ...thinned };
    return { cursor, complete: false, known: tick !== undefined };
  }

  #finishTick(): void {
    const tick = this.#until;
    if (tick !== undefined) {
      const { epoch } = this.#cursor;
      this.#cursor = { epoch, version: tickEnd(tick), fingerprint: tick.fingerprint, snapshot: undefined };
      this.#complete = true;
    }
    this.#finish("tick");
  }

  #finish(end: PageEnd, settled = false): void {
    this.#ended = true;
    const complete = this.#complete && this.#cursor.snapshot === undefined;
    this.#settle.resolve({
      ...{ end, events: this.#events, cursor: this.#cursor, complete, tick: this.#until, settled },
      closing: this.#closing,
    });
    this.#control?.cancel(undefined);
  }

  #fail(error: unknown): void {
    this.#ended = true;
    this.#settle.reject(error);
    this.#control?.cancel(undefined);
  }
}

/** What of this stream becomes a page; the stream ends. Ends early, with the signal's reason, when nobody wants it any more. */
export async function collect(stream: OpenStream, bounds: PageBounds, signal: AbortSignal): Promise<Collected> {
  const { opened } = stream;
  const collector = new PageCollector(opened.cursor, bounds);
  const control = stream.attach(collector);
  collector.drivenBy(control);
  const onAbort = () => control.cancel(signal.reason);
  if (signal.aborted) {
    onAbort();
  }
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    return await collector.done;
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

function anewIsNoPage(): FeedError {
  return new FeedError(
    "CURSOR_INVALID",
    "The snapshot that the cursor is of cannot go on where it was cut: it has to be taken again, which a page cannot say.",
    "Go on with Subscribe, which says `snapshot_started.restart`; or poll from `oldest` or `now`.",
  );
}
