import { type Client, createClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { type ClosingReason, FeedService, type SubscribeResponse } from "../../../gen/millrace/v1/feed_service_pb.js";
import { SubscriptionService } from "../../../gen/millrace/v1/subscription_service_pb.js";

/** One delivery, as the member saw it. */
export interface Seen {
  readonly member: string;
  readonly key: string;
  readonly version: number;
  readonly attempt: number;
}

/** The clients of one server. */
export interface Connected {
  readonly feed: Client<typeof FeedService>;
  readonly service: Client<typeof SubscriptionService>;
  hangUp(): void;
}

export function connect(port: number): Connected {
  const baseUrl = `http://127.0.0.1:${port}`;
  const sessionManager = new Http2SessionManager(baseUrl);
  const transport = createGrpcTransport({ baseUrl, sessionManager });
  return {
    feed: createClient(FeedService, transport),
    service: createClient(SubscriptionService, transport),
    hangUp: () => sessionManager.abort(),
  };
}

/** A member that processes at once, and acknowledges each frame; it comes again whenever its stream ends. */
export class WorkingMember {
  readonly seen: Seen[] = [];
  readonly closings: ClosingReason[] = [];
  readonly errors: unknown[] = [];
  accepted = 0;
  generation = 0n;
  /** Processes, and says nothing of it. */
  silent = false;
  readonly #name: string;
  readonly #id: string;
  readonly #connect: () => Connected;
  readonly #ending = new AbortController();
  readonly #log: Seen[];

  /** @param log - of all members, in the order of delivery */
  constructor(name: string, id: string, connectTo: () => Connected, log: Seen[]) {
    this.#name = name;
    this.#id = id;
    this.#connect = connectTo;
    this.#log = log;
  }

  /** Until it is told to leave. */
  async work(): Promise<void> {
    while (!this.#ending.signal.aborted) {
      const server = this.#connect();
      try {
        await this.#stream(server);
      } catch (error) {
        this.errors.push(error);
        // Of what waits for the network, not for time: a server that is not there refuses at once.
        await new Promise((resolve) => setImmediate(resolve));
      } finally {
        server.hangUp();
      }
    }
  }

  leave(): void {
    this.#ending.abort();
  }

  async #stream(server: Connected): Promise<void> {
    const call = new AbortController();
    const end = () => call.abort();
    this.#ending.signal.addEventListener("abort", end, { once: true });
    const start = { case: "subscriptionId", value: this.#id } as const;
    try {
      for await (const response of server.feed.subscribe({ start, member: this.#name }, { signal: call.signal })) {
        await this.#take(response, server);
      }
    } finally {
      call.abort();
      this.#ending.signal.removeEventListener("abort", end);
    }
  }

  async #take({ frame }: SubscribeResponse, { service }: Connected): Promise<void> {
    if (frame.case === "opened") {
      this.generation = frame.value.lease?.generation ?? 0n;
    } else if (frame.case === "closing") {
      this.closings.push(frame.value.reason);
    } else if (frame.case === "events") {
      for (const { version, key, attempt } of frame.value.events) {
        const seen = { member: this.#name, key: key ?? "", version: Number(version), attempt: attempt || 1 };
        this.seen.push(seen);
        this.#log.push(seen);
      }
      if (!this.silent) {
        const { cursor } = frame.value;
        const said = { subscriptionId: this.#id, generation: this.generation, member: this.#name, cursor };
        this.accepted += Number((await service.acknowledge(said)).accepted);
      }
    }
  }
}
