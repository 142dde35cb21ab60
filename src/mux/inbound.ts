import { flag, frameType, HEAD_BYTES, overflow, PREFACE_BYTES, SETTING_INITIAL_WINDOW, WINDOW_MAX } from "./frame.ts";
import { type Fate, FrameFilter, type FrameVisitor, NOTHING } from "./frame-filter.ts";
import type { Ledger } from "./ledger.ts";

const SETTING_BYTES = 6;
/** The library refuses SETTINGS with more entries at sight of their head. */
const SETTINGS_MAX_BYTES = 32 * SETTING_BYTES;

/**
 * From the peer to the library. Keeps updates of the connection's window and of handed-off streams' from the library, whose
 * belief would otherwise outgrow the truth; a wrong update goes on, or something as wrong, so that the library says what it
 * always says. Everything else goes on as it is, and meets the library's own checks and limits.
 */
export class Inbound implements FrameVisitor {
  readonly #ledger: Ledger;
  readonly #filter: FrameFilter;
  #begun = false;
  /** The first frame is no SETTINGS: the library will refuse the connection. */
  #refused = false;
  /** The stream whose header block is not complete: any frame but its next part is an error, and must look like one. */
  #block = 0;

  constructor(ledger: Ledger) {
    this.#ledger = ledger;
    this.#filter = new FrameFilter(this, PREFACE_BYTES);
  }

  /** Whether a frame may be put between what has gone on and what will. */
  get open(): boolean {
    return this.#begun && !this.#refused && this.#block === 0 && this.#filter.atBoundary;
  }

  push(chunk: Buffer, out: Uint8Array[]): void {
    this.#filter.push(chunk, out);
  }

  head(type: number, flags: number, id: number, length: number): Fate {
    if (!this.#begun) {
      this.#begun = true;
      this.#refused = type !== frameType.settings;
    }
    if (this.#refused) {
      return "pass";
    }
    if (this.#block !== 0) {
      if (type === frameType.continuation && id === this.#block && (flags & flag.endHeaders) !== 0) {
        this.#block = 0;
      }
      return "pass";
    }
    switch (type) {
      case frameType.headers:
        this.#ledger.opened(id);
        this.#block = (flags & flag.endHeaders) === 0 ? id : 0;
        return "pass";
      case frameType.windowUpdate:
        return length === 4 ? "hold" : "pass";
      case frameType.rstStream:
        return length === 4 && this.#ledger.streams.has(id) ? "hold" : "pass";
      case frameType.settings: {
        const wellFormed = id === 0 && (flags & flag.ack) === 0 && length % SETTING_BYTES === 0;
        return wellFormed && length <= SETTINGS_MAX_BYTES ? "hold" : "pass";
      }
      default:
        return "pass";
    }
  }

  held(frame: Buffer): Uint8Array {
    const id = frame.readUInt32BE(5) & WINDOW_MAX;
    switch (frame[3]) {
      case frameType.windowUpdate:
        return this.#windowUpdate(frame, id, frame.readUInt32BE(HEAD_BYTES) & WINDOW_MAX);
      case frameType.settings:
        return this.#settings(frame);
      default:
        this.#ledger.closed(id);
        return frame;
    }
  }

  #windowUpdate(frame: Buffer, id: number, increment: number): Uint8Array {
    if (increment === 0) {
      return frame;
    }
    const { connection, streams, bodies, outflow, schedule } = this.#ledger;
    if (id === 0) {
      if (!connection.grow(increment)) {
        return overflow(0);
      }
      schedule();
      return NOTHING;
    }
    const window = streams.get(id);
    if (window === undefined) {
      return frame;
    }
    window.real += increment;
    const body = bodies.get(id);
    if (body === undefined) {
      window.library += increment;
      return frame;
    }
    if (window.real > WINDOW_MAX) {
      return overflow(id);
    }
    body.outstanding = Math.max(0, body.outstanding - increment);
    outflow.list(body);
    schedule();
    return NOTHING;
  }

  #settings(frame: Buffer): Uint8Array {
    const { streams, bodies, outflow, schedule, initialWindow } = this.#ledger;
    let value = initialWindow;
    for (let at = HEAD_BYTES; at < frame.length; at += SETTING_BYTES) {
      if (frame.readUInt16BE(at) === SETTING_INITIAL_WINDOW) {
        value = frame.readUInt32BE(at + 2);
      }
    }
    if (value === initialWindow || value > WINDOW_MAX) {
      return frame;
    }
    this.#ledger.initialWindow = value;
    const out: Uint8Array[] = [frame];
    for (const window of streams.values()) {
      window.shift(value - initialWindow);
      const body = bodies.get(window.id);
      if (body !== undefined) {
        if (window.real > WINDOW_MAX && window.library <= WINDOW_MAX) {
          out.push(overflow(window.id));
        }
        outflow.list(body);
      }
    }
    schedule();
    return out.length === 1 ? frame : Buffer.concat(out);
  }
}
