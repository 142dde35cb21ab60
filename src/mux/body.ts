import type { ServerHttp2Stream } from "node:http2";
import { constants } from "node:http2";
import type { BodySink, BodySinkOwner } from "../rpc/hand-off/body-sink.ts";
import type { Outflow } from "./outflow.ts";
import type { StreamWindow } from "./window.ts";

/** Field lines that follow a body. */
export type Trailers = readonly (readonly [name: string, value: string])[];

/** Never written to. */
const NONE: Uint8Array[] = [];

/** What a body needs of its connection. */
export interface BodyHost {
  readonly outflow: Outflow;
  /** Has the connection look after its streams before this turn of the event loop ends. */
  schedule(): void;
  /** The body takes no part any more. */
  detach(body: MuxedBody): void;
  /** Has the library know of a stream window of at least so much. */
  ensureLibraryWindow(window: StreamWindow, bytes: number): void;
}

/**
 * The body of one handed-off stream: what is written waits here until the next turn's batch. The bytes are shared with
 * other streams and only referred to. Fields are plain: thousands of bodies are visited for each event.
 */
export class MuxedBody implements BodySink {
  readonly window: StreamWindow;
  readonly stream: ServerHttp2Stream;
  /** From so many bytes on it is not ready. */
  readonly maxBytes: number;
  /** The head is on the wire and so is everything that was written through the library. */
  open = false;
  /** The message to send next, and how much of it has gone. */
  first: Uint8Array | undefined;
  offset = 0;
  /** What follows it, from `restAt` on. An array of its own only for whom messages have ever met here: most wait idle. */
  rest: Uint8Array[] = NONE;
  restAt = 0;
  /** Bytes that are not in any batch yet. */
  queued = 0;
  /** Bytes that went out and were not acknowledged for this stream. */
  outstanding = 0;
  /** Whether it is among the outflow's ready ones. */
  listed = false;
  full = false;
  ended = false;
  closed = false;
  /** Placeholder bytes that the library has to send yet, to be dropped. */
  carrying = 0;
  /** The last batch that had bytes of it, and how many. */
  batch = 0;
  batchBytes = 0;
  readonly #host: BodyHost;
  readonly #owner: BodySinkOwner;
  #trailers: Trailers | undefined;
  #finishing = false;
  #clearing = false;
  #cleared = false;
  #carried: (() => void) | undefined;

  constructor(host: BodyHost, window: StreamWindow, stream: ServerHttp2Stream, owner: BodySinkOwner, maxBytes: number) {
    this.#host = host;
    this.maxBytes = maxBytes;
    this.window = window;
    this.stream = stream;
    this.#owner = owner;
    stream.on("close", () => {
      this.drop();
      this.#owner.onClosed();
    });
  }

  get ready(): boolean {
    return !this.full;
  }

