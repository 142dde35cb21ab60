import { HEAD_BYTES } from "./frame.ts";

/**
 * What becomes of a frame, by its head. `pass`: its bytes go on as they come. `hold`: nothing of it goes on before it is
 * whole; for short frames only. A buffer: goes on in the frame's place, and the payload is dropped.
 */
export type Fate = "pass" | "hold" | Uint8Array;

/** Whoever decides about the frames of one direction. */
export interface FrameVisitor {
  head(type: number, flags: number, streamId: number, length: number): Fate;
  /** A held frame, whole, from its head on. What it returns goes on in its place. */
  held(frame: Buffer): Uint8Array;
}

/** In place of what does not go on. */
export const NOTHING = new Uint8Array(0);

/**
 * Cuts one direction of a connection into frames, wherever its chunks are cut, and passes on what the visitor lets through.
 * Withholds at most a frame's unfinished head and one held frame; everything else goes on in the chunk that it came in, so
 * that the other side meets the head of a wrong frame at once, and memory is bounded.
 */
export class FrameFilter {
  readonly #visitor: FrameVisitor;
  readonly #head = Buffer.alloc(HEAD_BYTES);
  #headBytes = 0;
  /** Payload bytes of the current frame that have not come yet. */
  #left = 0;
  #dropping = false;
  #held: Buffer | undefined;
  #preface: number;

  /** @param preface bytes that come before the first frame */
  constructor(visitor: FrameVisitor, preface: number) {
    this.#visitor = visitor;
    this.#preface = preface;
  }

  /** Whether what went on so far ends where a frame ends: only there may another one be put in. */
  get atBoundary(): boolean {
    return this.#preface === 0 && (this.#left === 0 || this.#dropping || this.#held !== undefined);
  }

  /** Appends to `out` what goes on, in order, without copying it where it passes. */
  push(chunk: Buffer, out: Uint8Array[]): void {
    let at = this.#preface === 0 ? 0 : Math.min(this.#preface, chunk.length);
    this.#preface -= at;
    /** Where the bytes begin that pass and are not in `out` yet. */
    let from = 0;
    while (at < chunk.length) {
      if (this.#left > 0) {
        const end = Math.min(chunk.length, at + this.#left);
        from = this.#payload(chunk, at, end, from, out);
        at = end;
        continue;
      }
      const direct = this.#headBytes === 0 && chunk.length - at >= HEAD_BYTES;
      if (!direct) {
        pass(chunk, from, at, out);
        const taken = Math.min(HEAD_BYTES - this.#headBytes, chunk.length - at);
        chunk.copy(this.#head, this.#headBytes, at, at + taken);
        this.#headBytes += taken;
        at += taken;
        from = at;
        if (this.#headBytes < HEAD_BYTES) {
          return;
        }
        this.#headBytes = 0;
        if (this.#begin(this.#head, 0)) {
          out.push(Buffer.from(this.#head));
        } else {
          this.#instead(out);
        }
      } else if (this.#begin(chunk, at)) {
        at += HEAD_BYTES;
      } else {
        pass(chunk, from, at, out);
        at += HEAD_BYTES;
        from = at;
        this.#instead(out);
      }
    }
    pass(chunk, from, at, out);
  }

  #replacement: Uint8Array = NOTHING;

  /** Takes in the head at `at`. False when it does not go on. */
  #begin(bytes: Buffer, at: number): boolean {
    const length = bytes.readUIntBE(at, 3);
    const fate = this.#visitor.head(
      bytes[at + 3] ?? 0,
      bytes[at + 4] ?? 0,
      bytes.readUInt32BE(at + 5) & 0x7fff_ffff,
      length,
    );
    this.#left = length;
    this.#dropping = false;
    this.#replacement = NOTHING;
    if (fate === "pass") {
      return true;
    }
    if (fate === "hold") {
      const held = Buffer.allocUnsafeSlow(HEAD_BYTES + length);
      bytes.copy(held, 0, at, at + HEAD_BYTES);
      if (length === 0) {
        this.#replacement = this.#visitor.held(held);
      } else {
        this.#held = held;
      }
    } else {
      this.#dropping = true;
      this.#replacement = fate;
    }
    return false;
  }

  #instead(out: Uint8Array[]): void {
    if (this.#replacement.length > 0) {
      out.push(this.#replacement);
    }
  }

  /** Returns where the bytes begin that pass and are not in `out` yet. */
  #payload(chunk: Buffer, at: number, end: number, from: number, out: Uint8Array[]): number {
    const held = this.#held;
    if (held !== undefined) {
      chunk.copy(held, held.length - this.#left, at, end);
    }
    this.#left -= end - at;
    if (held === undefined && !this.#dropping) {
      return from;
    }
    if (held !== undefined && this.#left === 0) {
      this.#held = undefined;
      this.#replacement = this.#visitor.held(held);
      this.#instead(out);
    }
    return end;
  }
}

function pass(chunk: Buffer, from: number, to: number, out: Uint8Array[]): void {
  if (from < to) {
    out.push(from === 0 && to === chunk.length ? chunk : chunk.subarray(from, to));
  }
}
