import { fromBinary } from "@bufbuild/protobuf";
import type { ClientReadableStream, Metadata, ServiceError } from "@grpc/grpc-js";
import { ErrorCode, ErrorDetailSchema } from "../../gen/millrace/v1/error_pb.js";
import type { SeenEvent } from "../support/checker/seen.ts";
import { hold } from "../support/deadline.ts";
import { createFeedClient } from "../support/recorder/feed-client.ts";
import { type Decoded, seenFrame } from "../support/recorder/frame.ts";

/** An event, and whether a transaction may end with it. */
export interface Followed {
  readonly event: SeenEvent;
  boundary: boolean;
}

/** Codes of gRPC after which a client just comes back. */
const transient = new Set([1, 2, 4, 13, 14]);

/**
 * A client that wants the whole story and believes what the errors tell it: after a fork it takes back what came after it.
 */
export class Follower {
  readonly #port: () => number;
  readonly #stopping = new AbortController();
  readonly log: Followed[] = [];
  /** What happened to it, for complaints. */
  readonly notes: string[] = [];
  #cursor: string | undefined;
  #again: Decoded = { oldest: {} };
  #stream: ClientReadableStream<Decoded> | undefined;
  #running: Promise<void> | undefined;
  #opened = 0;
  #heardAt = 0;
  #lastError: unknown;
  #waiting: { readonly key: string; readonly resolve: () => void }[] = [];

  constructor(port: () => number) {
    this.#port = port;
  }

  start(): this {
    this.#running = this.#run();
    // Told to whoever waits for a marker.
    this.#running.catch(() => undefined);
    return this;
  }

  /** Resolves once a marker with this key, and the whole tick that holds it, has arrived; rejects if it cannot any more. */
  untilMarker(key: string): Promise<void> {
    const arrived = new Promise<void>((resolve) => this.#waiting.push({ key, resolve }));
    this.#look();
    const running = this.#running?.then(() => Promise.reject(new Error("The follower has ended.")));
    return Promise.race([arrived, ...(running === undefined ? [] : [running])]);
  }

  /** For whoever waits for it. */
  findings(): string {
    const { version } = this.log.at(-1)?.event ?? {};
    const boundary = this.log.findLast((one) => one.boundary)?.event.version;
    const quiet = Math.round(performance.now() - this.#heardAt);
    return [
      `follower: ${this.log.length} events up to version ${version}, whole up to ${boundary}, cursor ${this.#cursor}`,
      `  ${this.#opened} streams so far, nothing for ${quiet} ms, the last error ${String(this.#lastError)}`,
      `  next start without cursor ${JSON.stringify(this.#again)}, waited for ${this.#waiting.map(({ key }) => key).join()}`,
      ...this.notes.map((note) => `  ${note}`),
    ].join("\n");
  }

  cut(): void {
    this.#stream?.cancel();
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    this.#stream?.cancel();
    await this.#running?.catch(() => undefined);
  }

  async #run(): Promise<void> {
    while (!this.#stopping.signal.aborted) {
      const client = createFeedClient(this.#port());
      try {
        const method: unknown = Reflect.get(client, "Subscribe");
        if (typeof method !== "function") throw new Error("The service has no Subscribe.");
        const start = this.#cursor === undefined ? this.#again : { after_cursor: this.#cursor };
        const delivery = { checkpoint_interval: { seconds: 0, nanos: 100_000_000 } };
        await this.#follow(method.call(client, { ...start, delivery }));
      } finally {
        client.close();
      }
      await hold(20);
    }
  }

  #follow(stream: ClientReadableStream<Decoded>): Promise<void> {
    this.#stream = stream;
    this.#opened += 1;
    return new Promise((resolve, reject) => {
      stream.on("data", (message: Decoded) => {
        this.#heardAt = performance.now();
        try {
          this.#take(message);
        } catch (cause) {
          stream.cancel();
          reject(cause);
        }
      });
      stream.on("end", resolve);
      stream.on("error", (error: ServiceError) => {
        this.#lastError = error;
        if (transient.has(error.code) || this.#stopping.signal.aborted) return resolve();
        try {
          this.#turn(error);
          resolve();
        } catch (cause) {
          reject(cause);
        }
      });
    });
  }

  #take(message: Decoded): void {
    const frame = seenFrame(message);
    if (frame.kind === "opened") {
      if (this.#cursor === undefined && this.log.length === 0 && frame.version !== 0 && "oldest" in this.#again) {
        throw new Error(`The oldest version is ${frame.version + 1}: the story cannot be followed from its beginning.`);
      }
    }
    if (frame.kind === "events") {
      for (const event of frame.events) this.log.push({ event, boundary: false });
      const last = this.log.at(-1);
      if (last !== undefined) last.boundary = frame.complete;
    }
    if (frame.kind === "checkpoint") {
      const last = this.log.at(-1);
      if (last !== undefined && last.event.version <= frame.version) last.boundary = true;
    }
    if ("cursor" in frame && frame.cursor !== "") this.#cursor = frame.cursor;
    this.#look();
  }

  #look(): void {
    const due = this.#waiting.filter(({ key }) => {
      const at = this.log.findLastIndex(({ event }) => event.topic === "torture.marker" && event.key === key);
      return at >= 0 && this.log.slice(at).some(({ boundary }) => boundary);
    });
    this.#waiting = this.#waiting.filter((one) => !due.includes(one));
    for (const { resolve } of due) resolve();
  }

  /** Another history: goes back to what the two have in common. */
  #turn(error: ServiceError): void {
    const detail = detailOf(error.metadata);
    const last = this.log.at(-1)?.event.version ?? 0;
    this.notes.push(`${error.message} (at ${last}, fork ${String(detail?.forkVersion)})`);
    if (detail?.code === ErrorCode.EPOCH_CHANGED && detail.forkVersion !== undefined) {
      const fork = Number(detail.forkVersion);
      while ((this.log.at(-1)?.event.version ?? 0) > fork) this.log.pop();
      this.#again = { after_version: fork, epoch: detail.epoch };
    } else if (detail?.code === ErrorCode.CURSOR_INVALID || detail?.code === ErrorCode.EPOCH_CHANGED) {
      this.log.length = 0;
      this.#again = { oldest: {} };
    } else {
      throw new Error(`The follower cannot go on: ${error.message}`, { cause: error });
    }
    this.#cursor = undefined;
  }
}

function detailOf(metadata: Metadata) {
  const [status] = metadata.get("grpc-status-details-bin");
  if (!(status instanceof Uint8Array)) return undefined;
  // google.rpc.Status holds an Any: the detail is what follows the type's name.
  const bytes = anyValue(status);
  return bytes === undefined ? undefined : fromBinary(ErrorDetailSchema, bytes);
}

/** The `value` of the first Any in a google.rpc.Status. */
function anyValue(status: Uint8Array): Uint8Array | undefined {
  const any = fieldOf(status, 3);
  return any === undefined ? undefined : fieldOf(any, 2);
}

function fieldOf(message: Uint8Array, number: number): Uint8Array | undefined {
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let shift = 1; ; shift *= 128) {
      const byte = message[at++] ?? 0;
      value += (byte & 127) * shift;
      if (byte < 128) return value;
    }
  };
  while (at < message.length) {
    const tag = varint();
    if ((tag & 7) === 0) {
      varint();
      continue;
    }
    const length = varint();
    if (tag >>> 3 === number) return message.subarray(at, at + length);
    at += length;
  }
  return undefined;
}
