import type { IncomingHttpHeaders, OutgoingHttpHeaders } from "node:http";
import { Http2ServerResponse, type ServerHttp2Stream } from "node:http2";
import type { NodeRequest, NodeResponse } from "../node-call.ts";
import { peerOf } from "../peer.ts";

/** One request and its answer, in whichever form Node hands them over. */
export interface Exchange {
  readonly httpVersion: string;
  /** See `peerKey`. */
  readonly peer: string | undefined;
  readonly method: string;
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: AsyncIterable<Uint8Array>;
  /** What says `close` once everything is over. */
  readonly closing: NodeResponse | ServerHttp2Stream;
  /** Of HTTP/2. */
  readonly stream: ServerHttp2Stream | undefined;
  /** For Connect to answer with. A bare stream gets one only now. */
  response(): NodeResponse;
  /** The head of an answer whose body follows, and after it trailers where there may be any. */
  writeHead(status: number, headers: Readonly<Record<string, string>>, trailers: boolean): void;
}

/** Of Node's request listeners. */
export function requestExchange(request: NodeRequest, response: NodeResponse): Exchange {
  return {
    httpVersion: request.httpVersion,
    peer: peerOf(request),
    method: request.method ?? "",
    path: request.url ?? "",
    headers: request.headers,
    body: request,
    closing: response,
    stream: response instanceof Http2ServerResponse ? response.stream : undefined,
    response: () => response,
    writeHead: (status, headers) => response.writeHead(status, headers),
  };
}

/**
 * Of a bare HTTP/2 stream, whose errors somebody listens for: Node's request and response around it would cost a stream that
 * lives long two kilobytes, for nothing.
 */
export function streamExchange(stream: ServerHttp2Stream, headers: IncomingHttpHeaders): Exchange {
  return {
    httpVersion: "2.0",
    peer: stream.session?.socket.remoteAddress,
    method: String(headers[":method"]),
    path: String(headers[":path"]),
    headers,
    body: stream.iterator({ destroyOnReturn: false }),
    closing: stream,
    stream,
    response: () => new Http2ServerResponse(stream),
    writeHead(status, fields, trailers) {
      const head: OutgoingHttpHeaders = { ":status": status, ...fields };
      stream.respond(head, { waitForTrailers: trailers });
    },
  };
}
