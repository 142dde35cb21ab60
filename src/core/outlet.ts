import type { Frame } from "./frame.ts";

/**
 * Where the frames of one stream go: a transport, or a consumer in this process. Its calls are synchronous and do not throw;
 * it may call its stream's control from within them.
 */
export interface Outlet {
  /** Whether it takes a frame now. Once it says no, it calls `StreamControl.resume` as soon as it does again. */
  readonly ready: boolean;
  /**
   * Gets frames from within the append that brings them, instead of in a later turn: for consumers that take less than a
   * microsecond, since everybody waits for them.
   */
  readonly inline: boolean;
  /** Only while it is ready. */
  write(frame: Frame): void;
  /**
   * Nothing follows. `undefined` after `closing`; otherwise what the stream ended with: a `FeedError`, or whatever reason was
   * given to `StreamControl.cancel`. Called once, also after `cancel`, and whether it is ready or not.
   */
  end(error: unknown): void;
}

/** What an outlet tells its stream. Everything is idempotent, and means nothing after the end. */
export interface StreamControl {
  /** The outlet is ready again. */
  resume(): void;
  /** Nobody is there any more, or the time is over. */
  cancel(reason: unknown): void;
}
