import type { OutgoingHttpHeaders } from "node:http";
import type { NodeResponse, RpcHandler } from "./node-call.ts";

/**
 * Connect escapes every reserved character in `grpc-message`; gRPC asks only for `%` and what is not printable ASCII.
 * Clients that take it at its word, @grpc/grpc-js among them, would show `%3A` for every colon.
 */
export function withPlainGrpcMessages(handler: RpcHandler): RpcHandler {
  return (request, response) => {
    sayPlainGrpcMessages(response);
    handler(request, response);
  };
}

/** The same for one response that Connect is about to write. */
export function sayPlainGrpcMessages(response: NodeResponse): void {
  const addTrailers = response.addTrailers.bind(response);
  response.addTrailers = (trailers: OutgoingHttpHeaders) => {
    const message = trailers["grpc-message"];
    addTrailers(typeof message === "string" ? { ...trailers, "grpc-message": plainGrpcMessage(message) } : trailers);
  };
}

/** Takes back the escapes of printable ASCII other than `%` itself. */
export function plainGrpcMessage(escaped: string): string {
  return escaped.replace(/%(?:2[0-46-9A-F]|[3-6][0-9A-F]|7[0-9A-E])/gi, (character) => decodeURIComponent(character));
}
