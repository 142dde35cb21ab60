import { encodeCursor } from "../core/cursor.ts";
import { cursorAfter } from "../core/event-cursor.ts";
import type { Frame } from "../core/frame.ts";
import type { Outlet, StreamControl } from "../core/outlet.ts";
import type { Thinned } from "../core/policy/policy.ts";
import type { BodySink, BodySinkOwner } from "../rpc/hand-off/body-sink.ts";
import type { Traffic } from "../rpc/hand-off/wire-outlet.ts";
import type { HttpFailure } from "./failure.ts";
import type { OtherFrame, ToldTerms } from "./frame-text.ts";
import { retryAfterClosing } from "./reconnection.ts";
import type { FrameTextEncoder } from "./text-encoder.ts";

/** What the streams of a server have in common. */
export interface HttpOutletContext {
  /** What a client is told of anything that a stream ended with. */
  readonly translate: (thrown: unknown) => HttpFailure;
  /** Uniform in [0, 1): jitter. */
  readonly random: () => number;
  readonly traffic: Traffic;
  /** Streams that have not ended. */
  readonly open: Set<HttpOutlet>;
}

/** What one stream has settled on. */
export interface HttpOutletTerms {
  readonly encoder: FrameTextEncoder;
  readonly told: ToldTerms;
  /** Events after which it ends; `undefined` for never. */
  readonly maxEvents: number | undefined;
  /** Whether `opened` and checkpoints are told. */
  readonly checkpoints: boolean;
}

/** Checkpoints come within an interval and a tenth: a client that got none for longer is told that the stream lives. */
const SILENT_INTERVALS = 1.25;

/** One stream on its way to one client over plain HTTP: frames in, text out. */
export class HttpOutlet implements Outlet, BodySinkOwner {
  readonly #context: HttpOutletContext;
  readonly #terms: HttpOutletTerms;
  #sink: BodySink | undefined;
  #control: StreamControl | undefined;
  #thinned: Thinned | undefined;
  #left: number;
  #ended = false;
  #spoke = false;
  #silentMs = 0;

  constructor(terms: HttpOutletTerms, context: HttpOutletContext) {
    this.#terms = terms;
    this.#context = context;
    this.#left = terms.maxEvents ?? Number.POSITIVE_INFINITY;
    context.open.add(this);
  }

  /** `sse` or `ndjson`. */
  get form(): "sse" | "ndjson" {
    return this.#terms.encoder.form.name;
  }

  /** In turns, as sockets are written to. */
  get inline(): boolean {
    return false;
  }

  get ready(): boolean {
    return this.#sink?.ready === true;
  }

  /** Begins with this text, if there is any, and the first frame. */
  begin(sink: BodySink, preamble: string, first: Frame): void {
    this.#sink = sink;
    this.#say(preamble);
    this.write(first);
  }

  /** Where it says that it is ready again, or that the client is gone. */
  drivenBy(control: StreamControl): void {
    this.#control = control;
  }

  write(frame: Frame): void {
    if (this.#ended) {
      return;
    }
    try {
      if (frame.kind === "events") {
        this.#events(frame);
      } else {
        this.#other(frame);
      }
      this.#thinned = frame.cursor.thinned ?? this.#thinned;
    } catch (error) {
      this.#control?.cancel(error);
    }
  }

  end(error: unknown): void {
    if (error === undefined) {
      this.#end("");
    } else if (!this.#ended) {
      const { form } = this.#terms.encoder;
      const { fields, cursor, retryAfterMs } = this.#context.translate(error);
      const again = form.retry(retryAfterMs * (1 + this.#context.random()));
      this.#end(again + form.other("error", fields, cursor));
    }
  }

  /** The stream is over before its time: the server ends. */
  cancel(reason: unknown): void {
    this.#control?.cancel(reason);
  }

  /** So much time has gone by; says so to a client that has heard nothing for too long, and takes something. */
  beat(passedMs: number): void {
    this.#silentMs = this.#spoke ? 0 : this.#silentMs + passedMs;
    this.#spoke = false;
    const { checkpoints, told, encoder } = this.#terms;
    const intervalMs = told.checkpointIntervalMs * (checkpoints ? SILENT_INTERVALS : 1);
    if (this.#silentMs >= intervalMs && this.ready) {
      this.#silentMs = 0;
      this.#say(encoder.form.comment(" the stream lives"));
    }
  }

  onReady(): void {
    this.#control?.resume();
  }

  onClosed(): void {
    this.#sink = undefined;
    this.#leave();
    this.#control?.cancel(undefined);
    this.#control = undefined;
  }

  #events(frame: Extract<Frame, { kind: "events" }>): void {
    const { encoder } = this.#terms;
    const count = frame.events.length;
    if (count < this.#left) {
      this.#left -= count;
      this.#send(encoder.events(frame, this.#thinned));
      return;
    }
    this.#send(encoder.firstEvents(frame, this.#left, this.#thinned));
    const cursor = encodeCursor(cursorAfter(frame, this.#left - 1, this.#thinned));
    this.#end(encoder.form.other("closing", { reason: "MAX_EVENTS" }, cursor));
    this.#control?.cancel(undefined);
  }

  #other(frame: OtherFrame): void {
    const { encoder, told, checkpoints } = this.#terms;
    const { form } = encoder;
    if (!checkpoints && (frame.kind === "opened" || frame.kind === "checkpoint")) {
      return;
    }
    const again = frame.kind === "closing" ? form.retry(retryAfterClosing(frame, this.#context.random())) : "";
    this.#say(again + encoder.other(frame, told));
  }

  #say(text: string): void {
    if (text !== "") {
      this.#send(Buffer.from(text));
    }
  }

  #send(bytes: Uint8Array): void {
    this.#spoke = true;
    const { traffic } = this.#context;
    traffic.messages += 1;
    traffic.bytes += bytes.length;
    this.#sink?.write(bytes);
  }

  #end(last: string): void {
    if (this.#ended) {
      return;
    }
    this.#leave();
    this.#sink?.end(last === "" ? undefined : Buffer.from(last), undefined);
  }

  #leave(): void {
    this.#ended = true;
    this.#context.open.delete(this);
  }
}
