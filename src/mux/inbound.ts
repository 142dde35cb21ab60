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
    if (window.real > WINDOW_MAX) {
      return overflow(id);
    }
    const body = bodies.get(id);
    // What was written through the library before the body was handed over is still its to send.
    if (body === undefined || !body.open) {
      window.library += increment;
      return frame;
    }
    body.outstanding = Math.max(0, body.outstanding - increment);
    outflow.list(body);
    schedule();
    return NOTHING;
  }

  #settings(frame: Buffer): Uint8Array {
    const places: number[] = [];
    for (let at = HEAD_BYTES; at < frame.length; at += SETTING_BYTES) {
      if (frame.readUInt16BE(at) === SETTING_INITIAL_WINDOW) {
        places.push(at + 2);
      }
    }
    const last = places.at(-1);
    const value = last === undefined ? WINDOW_MAX + 1 : frame.readUInt32BE(last);
    if (value > WINDOW_MAX) {
      return frame;
    }
    const ledger = this.#ledger;
    // A body's window may look larger to the library than it is. It must not seem to outgrow what the protocol allows.
    const library = Math.min(value, WINDOW_MAX - ledger.libraryExcess());
    if (library !== value) {
      for (const at of places) {
        frame.writeUInt32BE(library, at);
      }
    }
    const out: Uint8Array[] = [frame];
    for (const window of ledger.streams.values()) {
      window.shift(value - ledger.initialWindow, library - ledger.libraryInitialWindow);
      if (window.real > WINDOW_MAX && window.library <= WINDOW_MAX) {
        out.push(overflow(window.id));
      }
    }
    ledger.initialWindow = value;
    ledger.libraryInitialWindow = library;
    for (const body of ledger.bodies.values()) {
      body.secureLibraryWindow();
      ledger.outflow.list(body);
    }
    ledger.schedule();
    return out.length === 1 ? frame : Buffer.concat(out);
  }
}
