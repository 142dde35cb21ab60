import type { SubscribeResponse } from "../../../gen/millrace/v1/feed_service_pb.js";
import type { Cursor } from "../../core/cursor.ts";
import type { OpenStream } from "../../core/feed.ts";
import type { Frame } from "../../core/frame.ts";
import type { Outlet, StreamControl } from "../../core/outlet.ts";
import { frameFromResponse } from "./received-frame.ts";

/** What a stream is made of that another replica serves. */
export interface ForwardedStreamOptions {
  /** Its first frame, which has come. */
  readonly opened: Frame;
  readonly responses: AsyncIterator<SubscribeResponse>;
  readonly maxBytes: number;
  /** Ends the call. */
  readonly end: (reason: unknown) => void;
  /** What the call ended with, in terms of the core. */
  readonly explain: (error: unknown) => unknown;
}

/**
 * A member's stream that another replica serves. The next frame is asked for when the outlet takes it: what has not been asked
 * for waits in the connection's window, and then at the other replica, where the member counts as one that takes nothing.
 */
export class ForwardedStream implements OpenStream, StreamControl {
  readonly opened: Frame;
  readonly maxBytes: number;
  readonly #options: ForwardedStreamOptions;
  #cursor: Cursor;
  #outlet: Outlet | undefined;
  #pulling = false;
  #ended = false;
  /** Came while the outlet had ceased to take anything. */
  #held: Frame | undefined;

  constructor(options: ForwardedStreamOptions) {
    this.#options = options;
    this.opened = options.opened;
    this.maxBytes = options.maxBytes;
    this.#cursor = options.opened.cursor;
  }

  attach(outlet: Outlet): StreamControl {
    this.#outlet = outlet;
    this.resume();
    return this;
  }

  close(): void {
    if (this.#outlet === undefined) {
      this.#finish(undefined);
    }
  }

  resume(): void {
    if (!this.#pulling && !this.#ended) {
      this.#pulling = true;
      void this.#pull().finally(() => {
        this.#pulling = false;
        if (this.#outlet?.ready === true && !this.#ended) {
          this.resume();
        }
      });
    }
  }

  cancel(reason: unknown): void {
    this.#finish(reason);
  }

  /** The server that passes it on goes down: another one may do so. What is on its way then comes again. */
  drain(retryAfterMs: number): void {
    this.#held = { kind: "closing", reason: "DRAINING", cursor: this.#cursor, retryAfterMs };
    if (this.#outlet?.ready === true && !this.#ended) {
      this.#write(this.#held);
    }
  }

  async #pull(): Promise<void> {
    try {
      while (this.#outlet?.ready === true && !this.#ended) {
        const frame = this.#takeHeld() ?? (await this.#next());
        if (frame === undefined) {
          this.#finish(undefined);
        } else if (this.#outlet.ready) {
          this.#write(frame);
        } else {
          this.#held ??= frame;
        }
      }
    } catch (error) {
      this.#finish(this.#options.explain(error));
    }
  }

  #takeHeld(): Frame | undefined {
    const held = this.#held;
    this.#held = undefined;
    return held;
  }

  async #next(): Promise<Frame | undefined> {
    for (;;) {
      const next = await this.#options.responses.next();
      const frame = next.done === true ? undefined : frameFromResponse(next.value);
      if (frame !== undefined || next.done === true) {
        return frame;
      }
    }
  }

  #write(frame: Frame): void {
    if (this.#ended) {
      return;
    }
    this.#cursor = frame.cursor;
    this.#outlet?.write(frame);
    if (frame.kind === "closing") {
      this.#finish(undefined);
    }
  }

  #finish(error: unknown): void {
    if (!this.#ended) {
      this.#ended = true;
      this.#options.end(error);
      this.#outlet?.end(error);
    }
  }
}
