import type { UniversalHandler } from "@connectrpc/connect/protocol";
import { headerTimeout, parseTimeout } from "@connectrpc/connect/protocol-connect";
import {
  headerTimeout as grpcHeaderTimeout,
  parseTimeout as parseGrpcTimeout,
} from "@connectrpc/connect/protocol-grpc";

/** Longest time that a timer can be set for: 25 days. Beyond it Node's fire at once, and the call would be over. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** A client that gives a call more time than any timer keeps has set no deadline. */
export function withoutEndlessTimeouts(handler: UniversalHandler): UniversalHandler {
  return Object.assign((request: Parameters<UniversalHandler>[0]) => {
    const { header } = request;
    if (isEndless(parseTimeout(header.get(headerTimeout), Number.MAX_SAFE_INTEGER).timeoutMs)) {
      header.delete(headerTimeout);
    }
    if (isEndless(parseGrpcTimeout(header.get(grpcHeaderTimeout), Number.MAX_SAFE_INTEGER).timeoutMs)) {
      header.delete(grpcHeaderTimeout);
    }
    return handler(request);
  }, handler);
}

function isEndless(timeoutMs: number | undefined): boolean {
  return timeoutMs !== undefined && timeoutMs > MAX_TIMER_MS;
}
