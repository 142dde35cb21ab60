import { type ConnectRouter, createContextValues, createRouterTransport, type Transport } from "@connectrpc/connect";
import type { UniversalHandler } from "@connectrpc/connect/protocol";
import { compressionGzip, connectNodeAdapter } from "@connectrpc/connect-node";
import { Health } from "../../gen/grpc/health/v1/health_pb.js";
import { file_millrace_v1_error } from "../../gen/millrace/v1/error_pb.js";
import { FeedService } from "../../gen/millrace/v1/feed_service_pb.js";
import { SourceService } from "../../gen/millrace/v1/source_service_pb.js";
import { SubscriptionService } from "../../gen/millrace/v1/subscription_service_pb.js";
import { systemTimers } from "../core/clock.ts";
import { withConditionalGet } from "./conditional-get.ts";
import { withoutEndlessTimeouts } from "./endless-timeouts.ts";
import { createFailureInterceptor } from "./failures.ts";
import { createFeedService, type FeedServiceOptions } from "./feed-service.ts";
import { createForwardedInterceptor } from "./forward/forwarded-call.ts";
import { withPlainGrpcMessages } from "./grpc-message.ts";
import { requestExchange, streamExchange } from "./hand-off/exchange.ts";
import { type BodyOf, HandOff } from "./hand-off/hand-off.ts";
import type { InFlightLimits } from "./hand-off/in-flight.ts";
import type { OnStreamEnd } from "./hand-off/stream-end.ts";
import type { Traffic } from "./hand-off/wire-outlet.ts";
import { addHealth } from "./health.ts";
import type { RpcLog } from "./log.ts";
import type { RpcHandler, StreamHandler } from "./node-call.ts";
import { peerFromHeader, peerKey, peerOf } from "./peer.ts";
import { addReflection } from "./reflection.ts";
import { withSpokenRefusals } from "./refusals.ts";
import { createSourceService, type SourceServiceOptions } from "./source-service.ts";
import { createSubscriptionService } from "./subscription-service.ts";
import { withAnswers } from "./unanswered.ts";
import { withReadableErrors } from "./unreadable.ts";
import { createValidationInterceptor } from "./validation.ts";

export type { RpcHandler, StreamHandler } from "./node-call.ts";

/** What the services stand on. */
export interface RpcHandlerOptions extends Omit<FeedServiceOptions, "compressMinBytes"> {
  readonly log: RpcLog;
  /** Largest request message, in bytes, after decompression. */
  readonly maxRequestBytes: number;
  /**
   * Whether to compress messages for clients that take gzip. Most clients say they do without being asked, and gzip costs
   * more than everything else that happens to an event: worth it across a slow link only.
   */
  readonly compress: boolean;
  /** Ends what is still open once the streams have drained: watches of health, reflection. */
  readonly shutdownSignal: AbortSignal;
  /** Answers whatever is no RPC. */
  readonly fallback: RpcHandler;
  /**
   * Whether streams leave Connect's pipeline once they are open, which is what makes them fast and small. Without it
   * everything is the same to clients. Default true.
   */
  readonly handOff?: boolean;
  /** Bodies of handed-off streams by other means than Node's responses. Default: none. */
  readonly bodyOf?: BodyOf | undefined;
  /** What handed-off streams may have in flight. Default: `defaultInFlightLimits`. */
  readonly inFlight?: Partial<InFlightLimits> | undefined;
  /** Told how each handed-off stream ended: to interceptors its call has ended with the hand-off. */
  readonly onStreamEnd?: OnStreamEnd | undefined;
  /** What handed-off streams have sent is added up here. */
  readonly traffic?: Traffic | undefined;
  /** What SourceService stands on. Default: it is not served. */
  readonly sources?: SourceServiceOptions | undefined;
}

/** Above any message: Connect compresses nothing, but still reads what clients compressed. */
const NEVER = 2 ** 32 - 1;
const COMPRESS_MIN_BYTES = 1024;

/** What the server does with whatever reaches it. */
export interface RpcHandlers {
  /** Of Node's request listeners: answers everything. */
  readonly request: RpcHandler;
  /** Of bare HTTP/2 streams: false when it leaves this one to `request`. */
  readonly stream: StreamHandler;
  /** The same services for callers within this process, without a wire; `peerHeader` says for whom. */
  readonly local: Transport;
}

