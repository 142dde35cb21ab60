import { type Cursor, encodeCursor } from "../cursor.ts";
import { FeedError } from "../errors.ts";
import type { Event } from "../event.ts";
import type { OpenStream } from "../feed.ts";
import type { ClosingReason, EventsFrame, Frame, Lease } from "../frame.ts";
import type { Outlet, StreamControl } from "../outlet.ts";
import type { Timers } from "../ports.ts";

/** So long a consumer may take to come for `closing`. */
const CLOSING_GRACE_MS = 5_000;

/** What a consumer's stream tells of, and asks. */
export interface ConsumerContext {
  /** Whether events of the frame were delivered before. */
  repeats(frame: EventsFrame): boolean;
  /** The event as one that was delivered before, if it was. */
  marked(event: Event): Event;
  /** A frame is on its way to the consumer. */
  saw(frame: Frame): void;
  /** Nothing follows. Called once. */
  ended(): void;
  readonly timers: Timers;
}

/** What it is made of. */
export interface ConsumerStreamOptions {
  readonly stream: OpenStream;
  readonly lease: Lease;
  /** As `StreamRequest`: what is marked may not make a frame too large. */
  readonly measure: (event: Event) => number;
  readonly maxBatchBytes: number;
}

/** Why others end it. */
export type EndedByOthers = Extract<ClosingReason, "TAKEN_OVER" | "PAUSED" | "MOVED" | "DELETED">;

/**
 * A subscription's stream: an ordinary stream of the feed, watched. Frames pass through as they are, with the bytes that other
 * streams of their lane have of them; only those with events that were delivered before are made anew, which ends with the
 * stretch that is delivered again. And somebody else can end it, with `closing`.
 */
export class ConsumerStream implements OpenStream, Outlet, StreamControl {
  readonly opened: Frame;
  readonly maxBytes: number;
  readonly #context: ConsumerContext;
  readonly #options: ConsumerStreamOptions;
  #outlet: Outlet | undefined;
  #control: StreamControl | undefined;
  #cursor: Cursor;
  /** What became of one frame, as far as the outlet has not taken it. */
  readonly #queue: Frame[] = [];
  /** What it ends with once the queue is empty. */
  #last: { readonly error: unknown } | undefined;
  #closing: EndedByOthers | undefined;
  #cancelGrace: (() => void) | undefined;
  #ended = false;

  constructor(context: ConsumerContext, options: ConsumerStreamOptions) {
    const { opened, maxBytes } = options.stream;
    this.#context = context;
    this.#options = options;
    this.opened = opened.kind === "opened" ? { ...opened, streamId: "", lease: options.lease } : opened;
    this.maxBytes = maxBytes;
    this.#cursor = opened.cursor;
  }

  get ready(): boolean {
    return this.#queue.length === 0 && this.#outlet?.ready === true;
  }

  get inline(): boolean {
    return this.#outlet?.inline === true;
  }

  attach(outlet: Outlet): StreamControl {
    this.#outlet = outlet;
    if (this.#closing === undefined) {
      this.#control = this.#options.stream.attach(this);
      if (this.#closing !== undefined) {
        this.#control.cancel(ended());
      }
    } else {
      this.#sayClosing(this.#closing);
    }
    return this;
  }

  close(): void {
    if (this.#outlet === undefined) {
      this.#options.stream.close();
      this.#leave();
    }
  }

  resume(): void {
    this.#flush();
    if (this.ready) {
      this.#control?.resume();
    }
  }

  cancel(reason: unknown): void {
    this.#queue.length = 0;
    if (this.#closing === undefined) {
      this.#control?.cancel(reason);
    }
    this.#finish(reason);
  }

  /** Somebody else has decided that it is over. */
  end(reason: unknown): void {
    if (this.#closing === undefined) {
      this.#last ??= { error: reason };
      this.#flush();
    }
  }

  /** The same with `closing`, once the consumer comes for it. */
  endWith(reason: EndedByOthers): void {
    if (this.#ended || this.#closing !== undefined || this.#last !== undefined) {
      return;
    }
    this.#closing = reason;
    if (this.#outlet === undefined) {
      this.#options.stream.close();
      return;
    }
    this.#control?.cancel(ended());
    this.#sayClosing(reason);
  }

  write(frame: Frame): void {
    if (this.#closing !== undefined || this.#ended) {
      return;
    }
    if (frame.kind !== "events" || !this.#context.repeats(frame)) {
      this.#hand(frame);
      return;
    }
    this.#queue.push(...this.#marked(frame));
    this.#flush();
  }

  #hand(frame: Frame): void {
    this.#cursor = frame.cursor;
    this.#context.saw(frame);
    this.#outlet?.write(frame);
  }

  #marked(frame: EventsFrame): readonly EventsFrame[] {
    const { measure, maxBatchBytes } = this.#options;
    const events = frame.events.map((event) => this.#context.marked(event));
    const frames: EventsFrame[] = [];
    let from = 0;
    let bytes = 0;
    for (const [at, event] of events.entries()) {
      const size = measure(event);
      const before = events[at - 1];
      if (before !== undefined && at > from && bytes + size > maxBatchBytes) {
        // Amid the frame: of no tick that it could be compared with, and outside of what a policy said of the frame's end.
        const cursor = { epoch: frame.cursor.epoch, version: before.version, fingerprint: 0, snapshot: undefined };
        frames.push({ kind: "events", events: events.slice(from, at), cursor, complete: false });
        from = at;
        bytes = 0;
      }
      bytes += size;
    }
    const { cursor, complete } = frame;
    return [...frames, { kind: "events", events: events.slice(from), cursor, complete }];
  }

  #sayClosing(reason: EndedByOthers): void {
    const cursor = this.#cursor;
    // What it has not taken of the last frame comes again.
    this.#queue.length = 0;
    this.#queue.push({ kind: "closing", reason, cursor, retryAfterMs: 0 });
    this.#last = { error: undefined };
    this.#cancelGrace = this.#context.timers.after(CLOSING_GRACE_MS, () => this.#giveUp());
    this.#flush();
  }

  #giveUp(): void {
    this.#queue.length = 0;
    this.#finish(
      new FeedError(
        "SLOW_CONSUMER",
        "The subscription's stream had ended, and its client did not come for `closing`.",
        "Subscribe again: what was not acknowledged comes again.",
        { cursor: encodeCursor(this.#cursor) },
      ),
    );
  }

  #flush(): void {
    const outlet = this.#outlet;
    while (outlet?.ready === true && !this.#ended) {
      const frame = this.#queue.shift();
      if (frame === undefined) {
        break;
      }
      this.#hand(frame);
    }
    if (this.#last !== undefined && this.#queue.length === 0) {
      this.#finish(this.#last.error);
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
      this.#cancelGrace?.();
      this.#context.ended();
    }
  }
}

/** Told to nobody but the feed's own stream. */
function ended(): FeedError {
  return new FeedError("SUBSCRIPTION_FENCED", "The subscription's stream was ended.", "Subscribe again.");
}
