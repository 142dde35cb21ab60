import { readFileSync } from "node:fs";
import { type Client, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { SubscriptionService } from "../gen/millrace/v1/subscription_service_pb.js";
import { subscribe } from "./wire-client.ts";
import { readBatchCursor, readEvents, readFrame, readLease } from "./wire-reader.ts";

/** Of subscriptions of a server, on a connection of its own. */
export function subscriptionsOf(port: number): Client<typeof SubscriptionService> {
  return createClient(SubscriptionService, createGrpcTransport({ baseUrl: `http://127.0.0.1:${port}` }));
}

export interface ConsumerOptions {
  readonly port: number;
  readonly subscriptions: Client<typeof SubscriptionService>;
  readonly subscriptionId: string;
  /** Of a group; a name is made up. */
  readonly isMember?: boolean;
  /** After so many events, all up to there at once; never when 0. */
  readonly acknowledgeEvery: number;
  readonly onEvents: (count: number) => void;
  readonly onFailure: (error: unknown) => void;
}

/** Reads a subscription, and does nothing else with its events than to acknowledge them, waiting for no answer. */
export class Consumer {
  readonly #options: ConsumerOptions;
  readonly #stream: ReturnType<typeof subscribe>;
  #lease = { generation: 0, member: "" };
  #unsaid = 0;
  #cursor = "";
  readonly #saying = new Set<Promise<unknown>>();

  constructor(options: ConsumerOptions) {
    this.#options = options;
    const { port, subscriptionId, onFailure } = options;
    const start = { case: "subscriptionId" as const, value: subscriptionId };
    this.#stream = subscribe(port, { start }, (message) => this.#take(message));
    this.#stream.ended.catch(onFailure);
  }

  #take(message: Uint8Array): void {
    const { kind, body } = readFrame(message);
    if (kind === 1) this.#lease = readLease(body);
    if (kind !== 2) return;
    const count = readEvents(body, undefined);
    this.#unsaid += count;
    const { acknowledgeEvery, onEvents } = this.#options;
    if (acknowledgeEvery > 0) {
      if (this.#unsaid >= acknowledgeEvery) this.#say(readBatchCursor(body));
      // Bytes are the socket's: what may be said at the end is copied.
      else this.#cursor = readBatchCursor(body);
    }
    onEvents(count);
  }

  #say(cursor: string): void {
    const { subscriptions, subscriptionId, isMember, onFailure } = this.#options;
    const { generation, member } = this.#lease;
    this.#unsaid = 0;
    const saying = subscriptions
      .acknowledge({ subscriptionId, generation: BigInt(generation), cursor, ...(isMember === true && { member }) })
      .catch(onFailure)
      .finally(() => this.#saying.delete(saying));
    this.#saying.add(saying);
  }

  /** Resolves when all that was said is answered. */
  async end(): Promise<void> {
    if (this.#unsaid > 0 && this.#options.acknowledgeEvery > 0) this.#say(this.#cursor);
    await Promise.all(this.#saying);
    this.#stream.cancel();
  }
}

/** User and system time of a process, in ticks of a hundredth of a second. */
export function cpuMs(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8")
    .replace(/^.*\) /, "")
    .split(" ");
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

/** Resident memory of a process, in MiB. */
export function residentMiB(pid: number): number {
  return Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) / 1024;
}