/** gRPC, gRPC-Web and Connect (binary and JSON) for FeedService, health and reflection. */
export function createRpcHandlers(options: RpcHandlerOptions): RpcHandlers {
  const compressMinBytes = options.compress ? COMPRESS_MIN_BYTES : undefined;
  const { subscriptions } = options;
  const feedService = createFeedService({ ...options, compressMinBytes });
  const services = (router: ConnectRouter): void => {
    router.service(FeedService, feedService);
    if (subscriptions !== undefined) {
      router.service(SubscriptionService, createSubscriptionService({ ...options, subscriptions }));
    }
    if (options.sources !== undefined) router.service(SourceService, createSourceService(options.sources));
  };
  const common = {
    interceptors: [
      createFailureInterceptor(options.log),
      createValidationInterceptor(),
      ...(subscriptions === undefined ? [] : [createForwardedInterceptor(subscriptions)]),
    ],
    readMaxBytes: options.maxRequestBytes,
    shutdownSignal: options.shutdownSignal,
  };
  let subscribe: UniversalHandler | undefined;
  const handler = connectNodeAdapter({
    ...common,
    routes(router: ConnectRouter) {
      services(router);
      const sourceService = options.sources === undefined ? [] : [SourceService];
      addHealth(router, options.feed);
      const subscriptionService = subscriptions === undefined ? [] : [SubscriptionService];
      addReflection(router, [FeedService, ...subscriptionService, ...sourceService, Health], [file_millrace_v1_error]);
      router.handlers.splice(
        0,
        router.handlers.length,
        ...router.handlers
          .map(withReadableErrors)
          .map(withSpokenRefusals)
          .map(withoutEndlessTimeouts)
          .map(withConditionalGet)
          .map((one) => withAnswers(one, options.log)),
      );
      subscribe = router.handlers.find(({ method }) => method === FeedService.method.subscribe);
    },
    contextValues: (request) => createContextValues().set(peerKey, peerOf(request)),
    // A misspelt field that is ignored is a selector that selects everything.
    jsonOptions: { ignoreUnknownFields: false },
    acceptCompression: [compressionGzip],
    compressMinBytes: compressMinBytes ?? NEVER,
    fallback: options.fallback,
  });
  const stock = namingHost(withPlainGrpcMessages(handler));
  const interceptors = [peerFromHeader, ...common.interceptors];
  const local = createRouterTransport(services, { router: { ...common, interceptors } });
  return subscribe === undefined || options.handOff === false
    ? { request: stock, stream: () => false, local }
    : { ...handingOff(subscribe, stock, options), local };
}

/**
 * HTTP/1.0 and HTTP/2 let a request name no host, and anybody can name one that is none. Connect throws then, which nobody would
 * catch; and asks it for nothing.
 */
function namingHost(handler: RpcHandler): RpcHandler {
  return (request, response) => {
    const { headers } = request;
    const authority = headers[":authority"] ?? headers.host;
    if (typeof authority !== "string" || !URL.canParse(`http://${authority}`)) {
      headers[headers[":authority"] === undefined ? "host" : ":authority"] = "localhost";
    }
    handler(request, response);
  };
}

function handingOff(
  subscribe: UniversalHandler,
  stock: RpcHandler,
  options: RpcHandlerOptions,
): Omit<RpcHandlers, "local"> {
  const handOff = new HandOff({ timers: systemTimers, ...options, handler: subscribe });
  return {
    request(request, response) {
      if (handOff.takes(request.url)) {
        handOff.serve(requestExchange(request, response));
      } else {
        stock(request, response);
      }
    },
    stream(stream, headers) {
      // Pages of the web, and clients that ask before they send, are for those who know the rules of HTTP.
      const plain = headers.origin === undefined && headers.expect === undefined && headers[":method"] === "POST";
      if (!plain || !handOff.takes(headers[":path"]?.toString())) {
        return false;
      }
      handOff.serve(streamExchange(stream, headers));
      return true;
    },
  };
}
