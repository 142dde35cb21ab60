import { type Cursor, encodeCursor } from "../cursor.ts";
import { FeedError } from "../errors.ts";
import type { Version } from "../event.ts";
import type { OpenStream } from "../feed.ts";
import type { ClosingReason, Frame } from "../frame.ts";
import type { Outlet, StreamControl } from "../outlet.ts";
import type { Clock } from "../ports.ts";
import type { AlarmClock, Sleeper } from "../stream/alarm-clock.ts";
import { lifeOf, type StreamLife } from "../stream/stream-life.ts";

/** So long a member may take to come for `closing`. */
const CLOSING_GRACE_MS = 5_000;
/** Checkpoints come no oftener for time alone. Whoever asks for more is told whenever there is something to tell. */
const LEAST_INTERVAL_MS = 100;
const NEVER = Number.POSITIVE_INFINITY;

/** What a member's stream tells its group. */
export interface StreamHost {
  /** It takes a frame. */
  ready(stream: GroupStream): void;
  /** It is due to say how the group stands. */
  beat(stream: GroupStream): void;
  /** Nothing follows. Called once. */
  ended(stream: GroupStream): void;
  readonly clock: Clock;
  readonly alarms: AlarmClock;
}

/** How it begins. */
export interface GroupStreamOptions {
  readonly opened: Frame;
  readonly maxBytes: number;
  readonly maxStreamAgeMs: number;
  readonly deadlineMs: number | undefined;
  readonly checkpointIntervalMs: number;
}

/** The stream of one member: frames come from its group when it is ready, and it says when it is. */
export class GroupStream implements OpenStream, StreamControl, Sleeper {
  readonly opened: Frame;
  readonly maxBytes: number;
  /** Whoever holds it wants to know at once how far it has come. */
  readonly isUrgent: boolean;
  ringsAtMs = NEVER;
  ringsAs = -1;
  /** Of the last checkpoint. */
  told: Version;
  readonly #host: StreamHost;
  readonly #life: StreamLife;
  readonly #intervalMs: number;
  #outlet: Outlet | undefined;
  #cursor: Cursor;
  #checkpointAtMs: number;
  /** What the outlet had no room for: it may close between being asked and being given. */
  readonly #queue: Frame[] = [];
  #closing: ClosingReason | undefined;
  #givesUpAtMs = NEVER;
  #ended = false;

  constructor(
    host: StreamHost,
    { opened, maxBytes, maxStreamAgeMs, deadlineMs, checkpointIntervalMs }: GroupStreamOptions,
  ) {
    this.#host = host;
    this.opened = opened;
    this.maxBytes = maxBytes;
    this.#intervalMs = checkpointIntervalMs;
    this.isUrgent = checkpointIntervalMs < LEAST_INTERVAL_MS;
    this.#life = lifeOf(deadlineMs, maxStreamAgeMs, host.clock);
    this.#cursor = opened.cursor;
    this.told = opened.cursor.version;
    this.#checkpointAtMs = host.clock.monotonic() + checkpointIntervalMs;
    this.#setAlarm();
  }

  get ready(): boolean {
    return this.#queue.length === 0 && this.#closing === undefined && !this.#ended && this.#outlet?.ready === true;
  }

  /** It was told to end: whoever had it may still speak of what it was given. */
  get wasClosed(): boolean {
    return this.#closing !== undefined;
  }

  attach(outlet: Outlet): StreamControl {
    this.#outlet = outlet;
    this.resume();
    return this;
  }

  close(): void {
    if (this.#outlet === undefined) {
      this.#leave();
    }
  }

  resume(): void {
    this.#flush();
    if (this.ready) {
      this.#host.ready(this);
    }
  }

  cancel(reason: unknown): void {
    this.#finish(reason);
  }

  /** While it is ready. */
  write(frame: Frame): void {
    this.#cursor = frame.cursor;
    if (frame.kind === "checkpoint") {
      this.told = frame.version;
    }
    this.#checkpointAtMs = this.#host.clock.monotonic() + Math.max(this.#intervalMs, LEAST_INTERVAL_MS);
    this.#queue.push(frame);
    this.#flush();
    this.#setAlarm();
  }

  /** It ends, for a reason that is nobody's fault, once the member comes for it. */
  endWith(reason: ClosingReason, retryAfterMs = 0): void {
    if (this.#ended || this.#closing !== undefined) {
      return;
    }
    this.#closing = reason;
    this.#queue.push({ kind: "closing", reason, cursor: this.#cursor, retryAfterMs });
    this.#givesUpAtMs = this.#host.clock.monotonic() + CLOSING_GRACE_MS;
    this.#setAlarm();
    this.#flush();
  }

  /** It ends with an error. */
  fail(error: unknown): void {
    this.#finish(error);
  }

  ring(nowMs: number): void {
    if (this.#ended) {
      return;
    }
    if (nowMs >= Math.min(this.#givesUpAtMs, this.#life.endsAtMs)) {
      this.#finish(tooSlow(this.#cursor));
      return;
    }
    if (nowMs >= this.#life.closesAtMs) {
      this.endWith(this.#life.reason);
    } else if (nowMs >= this.#checkpointAtMs) {
      if (this.ready) {
        this.#host.beat(this);
      }
      // Whoever is not ready says it with the next events, or an interval later.
      this.#checkpointAtMs = Math.max(this.#checkpointAtMs, nowMs + Math.max(this.#intervalMs, LEAST_INTERVAL_MS));
    }
    this.#setAlarm();
  }

  #setAlarm(): void {
    if (!this.#ended) {
      const closes = this.#closing === undefined ? this.#life.closesAtMs : this.#life.endsAtMs;
      const speaks = this.#closing === undefined ? this.#checkpointAtMs : NEVER;
      this.#host.alarms.setFor(this, Math.min(closes, speaks, this.#givesUpAtMs));
    }
  }

  #flush(): void {
    const outlet = this.#outlet;
    while (outlet?.ready === true && !this.#ended) {
      const frame = this.#queue.shift();
      if (frame === undefined) {
        return;
      }
      outlet.write(frame);
      if (frame.kind === "closing") {
        this.#finish(undefined);
      }
    }
  }

  #finish(error: unknown): void {
    if (!this.#ended) {
      this.#leave();
      this.#outlet?.end(error);
    }
  }

  #leave(): void {
    if (!this.#ended) {
      this.#ended = true;
      this.#queue.length = 0;
      this.#host.alarms.stop(this);
      this.#host.ended(this);
    }
  }
}

function tooSlow(cursor: Cursor): FeedError {
  return new FeedError(
    "SLOW_CONSUMER",
    "The member's stream had ended, and its client did not come for `closing`.",
    "Subscribe again: what was not acknowledged comes again.",
    { cursor: encodeCursor(cursor) },
  );
}
