import { SubscribeRequestSchema } from "../../gen/millrace/v1/feed_service_pb.js";
import type { Clock, Timers } from "../core/ports.ts";
import { type Exchange, requestExchange } from "../rpc/hand-off/exchange.ts";
import type { BodyOf } from "../rpc/hand-off/hand-off.ts";
import { defaultInFlightLimits, type InFlightLimits } from "../rpc/hand-off/in-flight.ts";
import { NodeBodies } from "../rpc/hand-off/node-body.ts";
import type { Traffic } from "../rpc/hand-off/wire-outlet.ts";
import type { RpcLog } from "../rpc/log.ts";
import type { NodeRequest, NodeResponse, RpcHandler } from "../rpc/node-call.ts";
import { peerOf } from "../rpc/peer.ts";
import { createRequestCheck, type RequestCheck } from "../rpc/validation.ts";
import { EncoderPool } from "./encoder-pool.ts";
import { type HttpFailure, httpFailureFrom } from "./failure.ts";
import { HttpOutlet, type HttpOutletContext } from "./http-outlet.ts";
import { type OpenedStream, openStream, type StreamSources } from "./open-stream.ts";
import { type EventsQuery, readQuery } from "./query.ts";
import { retryAfterCut } from "./reconnection.ts";
import { allowedMethods, refuse, refuseMethod, unbuffered } from "./refusal.ts";

/** What streams over plain HTTP stand on. */
export interface HttpStreamsOptions extends StreamSources {
  readonly clock: Clock;
  readonly timers: Timers;
  readonly log: RpcLog;
  /** As `RpcHandlerOptions.bodyOf`. */
  readonly bodyOf?: BodyOf | undefined;
  /** As `RpcHandlerOptions.inFlight`. */
  readonly inFlight?: Partial<InFlightLimits> | undefined;
  /** What streams have sent is added up here. */
  readonly traffic: Traffic;
}

/** Streams for those who speak nothing but HTTP. */
export interface HttpStreams {
  /** Of the path `/v1/events`. */
  readonly handler: RpcHandler;
  /** Open ones, by form. */
  counts(): Readonly<Record<"sse" | "ndjson", number>>;
}

/** How often somebody looks for streams that have been silent for too long. */
const BEAT_MS = 1_000;

/** `/v1/events`: server-sent events and lines of JSON, with the same cursors as everything else. */
export function createHttpStreams(options: HttpStreamsOptions): HttpStreams {
  const service = new HttpStreamService(options);
  return {
    handler: (request, response) => service.serve(request, response),
    counts: () => service.counts(),
  };
}

class HttpStreamService {
  readonly #options: HttpStreamsOptions;
  readonly #check: RequestCheck = createRequestCheck();
  readonly #encoders = new EncoderPool();
  readonly #bodies: NodeBodies;
  readonly #context: HttpOutletContext;
  #beating = false;

  constructor(options: HttpStreamsOptions) {
    const { clock, inFlight, traffic, shutdownSignal } = options;
    this.#options = options;
    this.#bodies = new NodeBodies({ ...defaultInFlightLimits, ...inFlight });
    const translate = (thrown: unknown) => this.#failure(thrown);
    this.#context = { translate, random: () => clock.random(), traffic, open: new Set() };
    shutdownSignal.addEventListener("abort", () => this.#endAll(shutdownSignal.reason), { once: true });
  }

  counts(): Readonly<Record<"sse" | "ndjson", number>> {
    const counts = { sse: 0, ndjson: 0 };
    for (const { form } of this.#context.open) {
      counts[form] += 1;
    }
    return counts;
  }

  serve(request: NodeRequest, response: NodeResponse): void {
    response.on("error", () => undefined);
    // Nobody reads a body here, and one that is left lying would hold the connection.
    request.resume();
    const { method } = request;
    if (method === "OPTIONS") {
      response.writeHead(204, { Allow: allowedMethods });
      response.end();
    } else if (method !== "GET" && method !== "HEAD") {
      refuseMethod(response);
    } else {
      void this.#answer(request, response);
    }
  }

  async #answer(request: NodeRequest, response: NodeResponse): Promise<void> {
    const gone = new AbortController();
    const onClose = () => gone.abort();
    response.once("close", onClose);
    try {
      const query = this.#read(request);
      if (request.method === "HEAD") {
        response.writeHead(200, headersOf(query));
        response.end();
        return;
      }
      const peer = peerOf(request);
      const opened = await openStream(query, { ...this.#options, encoders: this.#encoders, peer }, gone.signal);
      if (gone.signal.aborted) {
        opened.stream.close();
        return;
      }
      response.off("close", onClose);
      this.#take(opened, query, requestExchange(request, response));
    } catch (thrown) {
      if (!gone.signal.aborted) {
        const eventSource = /\btext\/event-stream\b/i.test(request.headers.accept ?? "");
        refuse(response, this.#failure(thrown), { eventSource, random: () => this.#options.clock.random() });
      }
    }
  }

  #read(request: NodeRequest): EventsQuery {
    const [, search = ""] = (request.url ?? "").split(/\?(.*)/s, 2);
    const { accept, "last-event-id": header } = request.headers;
    const query = readQuery({
      parameters: new URLSearchParams(search),
      lastEventId: Array.isArray(header) ? header[0] : header,
      accept,
    });
    this.#check(SubscribeRequestSchema, query.request);
    return query;
  }

  #take({ stream, encoder, told }: OpenedStream, query: EventsQuery, exchange: Exchange): void {
    const { bodyOf, shutdownSignal, clock } = this.#options;
    const { maxEvents, checkpoints, form, retryMs, paddingBytes } = query;
    const outlet = new HttpOutlet({ encoder, told, maxEvents, checkpoints }, this.#context);
    exchange.writeHead(200, headersOf(query), false);
    const muxed = exchange.stream && bodyOf?.(exchange.stream, outlet, stream.maxBytes);
    const sink = muxed ?? this.#bodies.of(exchange, outlet, stream.maxBytes);
    const padding = paddingBytes === 0 ? "" : form.comment(" ".repeat(paddingBytes));
    outlet.begin(sink, padding + form.retry(retryMs ?? retryAfterCut(clock.random())), stream.opened);
    outlet.drivenBy(stream.attach(outlet));
    if (shutdownSignal.aborted) {
      outlet.cancel(shutdownSignal.reason);
    }
    this.#beat();
  }

  /** One timer for all, and none where there is no stream. */
  #beat(): void {
    if (this.#beating) {
      return;
    }
    this.#beating = true;
    this.#options.timers.after(BEAT_MS, () => {
      this.#beating = false;
      for (const outlet of this.#context.open) {
        outlet.beat(BEAT_MS);
      }
      if (this.#context.open.size > 0) {
        this.#beat();
      }
    });
  }

  #failure(thrown: unknown): HttpFailure {
    return httpFailureFrom(thrown, this.#options.log);
  }

  #endAll(reason: unknown): void {
    for (const outlet of [...this.#context.open]) {
      outlet.cancel(reason);
    }
  }
}

function headersOf({ form }: EventsQuery): Readonly<Record<string, string>> {
  return {
    "Content-Type": form.contentType,
    "X-Content-Type-Options": "nosniff",
    ...unbuffered,
  };
}
