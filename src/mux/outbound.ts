import { endOfStream, flag, frameType, HEAD_BYTES, WINDOW_MAX } from "./frame.ts";
import { type Fate, FrameFilter, type FrameVisitor, NOTHING } from "./frame-filter.ts";
import type { Ledger } from "./ledger.ts";

/** Longest GOAWAY that is read before it goes on; the library's own carry little besides the code. */
const GOAWAY_MAX_BYTES = 1_024;

/**
 * From the library to the peer. All of it goes on at once and in order, header blocks above all, for each depends on those
 * before it; but the placeholder bytes with which the library gives window back are dropped.
 */
export class Outbound implements FrameVisitor {
  readonly #ledger: Ledger;
  readonly #filter: FrameFilter;
  /** The stream whose header block is not complete. */
  #block = 0;
  /** Its END_STREAM came with its first part. */
  #blockEnds = false;

  constructor(ledger: Ledger) {
    this.#ledger = ledger;
    this.#filter = new FrameFilter(this, 0);
  }

  /** Whether a frame may be put between what has gone on and what will. */
  get open(): boolean {
    return this.#block === 0 && this.#filter.atBoundary;
  }

  push(chunk: Buffer, out: Uint8Array[]): void {
    this.#filter.push(chunk, out);
  }

  head(type: number, flags: number, id: number, length: number): Fate {
    switch (type) {
      case frameType.data:
        return this.#data(id, length, (flags & flag.endStream) !== 0);
      case frameType.headers:
        this.#block = id;
        this.#blockEnds = (flags & flag.endStream) !== 0;
        this.#blockPart(flags);
        return "pass";
      case frameType.continuation:
        this.#blockPart(flags);
        return "pass";
      case frameType.rstStream:
        this.#ledger.closed(id);
        return "pass";
      case frameType.goaway:
        if (length > GOAWAY_MAX_BYTES) {
          this.#ledger.abandoned();
          return "pass";
        }
        return "hold";
      default:
        return "pass";
    }
  }

  held(frame: Buffer): Uint8Array {
    this.#ledger.lastAnswered = frame.readUInt32BE(HEAD_BYTES) & WINDOW_MAX;
    this.#ledger.goawayCode = frame.readUInt32BE(HEAD_BYTES + 4);
    if (this.#ledger.goawayCode !== 0) {
      this.#ledger.abandoned();
    }
    return frame;
  }

  #data(id: number, length: number, ends: boolean): Fate {
    const { connection, streams, bodies } = this.#ledger;
    const window = streams.get(id);
    const body = bodies.get(id);
    if (body !== undefined && body.carrying > 0 && length > 0) {
      connection.library -= length;
      body.window.library -= length;
      body.carriedSome(length);
      if (!ends) {
        return NOTHING;
      }
      this.#ledger.closed(id);
      return endOfStream(id);
    }
    connection.librarySent(length);
    window?.librarySent(length);
    if (ends) {
      this.#ledger.closed(id);
    }
    if (length > 0) {
      this.#ledger.schedule();
    }
    return "pass";
  }

  #blockPart(flags: number): void {
    if ((flags & flag.endHeaders) === 0) {
      return;
    }
    const id = this.#block;
    this.#block = 0;
    if (this.#blockEnds) {
      this.#ledger.closed(id);
      return;
    }
    const window = this.#ledger.streams.get(id);
    if (window !== undefined) {
      window.headerBlocks += 1;
      this.#ledger.bodies.get(id)?.openWhenClear();
    }
  }
}
