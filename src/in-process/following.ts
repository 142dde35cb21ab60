import type { Cursor } from "../core/cursor.ts";
import type { OpenStream } from "../core/feed.ts";
import type { Frame } from "../core/frame.ts";
import type { Outlet, StreamControl } from "../core/outlet.ts";

/** One consumer that is called. */
export interface Following extends AsyncDisposable {
  /** Of the last frame that the consumer was called with: where to go on. */
  readonly cursor: Cursor;
  /** No calls until `resume`. What comes meanwhile is not held for it: it lags, and its policy acts. */
  pause(): void;
  resume(): void;
  /** No calls from now on. Idempotent. */
  stop(): void;
  /** Resolves after `stop` and after `closing`; rejects with what the stream ended with, the consumer's own error among it. */
  readonly ended: Promise<void>;
}

/** Calls the consumer with every frame, the first of them before this returns, until the signal says so or it ends. */
export function followStream(stream: OpenStream, consumer: (frame: Frame) => void, signal: AbortSignal): Following {
  const outlet = new Consumer(consumer, stream.opened);
  outlet.begin(stream);
  const onAbort = () => outlet.stop();
  signal.addEventListener("abort", onAbort, { once: true });
  const forget = () => signal.removeEventListener("abort", onAbort);
  outlet.ended.then(forget, forget);
  if (signal.aborted) {
    outlet.stop();
  }
  return outlet;
}

class Consumer implements Outlet, Following {
  /** It is called from within the append that brings what it is called with. */
  readonly inline = true;
  readonly #consumer: (frame: Frame) => void;
  readonly #ended = Promise.withResolvers<void>();
  #cursor: Cursor;
  #paused = false;
  #stopped = false;
  #control: StreamControl | undefined;

  constructor(consumer: (frame: Frame) => void, opened: Frame) {
    this.#consumer = consumer;
    this.#cursor = opened.cursor;
    // Whoever does not ask how it ended shall not be told by the end of the process.
    this.#ended.promise.catch(() => undefined);
  }

  begin(stream: OpenStream): void {
    this.write(stream.opened);
    if (this.#stopped) {
      stream.close();
    } else {
      this.#control = stream.attach(this);
      // Stopped from within a call that `attach` made.
      if (this.#stopped) {
        this.#control.cancel(undefined);
      }
    }
  }

  get ready(): boolean {
    return !this.#paused && !this.#stopped;
  }

  get cursor(): Cursor {
    return this.#cursor;
  }

  get ended(): Promise<void> {
    return this.#ended.promise;
  }

  write(frame: Frame): void {
    try {
      this.#consumer(frame);
      this.#cursor = frame.cursor;
    } catch (error) {
      this.#stop(error);
    }
  }

  end(error: unknown): void {
    this.#stopped = true;
    if (error === undefined) {
      this.#ended.resolve();
    } else {
      this.#ended.reject(error);
    }
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
    this.#control?.resume();
  }

  stop(): void {
    this.#stop(undefined);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.stop();
    await this.ended.catch(() => undefined);
  }

  #stop(reason: unknown): void {
    if (!this.#stopped) {
      this.end(reason);
      this.#control?.cancel(reason);
    }
  }
}
