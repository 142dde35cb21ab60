import { type ContextKey, createContextKey } from "@connectrpc/connect";
import type { OpenStream } from "../../core/feed.ts";
import type { WireTerms } from "./wire-outlet.ts";

/** A stream that the service has opened, and that somebody else may take over. */
export interface OfferedStream {
  readonly stream: OpenStream;
  readonly wire: WireTerms;
  /** Monotonic milliseconds at which the client gives up; `undefined` when it said nothing. */
  readonly deadlineMs: number | undefined;
}

/** Where the service leaves a stream for whoever listens behind Connect. */
export class Reception {
  #offered: OfferedStream | undefined;

  /** The service has done its part. */
  offer(offered: OfferedStream): void {
    this.#offered = offered;
  }

  /** The offered stream, once: whoever takes it closes it. */
  take(): OfferedStream | undefined {
    const offered = this.#offered;
    this.#offered = undefined;
    return offered;
  }

  /** The call has ended before anybody took the stream, if it has. */
  withdraw(): void {
    this.take()?.stream.close();
  }
}

/** Says to the service that its stream is taken over once it has begun. */
export const receptionKey: ContextKey<Reception | undefined> = createContextKey<Reception | undefined>(undefined, {
  description: "where a stream is taken over",
});
