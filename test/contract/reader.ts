import { type Cursor, encodeCursor } from "../../src/core/cursor.ts";
import type { Event, Operation } from "../../src/core/event.ts";
import type { Feed, Start, StreamRequest } from "../../src/core/feed.ts";
import type { Frame } from "../../src/core/frame.ts";
import { eventBytes } from "../../src/core/page.ts";

const PATIENCE_MS = 20_000;

/** A selector with only what the test cares about. */
export function select(
  topics: readonly string[],
  keys: readonly string[] = [],
  operations: readonly Operation[] = [],
): StreamRequest["selectors"][number] {
  return { topics, keys, operations };
}

export function subscription(options: Partial<StreamRequest> = {}): StreamRequest {
  return {
    start: { kind: "oldest" },
    selectors: [],
    checkpointIntervalMs: 100,
    maxBatchBytes: 1024 * 1024,
    codec: { identity: "test", measure: eventBytes },
    afterTransaction: undefined,
    deadlineMs: undefined,
    ...options,
  };
}

/** The start that goes on after a frame's cursor. */
export function resumeAfter(cursor: Cursor): Start {
  return { kind: "cursor", cursor: encodeCursor(cursor) };
}

/**
 * A client: takes frames as fast as they come, unless told to stand still, and remembers them all.
 */
export class Reader implements AsyncDisposable {
  readonly frames: Frame[] = [];
  /** What the stream ended with; `undefined` while open or after a regular end. */
  error: unknown;
  ended = false;
  readonly #abort = new AbortController();
  readonly #done: Promise<void>;
  #changed = Promise.withResolvers<void>();
  #gate: PromiseWithResolvers<void> | undefined;

  constructor(feed: Pick<Feed, "subscribe">, options: Partial<StreamRequest> = {}) {
    this.#done = this.#run(feed.subscribe(subscription(options), this.#abort.signal));
  }

  get events(): Event[] {
    return this.frames.flatMap((frame) => (frame.kind === "events" ? frame.events : []));
  }

  get versions(): number[] {
    return this.events.map((event) => event.version);
  }

  /** `n` of each event's payload. */
  get values(): unknown[] {
    return this.events.map(payloadValue);
  }

  /** Takes no more frames until `goOn`. */
  standStill(): void {
    this.#gate ??= Promise.withResolvers();
  }

  goOn(): void {
    this.#gate?.resolve();
    this.#gate = undefined;
  }

  /** Resolves once the condition holds; rejects when the stream ends before, or after 20 s, with what was seen. */
  async until(condition: (reader: Reader) => boolean, what: string): Promise<this> {
    const patience = AbortSignal.timeout(PATIENCE_MS);
    const onLate = () => this.#notify();
    patience.addEventListener("abort", onLate, { once: true });
    while (!condition(this)) {
      if (this.ended) {
        throw this.error ?? new Error(`the stream ended before ${what}; it said ${this.#summary()}`);
      }
      if (patience.aborted) {
        throw new Error(`waited in vain for ${what}; it said ${this.#summary()}`);
      }
      await this.#changed.promise;
    }
    patience.removeEventListener("abort", onLate);
    return this;
  }

  async opened(): Promise<Extract<Frame, { kind: "opened" }>> {
    await this.until((reader) => reader.frames.length > 0, "opened");
    const first = this.frames[0];
    if (first?.kind !== "opened") {
      throw new Error(`the first frame is ${first?.kind}`);
    }
    return first;
  }

  async gets(count: number): Promise<this> {
    return await this.until((reader) => reader.events.length >= count, `${count} events`);
  }

  /** A checkpoint at or after this version. */
  async passes(version: number): Promise<this> {
    const passed = (frame: Frame) => frame.kind === "checkpoint" && frame.version >= version;
    return await this.until((reader) => reader.frames.some(passed), `a checkpoint at version ${version}`);
  }

  async end(): Promise<unknown> {
    await this.until((reader) => reader.ended, "its end").catch((error: unknown) => {
      if (!this.ended) {
        throw error;
      }
    });
    return this.error;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#abort.abort(new Error("the reader has gone"));
    this.goOn();
    await this.#done;
  }

  async #run(frames: AsyncIterable<Frame>): Promise<void> {
    try {
      for await (const frame of frames) {
        this.frames.push(frame);
        this.#notify();
        await this.#gate?.promise;
      }
    } catch (error) {
      this.error = error;
    }
    this.ended = true;
    this.#notify();
  }

  #notify(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }

  #summary(): string {
    const said = this.frames.map((frame) => (frame.kind === "events" ? `events(${frame.events.length})` : frame.kind));
    return said.length > 40 ? `${said.slice(0, 40).join(" ")} …` : said.join(" ");
  }
}

export function payloadValue(event: Event): unknown {
  const image = event.after ?? event.before;
  return image === undefined ? undefined : (JSON.parse(new TextDecoder().decode(image)) as { n: unknown }).n;
}
