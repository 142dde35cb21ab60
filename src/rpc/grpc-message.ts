import type { OutgoingHttpHeaders } from "node:http";
import type { connectNodeAdapter } from "@connectrpc/connect-node";

type Handler = ReturnType<typeof connectNodeAdapter>;

/**
 * Connect escapes every reserved character in `grpc-message`; gRPC asks only for `%` and what is not printable ASCII.
 * Clients that take it at its word, @grpc/grpc-js among them, would show `%3A` for every colon.
 */
export function withPlainGrpcMessages(handler: Handler): Handler {
  return (request, response) => {
    const addTrailers = response.addTrailers.bind(response);
    response.addTrailers = (trailers: OutgoingHttpHeaders) => {
      const message = trailers["grpc-message"];
      addTrailers(typeof message === "string" ? { ...trailers, "grpc-message": plainGrpcMessage(message) } : trailers);
    };
    handler(request, response);
  };
}

/** Takes back the escapes of printable ASCII other than `%` itself. */
export function plainGrpcMessage(escaped: string): string {
  return escaped.replace(/%(?:2[0-46-9A-F]|[3-6][0-9A-F]|7[0-9A-E])/gi, (character) => decodeURIComponent(character));
}
