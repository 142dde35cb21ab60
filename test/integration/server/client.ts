import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { vi } from "vitest";
import { ErrorCode, ErrorDetailSchema } from "../../../gen/millrace/v1/error_pb.js";
import {
  FeedService,
  SubscribeRequestSchema,
  type SubscribeResponse,
} from "../../../gen/millrace/v1/feed_service_pb.js";

const PATIENCE = { timeout: 30_000 };

type Request = MessageInitShape<typeof SubscribeRequestSchema>;

export type FeedClient = ReturnType<typeof grpcClient>;

/** A gRPC client with a connection of its own. */
export function grpcClient(baseUrl: string) {
  return createClient(FeedService, createGrpcTransport({ baseUrl }));
}

/** What a stream was refused or ended with. */
export interface Refusal {
  readonly code: string;
  readonly forkVersion: bigint | undefined;
  readonly epoch: string;
  readonly message: string;
}

/** A subscriber that remembers its events, with the cursor that each was followed by. */
export class Subscriber implements AsyncDisposable {
  readonly versions: bigint[] = [];
  readonly keys: string[] = [];
  readonly cursors = new Map<bigint, string>();
  epoch = "";
  state: number | undefined;
  error: unknown;
  readonly #call = new AbortController();
  readonly #done: Promise<void>;

  constructor(client: FeedClient, start: Request) {
    const delivery = { checkpointInterval: { nanos: 100_000_000 } };
    const request = create(SubscribeRequestSchema, { ...start, delivery } as Request);
    this.#done = this.#run(client.subscribe(request, { signal: this.#call.signal }));
  }

  /** Resolves when this version has come; rejects when the stream ends before. */
  async reaches(version: bigint): Promise<void> {
    await vi.waitUntil(() => this.versions.includes(version) || this.error !== undefined, PATIENCE);
    if (!this.versions.includes(version)) throw this.error;
  }

  async says(state: number): Promise<void> {
    await vi.waitUntil(() => this.state === state || this.error !== undefined, PATIENCE);
    if (this.error !== undefined) throw this.error;
  }

  async refusal(): Promise<Refusal> {
    await vi.waitUntil(() => this.error !== undefined, PATIENCE);
    return refusalFrom(this.error);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#call.abort();
    await this.#done;
  }

  async #run(frames: AsyncIterable<SubscribeResponse>): Promise<void> {
    try {
      for await (const { frame } of frames) {
        if (frame.case === "opened") this.epoch = frame.value.epoch;
        if (frame.case === "checkpoint") {
          this.state = frame.value.state;
          this.cursors.set(frame.value.version, frame.value.cursor);
        }
        if (frame.case !== "events") continue;
        for (const event of frame.value.events) {
          this.versions.push(event.version);
          this.keys.push(event.key ?? "");
        }
        this.cursors.set(frame.value.events.at(-1)?.version ?? 0n, frame.value.cursor);
      }
      this.error = new Error("the stream ended without an error");
    } catch (error) {
      this.error = error;
    }
  }
}

/** Starts again, as long as the server says that it will be there in a moment, until the stream is open or refused. */
export async function resubscribe(client: FeedClient, start: Request): Promise<Subscriber> {
  for (;;) {
    const subscriber = new Subscriber(client, start);
    await vi.waitUntil(() => subscriber.epoch !== "" || subscriber.error !== undefined, PATIENCE);
    if (subscriber.error === undefined || refusalFrom(subscriber.error).code !== "DATABASE_UNAVAILABLE")
      return subscriber;
  }
}

export function refusalFrom(error: unknown): Refusal {
  const detail = error instanceof ConnectError ? error.findDetails(ErrorDetailSchema)[0] : undefined;
  if (detail === undefined) throw error;
  return {
    code: ErrorCode[detail.code] ?? "",
    forkVersion: detail.forkVersion,
    epoch: detail.epoch,
    message: String(error),
  };
}
