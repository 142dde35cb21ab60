import { INITIAL_WINDOW, WINDOW_MAX } from "./frame.ts";

/** Most of a connection's window that the library is left to use by itself. More would take longer to take back. */
const LIBRARY_MAX = 262_144;

/** What is not left to the library by parts. */
const RETURN_MIN = 4_096;

/**
 * The window of a connection, shared between the library, which cannot be told of bytes that others send, and the streams
 * whose DATA frames are written beside it. The library is let know of a part only: what it believes never exceeds what the
 * peer allows, so whatever it sends may go out at once and in the order in which it encoded its headers.
 *
 * Updates of the peer are kept from the library, and it is credited its part. What it has been credited it gives back only
 * by sending: bytes are written to a stream of ours through it, and dropped on their way out (`Carrier`).
 */
export class ConnectionWindow {
  /** What the peer takes now. */
  real = INITIAL_WINDOW;
  /** The part of it that the library knows of. */
  library = INITIAL_WINDOW;
  /** The largest that `real` ever was: how much the peer is ready to hold at once. */
  size = INITIAL_WINDOW;
  /** How often it was updated. */
  updates = 0;
  /** The library has sent all that it knew it might; it may have more. */
  hungry = false;

  /** What streams may take that are written beside the library. */
  get ours(): number {
    return this.real - this.library;
  }

  /** False when the window would exceed what the protocol allows. */
  grow(increment: number): boolean {
    if (this.real + increment > WINDOW_MAX) {
      return false;
    }
    this.real += increment;
    this.updates += 1;
    if (this.real > this.size) {
      this.size = this.real;
    }
    return true;
  }

  /** The library has sent so much. */
  librarySent(bytes: number): void {
    this.real -= bytes;
    this.library -= bytes;
    this.hungry = this.library === 0;
  }

  /**
   * What to credit the library with now; it counts as credited. All of the window where nobody else wants it, half where
   * others sleep, a quarter where they wait: and in large portions, for each is a frame.
   */
  credit(others: "none" | "idle" | "waiting"): number {
    const divisor = others === "none" ? 1 : others === "idle" ? 2 : 4;
    const part = Math.min(LIBRARY_MAX, Math.ceil(this.real / divisor));
    if (this.library * 2 > part || part === 0) {
      return 0;
    }
    const credit = part - this.library;
    this.library = part;
    return credit;
  }

  /** How much the library should give back, so that others can go on: all but a quarter, as far as that is worth a frame. */
  get returnable(): number {
    return this.library > RETURN_MIN ? this.library - (this.library >>> 2) : this.library;
  }
}

/** The window of one stream. Once the stream's body is written beside the library, its updates are kept from the library. */
export class StreamWindow {
  readonly id: number;
  /** What the peer takes now; negative after it made the initial window smaller. */
  real: number;
  /** What the library believes. */
  library: number;
  /** Complete header blocks that went out: informational ones and the response's. */
  headerBlocks = 0;

  constructor(id: number, real: number, library: number) {
    this.id = id;
    this.real = real;
    this.library = library;
  }

  /** The library has sent so much. */
  librarySent(bytes: number): void {
    this.real -= bytes;
    this.library -= bytes;
  }

  /** The peer changed the initial window of all its streams, and the library was told the same, or less. */
  shift(real: number, library: number): void {
    this.real += real;
    this.library += library;
  }
}
