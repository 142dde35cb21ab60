import type { ConnectRouter } from "@connectrpc/connect";
import { compressionGzip, connectNodeAdapter } from "@connectrpc/connect-node";
import { Health } from "../../gen/grpc/health/v1/health_pb.js";
import { file_millrace_v1_error } from "../../gen/millrace/v1/error_pb.js";
import { FeedService } from "../../gen/millrace/v1/feed_service_pb.js";
import { createFailureInterceptor } from "./failures.ts";
import { createFeedService, type FeedServiceOptions } from "./feed-service.ts";
import { withPlainGrpcMessages } from "./grpc-message.ts";
import { addHealth } from "./health.ts";
import type { RpcLog } from "./log.ts";
import { addReflection } from "./reflection.ts";
import { withSpokenRefusals } from "./refusals.ts";
import { withReadableErrors } from "./unreadable.ts";
import { createValidationInterceptor } from "./validation.ts";

/** A request listener for Node's servers of HTTP/1.1 and HTTP/2. */
export type RpcHandler = ReturnType<typeof connectNodeAdapter>;

/** What the services stand on. */
export interface RpcHandlerOptions extends FeedServiceOptions {
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
}

/** Above any message: Connect compresses nothing, but still reads what clients compressed. */
const NEVER = 2 ** 32 - 1;
const COMPRESS_MIN_BYTES = 1024;

/** gRPC, gRPC-Web and Connect (binary and JSON) for FeedService, health and reflection. */
export function createRpcHandler(options: RpcHandlerOptions): RpcHandler {
  const feedService = createFeedService(options);
  const handler = connectNodeAdapter({
    routes(router: ConnectRouter) {
      router.service(FeedService, feedService);
      addHealth(router, options.feed);
      addReflection(router, [FeedService, Health], [file_millrace_v1_error]);
      router.handlers.splice(
        0,
        router.handlers.length,
        ...router.handlers.map(withReadableErrors).map(withSpokenRefusals),
      );
    },
    interceptors: [createFailureInterceptor(options.log), createValidationInterceptor()],
    // A misspelt field that is ignored is a selector that selects everything.
    jsonOptions: { ignoreUnknownFields: false },
    acceptCompression: [compressionGzip],
    compressMinBytes: options.compress ? COMPRESS_MIN_BYTES : NEVER,
    readMaxBytes: options.maxRequestBytes,
    shutdownSignal: options.shutdownSignal,
    fallback: options.fallback,
  });
  return withPlainGrpcMessages(handler);
}
