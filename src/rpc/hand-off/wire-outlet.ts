import { Code, ConnectError } from "@connectrpc/connect";
import type { Frame } from "../../core/frame.ts";
import type { Outlet, StreamControl } from "../../core/outlet.ts";
import type { StreamTerms } from "../frames.ts";
import type { BodySink, BodySinkOwner } from "./body-sink.ts";
import { type CallProtocol, callEnd, type Trailers } from "./call-end.ts";
import type { FrameEncoder } from "./frame-encoder.ts";
import type { OnStreamEnd } from "./stream-end.ts";

/** What all of them have sent; only rises. */
export interface Traffic {
  messages: number;
  /** Of messages with their prefixes, compressed where they were. */
  bytes: number;
}

/** What the streams of a server have in common. */
export interface WireOutletContext {
  /** What a client is told of anything that a stream ended with. */
  readonly translate: (thrown: unknown) => ConnectError;
  readonly onEnd: OnStreamEnd;
  readonly traffic: Traffic;
  /** Streams that have not ended. */
  readonly open: Set<WireOutlet>;
}

/** What one call has settled on. */
export interface WireTerms {
  readonly protocol: CallProtocol;
  readonly encoder: FrameEncoder;
  readonly terms: StreamTerms;
  /** What the service adds to the end of the call. */
  readonly metadata: Trailers;
}

/**
 * One stream on its way to one client: frames in, bytes out. It is all that is left of a call once it has been handed off,
 * thousands of times over, and what it does for a frame that others have had before it is one call of `BodySink.write`.
 */
export class WireOutlet implements Outlet, BodySinkOwner {
  readonly #context: WireOutletContext;
  readonly #wire: WireTerms;
  #sink: BodySink | undefined;
  #control: StreamControl | undefined;
  /** Until a frame has been compressed, no other is taken. */
  #encoding = false;
  /** What ends it once the frame has been compressed. */
  #ending: { readonly error: unknown } | undefined;
  #ended = false;
  #messages = 0;
  #bytes = 0;
  /** Cancels the client's deadline. */
  #clearDeadline: (() => void) | undefined;

  constructor(wire: WireTerms, context: WireOutletContext) {
    this.#wire = wire;
    this.#context = context;
    context.open.add(this);
  }

  /** In turns, as sockets are written to. */
  get inline(): boolean {
    return false;
  }

  get ready(): boolean {
    return !this.#encoding && this.#sink?.ready === true;
  }

  /**
   * Begins with what Connect has made of the first frame.
   *
   * @param clearDeadline - called as the stream ends
   */
  begin(sink: BodySink, first: Uint8Array, clearDeadline: (() => void) | undefined): void {
    this.#sink = sink;
    this.#clearDeadline = clearDeadline;
    this.#send(first);
  }

  /** Where it says that it is ready again, or that the client is gone. */
  drivenBy(control: StreamControl): void {
    this.#control = control;
  }

  write(frame: Frame): void {
    const known = frame.kind === "events" ? frame.shared?.bytes : undefined;
    if (known !== undefined) {
      this.#send(known);
      return;
    }
    try {
      const bytes = this.#wire.encoder.encode(frame, this.#wire.terms);
      if (bytes instanceof Promise) {
        this.#await(bytes);
      } else {
        this.#send(bytes);
      }
    } catch (error) {
      this.#control?.cancel(error);
    }
  }

  end(error: unknown): void {
    if (this.#encoding) {
      this.#ending = { error };
    } else {
      this.#end(error);
    }
  }

  /** The stream is over before its time: the server ends, or the client's deadline has come. */
  cancel(reason: unknown): void {
    this.#control?.cancel(reason);
  }

  onReady(): void {
    if (!this.#encoding) {
      this.#control?.resume();
    }
  }

  onClosed(): void {
    this.#sink = undefined;
    this.#leave({ outcome: "gone", error: undefined });
    this.#control?.cancel(new ConnectError("The client went away.", Code.Canceled));
    this.#control = undefined;
  }

  #send(bytes: Uint8Array): void {
    this.#messages += 1;
    this.#bytes += bytes.length;
    const { traffic } = this.#context;
    traffic.messages += 1;
    traffic.bytes += bytes.length;
    this.#sink?.write(bytes);
  }

  #await(encoding: Promise<Uint8Array>): void {
    this.#encoding = true;
    encoding.then(
      (bytes) => {
        this.#encoding = false;
        this.#send(bytes);
        this.#goOn();
      },
      (error: unknown) => {
        this.#encoding = false;
        this.#ending = { error };
        this.#goOn();
      },
    );
  }

  #goOn(): void {
    const ending = this.#ending;
    if (ending === undefined) {
      this.#control?.resume();
      return;
    }
    this.#control?.cancel(ending.error);
    this.#end(ending.error);
  }

  #end(thrown: unknown): void {
    if (this.#ended) {
      return;
    }
    const sink = this.#sink;
    const { protocol, encoder, metadata } = this.#wire;
    try {
      const error = thrown === undefined ? undefined : this.#context.translate(thrown);
      const { last, trailers } = callEnd(protocol, error, metadata);
      sink?.end(last && encoder.last(last.flags, last.message), trailers);
      this.#leave({ outcome: error === undefined ? "closed" : "failed", error });
    } catch (fault) {
      sink?.abort();
      this.#leave({ outcome: "failed", error: this.#context.translate(fault) });
    }
  }

  #leave({ outcome, error }: { outcome: "closed" | "failed" | "gone"; error: ConnectError | undefined }): void {
    if (this.#ended) {
      return;
    }
    this.#ended = true;
    this.#clearDeadline?.();
    this.#clearDeadline = undefined;
    this.#context.open.delete(this);
    this.#context.onEnd({ outcome, error, messages: this.#messages, bytes: this.#bytes });
  }
}
