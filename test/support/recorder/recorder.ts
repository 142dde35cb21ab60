import { setTimeout as delay } from "node:timers/promises";
import type { Client, ClientReadableStream, ServiceError } from "@grpc/grpc-js";
import { lastCursor } from "../checker/resume.ts";
import type { Recording, SeenCall, SeenFrame } from "../checker/seen.ts";
import { createFeedClient } from "./feed-client.ts";
import { type Decoded, seenFrame } from "./frame.ts";

/** gRPC codes after which a client comes back with its cursor: cancelled by itself, deadline, unavailable, unknown, internal. */
const transient = new Set([1, 2, 4, 13, 14]);

export interface RecorderOptions {
  /** For complaints. */
  readonly client: string;
  /** Asked before each call, so that a client can move to another replica. */
  readonly port: () => number;
  /** Where the first call begins; later ones resume with the last cursor. `{ oldest: {} }`, `{ snapshot: {} }`… */
  readonly start: Decoded;
  /** The rest of the request, for every call. */
  readonly request?: Decoded;
  /** Told each frame as it arrives. */
  readonly onFrame?: (frame: SeenFrame) => void;
}

/** A client that notes every frame and comes back, by its cursor, whenever a call ends. */
export class Recorder {
  readonly #options: RecorderOptions;
  readonly #calls: { from: string | undefined; frames: SeenFrame[] }[] = [];
  readonly #stopping = new AbortController();
  #waiting: { readonly until: (frame: SeenFrame) => boolean; readonly resolve: () => void }[] = [];
  #call: ClientReadableStream<Decoded> | undefined;
  #running: Promise<void> | undefined;
  #version = -1;

  constructor(options: RecorderOptions) {
    this.#options = options;
  }

  /** Everything so far. */
  get recording(): Recording {
    return { client: this.#options.client, calls: this.#calls satisfies SeenCall[] };
  }

  /** Version of the last tick boundary that arrived; -1 before the first. */
  get version(): number {
    return this.#version;
  }

  /** Begins; resolves with the first frame. */
  async start(): Promise<this> {
    const opened = this.until((frame) => frame.kind === "opened");
    this.#running = this.#run();
    await Promise.race([opened, this.#running]);
    return this;
  }

  /** Resolves with the next frame that is meant. Rejects never: a test's timeout ends it. */
  until(meant: (frame: SeenFrame) => boolean): Promise<void> {
    return new Promise((resolve) => this.#waiting.push({ until: meant, resolve }));
  }

  /** Resolves once everything up to this version arrived, and the tick that holds it is whole. */
  untilVersion(version: number): Promise<void> {
    if (this.#version >= version) return Promise.resolve();
    return this.until(() => this.#version >= version);
  }

  /** Ends the current call as a lost connection would; the next begins at once. */
  cut(): void {
    this.#call?.cancel();
  }

  /** Ends for good and rejects with what a client cannot recover from, if that came. */
  async stop(): Promise<Recording> {
    this.#stopping.abort();
    this.#call?.cancel();
    await this.#running;
    return this.recording;
  }

  async #run(): Promise<void> {
    while (!this.#stopping.signal.aborted) {
      const client = createFeedClient(this.#options.port());
      try {
        await this.#subscribe(client);
      } finally {
        client.close();
      }
      await delay(20, undefined, { signal: this.#stopping.signal }).catch(() => {});
    }
  }

  #subscribe(client: Client): Promise<void> {
    const cursor = this.#calls.map(lastCursor).findLast((known) => known !== undefined);
    const call = { from: cursor, frames: [] as SeenFrame[] };
    const start = cursor === undefined ? this.#options.start : { after_cursor: cursor };
    const request = { ...start, ...this.#options.request };
    this.#calls.push(call);
    return new Promise((resolve, reject) => {
      const stream = subscribe(client, request);
      this.#call = stream;
      stream.on("data", (message: Decoded) => this.#take(call.frames, seenFrame(message)));
      stream.on("error", (error: ServiceError) => {
        if (transient.has(error.code)) resolve();
        else reject(new Error(`${this.#options.client}: ${error.message}`));
      });
      stream.on("end", resolve);
      if (this.#stopping.signal.aborted) stream.cancel();
    });
  }

  #take(frames: SeenFrame[], frame: SeenFrame): void {
    frames.push(frame);
    if (frame.kind === "events" && frame.complete) this.#reach(frame.events.at(-1)?.version);
    if (frame.kind === "checkpoint" && frame.state !== "SNAPSHOT") this.#reach(frame.version);
    if (frame.kind === "snapshot_complete") this.#reach(frame.version);
    this.#options.onFrame?.(frame);
    const due = this.#waiting.filter(({ until }) => until(frame));
    if (due.length === 0) return;
    this.#waiting = this.#waiting.filter((one) => !due.includes(one));
    for (const { resolve } of due) resolve();
  }

  #reach(version: number | undefined): void {
    this.#version = Math.max(this.#version, version ?? -1);
  }
}

function subscribe(client: Client, request: Decoded): ClientReadableStream<Decoded> {
  const method: unknown = Reflect.get(client, "Subscribe");
  if (typeof method !== "function") throw new Error("The service has no Subscribe.");
  return method.call(client, request);
}
