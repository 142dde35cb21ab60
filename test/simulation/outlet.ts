import type { Frame } from "../../src/core/frame.ts";
import type { Outlet, StreamControl } from "../../src/core/outlet.ts";
import type { VirtualTime } from "./virtual-time.ts";

/** How a client takes what comes. */
export interface Appetite {
  /** Frames that may be on their way; then it takes no more until it has taken them. */
  readonly capacity: number;
  /** So long it takes over them; infinity for a client that is stuck. */
  readonly takesMs: number;
}

/** Always ready. */
export const FAST: Appetite = { capacity: Number.POSITIVE_INFINITY, takesMs: 0 };

/** Whom an outlet tells. */
export interface Consumer {
  take(frame: Frame): void;
  ended(error: unknown): void;
  object(text: string): void;
}

/** A transport that is as fast as its client. */
export class SeededOutlet implements Outlet {
  readonly inline: boolean;
  control: StreamControl | undefined;
  readonly #time: VirtualTime;
  readonly #consumer: Consumer;
  #appetite: Appetite;
  #underway = 0;
  #readySinceMs: number;
  #ended = false;
  #cancelTaking: (() => void) | undefined;

  constructor(
    time: VirtualTime,
    consumer: Consumer,
    options: { readonly inline: boolean; readonly appetite: Appetite },
  ) {
    this.#time = time;
    this.#consumer = consumer;
    this.#appetite = options.appetite;
    this.inline = options.inline;
    this.#readySinceMs = time.nowMs;
  }

  get ready(): boolean {
    return this.#underway < this.#appetite.capacity;
  }

  /** Infinity while it is not. */
  get readySinceMs(): number {
    return this.ready ? this.#readySinceMs : Number.POSITIVE_INFINITY;
  }

  get appetite(): Appetite {
    return this.#appetite;
  }

  set appetite(appetite: Appetite) {
    const was = this.ready;
    this.#appetite = appetite;
    this.#cancelTaking?.();
    this.#cancelTaking = undefined;
    this.#await();
    this.#resumeUnless(was);
  }

  write(frame: Frame): void {
    if (!this.ready || this.#ended) {
      this.#consumer.object(`a ${frame.kind} frame was written while the client took none, or after the end`);
    }
    this.#underway += 1;
    this.#await();
    this.#consumer.take(frame);
  }

  end(error: unknown): void {
    if (this.#ended) {
      this.#consumer.object("the stream ended twice");
    }
    this.#ended = true;
    this.#cancelTaking?.();
    this.#consumer.ended(error);
  }

  #await(): void {
    const { takesMs } = this.#appetite;
    if (this.#underway === 0 || this.#cancelTaking !== undefined || takesMs === Number.POSITIVE_INFINITY) {
      return;
    }
    if (takesMs === 0) {
      this.#underway = 0;
      return;
    }
    this.#cancelTaking = this.#time.after(takesMs, () => {
      this.#cancelTaking = undefined;
      const was = this.ready;
      this.#underway = 0;
      this.#resumeUnless(was);
    });
  }

  #resumeUnless(wasReady: boolean): void {
    if (!wasReady && this.ready && !this.#ended) {
      this.#readySinceMs = this.#time.nowMs;
      this.control?.resume();
    }
  }
}