  get pending(): number {
    return this.queued + (this.batch > this.#host.outflow.batchDone ? this.batchBytes : 0);
  }

  write(bytes: Uint8Array): void {
    if (this.closed || this.ended || bytes.length === 0) {
      return;
    }
    this.#enqueue(bytes);
  }

  end(last: Uint8Array | undefined, trailers: Trailers | undefined): void {
    if (this.closed || this.ended) {
      return;
    }
    this.#trailers = trailers;
    if (last !== undefined && last.length > 0) {
      this.#enqueue(last);
    }
    this.ended = true;
    this.finishWhenSent();
  }

  abort(): void {
    if (!this.closed) {
      this.drop();
      this.stream.close(constants.NGHTTP2_INTERNAL_ERROR);
    }
  }

  /** Forgets what was written: no DATA may follow a reset, a GOAWAY with an error, or the end. */
  drop(): void {
    if (this.closed) {
      return;
    }
    this.closed = true;
    this.#host.outflow.forget(this);
    this.#host.detach(this);
  }

  /** Nothing of what is queued has gone yet. */
  get uncut(): boolean {
    return this.offset === 0 && this.restAt === 0;
  }

  /** The very same messages are queued. */
  sameAs(other: MuxedBody): boolean {
    const { rest } = this;
    if (this.first !== other.first || this.queued !== other.queued || rest.length !== other.rest.length) {
      return false;
    }
    for (let i = 0; i < rest.length; i += 1) {
      if (rest[i] !== other.rest[i]) {
        return false;
      }
    }
    return this.uncut;
  }

  /** Copies all that is queued, of which nothing has gone yet. */
  copyTo(out: Uint8Array, at: number): void {
    let to = at;
    if (this.first !== undefined) {
      out.set(this.first, to);
      to += this.first.length;
    }
    for (const bytes of this.rest) {
      out.set(bytes, to);
      to += bytes.length;
    }
  }

  /** Moves the next `length` bytes of what is queued to `out`. */
  moveTo(out: Uint8Array, at: number, length: number): void {
    let to = at;
    const end = at + length;
    while (to < end) {
      const bytes = this.first;
      if (bytes === undefined) {
        break;
      }
      const count = Math.min(bytes.length - this.offset, end - to);
      const whole = count === bytes.length;
      out.set(whole ? bytes : bytes.subarray(this.offset, this.offset + count), to);
      to += count;
      this.offset += count;
      if (this.offset === bytes.length) {
        this.#next();
      }
    }
    this.queued -= length;
  }

  /** Forgets what is queued. */
  empty(): void {
    this.first = undefined;
    this.offset = 0;
    if (this.rest.length > 0) {
      this.rest.length = 0;
    }
    this.restAt = 0;
    this.queued = 0;
  }

  /** `ready` is true again. */
  announceReady(): void {
    this.full = false;
    this.#owner.onReady();
  }

  /** Opens the way to the wire once the head and everything that was written through the library has gone it. */
  openWhenClear(): void {
    const blocks = 1 + (this.stream.sentInfoHeaders?.length ?? 0);
    if (this.open || this.closed || this.window.headerBlocks < blocks) {
      return;
    }
    if (!this.#cleared && this.stream.writableLength > 0) {
      if (!this.#clearing) {
        this.#clearing = true;
        // Called when the library asks for more than there was. What it had may then still be on its way here, in this turn.
        this.stream.write("", () => {
          setImmediate(() => {
            this.#cleared = true;
            this.openWhenClear();
          });
        });
      }
      return;
    }
    this.open = true;
    this.#host.outflow.list(this);
    this.#host.schedule();
    this.finishWhenSent();
  }

  /** Whether placeholder bytes may be written to its stream. */
  get canCarry(): boolean {
    return this.open && !this.closed && !this.#finishing && this.carrying === 0 && this.stream.writable;
  }

  /** Has the library send `bytes`, which are dropped on their way out. `done` is called once they are. */
  carry(bytes: Uint8Array, done: () => void): void {
    this.carrying = bytes.length;
    this.#carried = done;
    this.secureLibraryWindow();
    this.stream.write(bytes);
  }

  /**
   * Has the library see as much of the stream's window as it needs, for updates are kept from it: room for what it carries,
   * and for one byte at the end. Only where it sees room does it ask for what is to be sent, and learn that this was all.
   */
  secureLibraryWindow(): void {
    const bytes = Math.max(this.carrying, this.#finishing ? 1 : 0);
    if (bytes > 0) {
      this.#host.ensureLibraryWindow(this.window, bytes);
    }
  }

  /** So many placeholder bytes were dropped. */
  carriedSome(bytes: number): void {
    this.carrying = Math.max(0, this.carrying - bytes);
    if (this.carrying === 0) {
      this.#carried?.();
      this.#carried = undefined;
      this.#host.outflow.recheck(this);
      this.#host.schedule();
    }
  }

  /** Lets the library end the stream, once everything before that is out. */
  finishWhenSent(): void {
    if (!this.ended || this.#finishing || this.closed || !this.open || this.queued > 0 || this.carrying > 0) {
      return;
    }
    this.#finishing = true;
    this.secureLibraryWindow();
    const { stream } = this;
    const trailers = this.#trailers;
    if (trailers !== undefined) {
      stream.removeAllListeners("wantTrailers");
      stream.once("wantTrailers", () => this.#sendTrailers(trailers));
    }
    stream.end();
  }

  #next(): void {
    this.offset = 0;
    this.first = this.rest[this.restAt];
    this.restAt += 1;
    if (this.first === undefined) {
      this.rest = NONE;
      this.restAt = 0;
    } else if (this.restAt >= 1_024) {
      this.rest.splice(0, this.restAt);
      this.restAt = 0;
    }
  }

  #sendTrailers(trailers: Trailers): void {
    const fields: Record<string, string | string[]> = {};
    for (const [name, value] of trailers) {
      const before = fields[name];
      fields[name] = before === undefined ? value : Array.isArray(before) ? [...before, value] : [before, value];
    }
    try {
      this.stream.sendTrailers(fields);
    } catch {
      // A name or value that HTTP does not know: a body without its trailers must not look whole.
      this.abort();
    }
  }

  #enqueue(bytes: Uint8Array): void {
    if (this.first === undefined) {
      this.first = bytes;
    } else if (this.rest === NONE) {
      this.rest = [bytes];
    } else {
      this.rest.push(bytes);
    }
    this.queued += bytes.length;
    this.#host.outflow.add(this, bytes.length);
    this.#host.schedule();
  }
}
