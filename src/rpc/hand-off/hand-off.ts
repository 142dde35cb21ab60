import type { ServerHttp2Stream } from "node:http2";
import { Code, ConnectError, createContextValues } from "@connectrpc/connect";
import type { UniversalHandler, UniversalServerResponse } from "@connectrpc/connect/protocol";
import { universalResponseToNodeResponse } from "@connectrpc/connect-node";
import type { Clock, Timers } from "../../core/ports.ts";
import { connectErrorFrom } from "../errors.ts";
import { sayPlainGrpcMessages } from "../grpc-message.ts";
import type { RpcLog } from "../log.ts";
import { peerKey } from "../peer.ts";
import type { BodySink, BodySinkOwner } from "./body-sink.ts";
import type { Exchange } from "./exchange.ts";
import { defaultInFlightLimits, type InFlightLimits } from "./in-flight.ts";
import { NodeBodies } from "./node-body.ts";
import { type OfferedStream, Reception, receptionKey } from "./reception.ts";
import type { OnStreamEnd } from "./stream-end.ts";
import { universalRequest } from "./universal-request.ts";
import { type Traffic, WireOutlet, type WireOutletContext } from "./wire-outlet.ts";

/**
 * The body of an HTTP/2 response by other means than Node's; `undefined` where there are none. It takes no more than
 * `maxBytes` at a time.
 */
export type BodyOf = (stream: ServerHttp2Stream, owner: BodySinkOwner, maxBytes: number) => BodySink | undefined;

/** What a hand-off needs. */
export interface HandOffOptions {
  /** Of a method that streams to the client, and whose service knows `receptionKey`. */
  readonly handler: UniversalHandler;
  readonly log: RpcLog;
  readonly clock: Clock;
  readonly timers: Timers;
  /** Ends the streams with its reason. */
  readonly shutdownSignal: AbortSignal;
  /** Default: Node's own responses. */
  readonly bodyOf?: BodyOf | undefined;
  readonly inFlight?: Partial<InFlightLimits> | undefined;
  /** Default: nobody is told. */
  readonly onStreamEnd?: OnStreamEnd | undefined;
  /** Default: nothing is added up. */
  readonly traffic?: Traffic | undefined;
}

/**
 * Lets Connect open a call, and then lets go of Connect.
 *
 * Protocol, codec, compression, validation, interceptors and every failure before the first message are Connect's. Once that
 * message is there, with the headers before it, Connect's pipeline is ended: suspended it would cost each idle stream 40 kB,
 * and each message that went through its chain of generators ten times what everything else costs. From then on the stream
 * belongs to a `WireOutlet`, which also ends the call as Connect would.
 */
export class HandOff {
  readonly #options: HandOffOptions;
  readonly #bodies: NodeBodies;
  readonly #context: WireOutletContext;

  constructor(options: HandOffOptions) {
    const { handler, log, shutdownSignal, traffic = { messages: 0, bytes: 0 } } = options;
    const procedure = `${handler.service.typeName}/${handler.method.name}`;
    this.#options = options;
    this.#bodies = new NodeBodies({ ...defaultInFlightLimits, ...options.inFlight });
    const translate = (thrown: unknown) => connectErrorFrom(thrown, procedure, undefined, log);
    this.#context = { translate, onEnd: options.onStreamEnd ?? (() => undefined), open: new Set(), traffic };
    shutdownSignal.addEventListener("abort", () => this.#endAll(shutdownSignal.reason), { once: true });
  }

  /** Whether it answers calls of this path. */
  takes(path: string | undefined): boolean {
    return path?.split("?", 1)[0] === this.#options.handler.requestPath;
  }

  /** Answers one call. */
  serve(exchange: Exchange): void {
    this.#serve(exchange).catch((error: unknown) => {
      this.#options.log.error({ err: error }, "a call could not be answered");
      exchange.closing.destroy();
    });
  }

  async #serve(exchange: Exchange): Promise<void> {
    const { handler } = this.#options;
    const { closing } = exchange;
    const reception = new Reception();
    const gone = new AbortController();
    const onClose = () => gone.abort(new ConnectError("The client went away.", Code.Canceled));
    closing.once("close", onClose);
    try {
      const values = createContextValues().set(receptionKey, reception).set(peerKey, exchange.peer);
      const answer = await handler(universalRequest(exchange, gone.signal, values));
      const offered = reception.take();
      if (offered === undefined) {
        const response = exchange.response();
        sayPlainGrpcMessages(response);
        await universalResponseToNodeResponse(answer, response);
        return;
      }
      await this.#handOver(answer, offered, exchange, gone.signal);
      closing.off("close", onClose);
    } catch (error) {
      // Nobody is there to be answered, which is nobody's fault here.
      if (!gone.signal.aborted) {
        throw error;
      }
    } finally {
      reception.withdraw();
    }
  }

  async #handOver(
    answer: UniversalServerResponse,
    offered: OfferedStream,
    exchange: Exchange,
    gone: AbortSignal,
  ): Promise<void> {
    const { stream } = offered;
    try {
      const chunks = answer.body?.[Symbol.asyncIterator]();
      const first = await chunks?.next();
      // What is left of the call in Connect ends with this, and nobody waits for it.
      chunks?.return?.().catch(() => undefined);
      if (gone.aborted || first === undefined || first.done === true) {
        stream.close();
        return;
      }
      exchange.writeHead(answer.status, Object.fromEntries(answer.header ?? []), answer.trailer !== undefined);
      this.#take(offered, exchange, first.value);
    } catch (error) {
      stream.close();
      throw error;
    }
  }

  #take(offered: OfferedStream, exchange: Exchange, first: Uint8Array): void {
    const { bodyOf, shutdownSignal } = this.#options;
    const outlet = new WireOutlet(offered.wire, this.#context);
    const { stream } = exchange;
    const { maxBytes } = offered.stream;
    const sink = (stream && bodyOf?.(stream, outlet, maxBytes)) ?? this.#bodies.of(exchange, outlet, maxBytes);
    outlet.begin(sink, first, this.#deadline(outlet, offered.deadlineMs));
    outlet.drivenBy(offered.stream.attach(outlet));
    if (shutdownSignal.aborted) {
      outlet.cancel(shutdownSignal.reason);
    }
  }

  /** The feed says `closing` a moment before; this is for readers that did not let it. */
  #deadline(outlet: WireOutlet, deadlineMs: number | undefined): (() => void) | undefined {
    const { clock, timers } = this.#options;
    if (deadlineMs === undefined) {
      return undefined;
    }
    let cancel: () => void = () => undefined;
    // A timer may fire early: there is a longest time that it can be set for.
    const look = (): void => {
      const remainingMs = deadlineMs - clock.monotonic();
      if (remainingMs > 0) {
        cancel = timers.after(remainingMs, look);
      } else {
        outlet.cancel(new ConnectError("the operation timed out", Code.DeadlineExceeded));
      }
    };
    cancel = timers.after(Math.max(0, deadlineMs - clock.monotonic()), look);
    return () => cancel();
  }

  #endAll(reason: unknown): void {
    for (const outlet of [...this.#context.open]) {
      outlet.cancel(reason);
    }
  }
}
