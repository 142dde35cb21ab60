import { type Client, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { FeedService } from "../../../gen/millrace/v1/feed_service_pb.js";
import { SubscriptionService } from "../../../gen/millrace/v1/subscription_service_pb.js";
import { FeedError } from "../../core/errors.ts";
import type { OpenStream } from "../../core/feed.ts";
import type { ForwardedMember, GroupForwarding } from "../../core/group/group-forwarding.ts";
import type { Clock } from "../../core/ports.ts";
import type { Acknowledgement } from "../../core/subscription/subscriptions.ts";
import { feedErrorFromConnect } from "../errors.ts";
import { FORWARDED, forwardedHeader } from "./forwarded-call.ts";
import { ForwardedStream } from "./forwarded-stream.ts";
import { frameFromResponse } from "./received-frame.ts";

/** What calls are passed on with. */
export interface GroupForwardingOptions {
  readonly clock: Clock;
  /** Name of this machine: an address of its own is no way to a replica on another. See `advertisedUrl`. */
  readonly machine: string;
  /** As `OpenStream.maxBytes`. */
  readonly streamBytes: number;
}

/** The largest there is: what is too large for the member's client is left out where that is known. */
const MAX_MESSAGE_BYTES = 67_108_864;
/** A call that is not answered by then has met nobody. */
const ANSWER_MS = 5_000;
/** A connection that has been still for so long is asked for a sign of life, also while members wait on it. */
const PING_MS = 10_000;
const PING_TIMEOUT_MS = 5_000;

interface Replica {
  readonly session: Http2SessionManager;
  readonly feed: Client<typeof FeedService>;
  readonly subscriptions: Client<typeof SubscriptionService>;
}

/** Passes calls on by gRPC over HTTP/2, one connection for each replica. Close it once nobody uses it. */
export function createGroupForwarding(options: GroupForwardingOptions): GroupForwarding & { close(): void } {
  return new Forwarding(options);
}

class Forwarding implements GroupForwarding {
  readonly #options: GroupForwardingOptions;
  readonly #replicas = new Map<string, Replica>();
  readonly #streams = new Set<ForwardedStream>();

  constructor(options: GroupForwardingOptions) {
    this.#options = options;
  }

  get streams(): number {
    return this.#streams.size;
  }

  drain(retryAfterMs: number): void {
    for (const stream of [...this.#streams]) {
      stream.drain(retryAfterMs);
    }
  }

  async open(url: string, member: ForwardedMember, signal: AbortSignal): Promise<OpenStream> {
    const { feed } = this.#replica(url);
    const { clock, streamBytes } = this.#options;
    const call = new AbortController();
    const onAbort = () => call.abort(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    const late = setTimeout(() => call.abort(), ANSWER_MS);
    const { id } = member;
    const request = {
      start: { case: "subscriptionId" as const, value: id },
      member: member.member ?? "",
      maxMessageBytes: MAX_MESSAGE_BYTES,
    };
    const headers = { [FORWARDED]: forwardedHeader(member, clock) };
    try {
      signal.throwIfAborted();
      const responses = feed.subscribe(request, { signal: call.signal, headers })[Symbol.asyncIterator]();
      const first = await responses.next();
      const opened = first.done === true ? undefined : frameFromResponse(first.value);
      if (opened === undefined) {
        throw new ConnectError("The stream ended before it began.");
      }
      const stream: ForwardedStream = new ForwardedStream({
        opened,
        responses,
        maxBytes: streamBytes,
        end: (reason) => {
          this.#streams.delete(stream);
          call.abort(reason);
        },
        explain: (error) => inTermsOfCore(error, id, url),
      });
      this.#streams.add(stream);
      return stream;
    } catch (error) {
      signal.throwIfAborted();
      throw inTermsOfCore(error, id, url);
    } finally {
      clearTimeout(late);
      signal.removeEventListener("abort", onAbort);
    }
  }

  async acknowledge(url: string, acknowledgement: Acknowledgement, signal: AbortSignal) {
    const { id, generation, member = "", cursor = "", versions, rejections } = acknowledgement;
    const request = {
      subscriptionId: id,
      generation: BigInt(generation),
      member,
      cursor,
      versions: versions.map(BigInt),
      rejections: rejections.map(({ version, reason, giveUp }) => ({ version: BigInt(version), reason, giveUp })),
    };
    const answer = await this.#ask(url, id, signal, (replica, call) =>
      replica.subscriptions.acknowledge(request, call),
    );
    return { cursor: answer.cursor, version: Number(answer.version), accepted: Number(answer.accepted) };
  }

  async replayDeadLetters(
    url: string,
    id: string,
    { versions = [], key }: Parameters<GroupForwarding["replayDeadLetters"]>[2],
    limit: number,
    signal: AbortSignal,
  ) {
    const request = {
      subscriptionId: id,
      versions: versions.map(BigInt),
      limit,
      ...(key === undefined ? {} : { key }),
    };
    const answer = await this.#ask(url, id, signal, (replica, call) =>
      replica.subscriptions.replayDeadLetters(request, call),
    );
    return { replaying: Number(answer.replaying), remaining: Number(answer.remaining) };
  }

  close(): void {
    for (const { session } of this.#replicas.values()) {
      session.abort();
    }
    this.#replicas.clear();
  }

  async #ask<T>(
    url: string,
    id: string,
    signal: AbortSignal,
    call: (
      replica: Replica,
      options: { readonly signal: AbortSignal; readonly timeoutMs: number; readonly headers: Record<string, string> },
    ) => Promise<T>,
  ): Promise<T> {
    try {
      const headers = { [FORWARDED]: "{}" };
      return await call(this.#replica(url), { signal, timeoutMs: 4 * ANSWER_MS, headers });
    } catch (error) {
      signal.throwIfAborted();
      throw inTermsOfCore(error, id, url);
    }
  }

  #replica(address: string): Replica {
    const url = new URL(address);
    const machine = decodeURIComponent(url.hash.slice(1));
    if (machine !== "" && machine !== this.#options.machine) {
      throw new ConnectError(`The address is one of ${machine} alone.`);
    }
    url.hash = "";
    const baseUrl = url.href.replace(/\/+$/, "");
    const known = this.#replicas.get(baseUrl);
    if (known !== undefined) {
      return known;
    }
    const pings = { pingIntervalMs: PING_MS, pingTimeoutMs: PING_TIMEOUT_MS };
    const session = new Http2SessionManager(baseUrl, pings);
    const transport = createGrpcTransport({ baseUrl, sessionManager: session, readMaxBytes: 2 * MAX_MESSAGE_BYTES });
    const replica = {
      session,
      feed: createClient(FeedService, transport),
      subscriptions: createClient(SubscriptionService, transport),
    };
    this.#replicas.set(baseUrl, replica);
    return replica;
  }
}

/** What the other replica said; or that it said nothing. */
function inTermsOfCore(error: unknown, id: string, url: string): unknown {
  const said = error instanceof ConnectError ? feedErrorFromConnect(error) : undefined;
  return (
    said ??
    new FeedError(
      "SUBSCRIPTION_BUSY",
      `Group "${id}" is held by the replica at ${url}, which cannot be reached from this one.`,
      "Try again in a moment: if that replica is gone, another one takes the group up within ten seconds. If it is not, give it an `--advertise-url` that leads to it.",
      { retryAfterMs: 1_000, cause: error },
    )
  );
}
