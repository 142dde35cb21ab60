import { cors } from "@connectrpc/connect";
import type { RpcHandler } from "../rpc/handler.ts";
import { isLoopback } from "./loopback.ts";

/** What pages may send: what Connect, gRPC-Web, EventSource and the Model Context Protocol need. */
const allowedHeaders = [
  ...cors.allowedHeaders,
  "Accept",
  "If-None-Match",
  "Last-Event-ID",
  "Mcp-Method",
  "Mcp-Name",
  "Mcp-Protocol-Version",
  "Mcp-Session-Id",
].join(", ");

/** What pages may see of an answer: what Connect and gRPC-Web need, and the tag of a page of Poll. */
const exposedHeaders = [...cors.exposedHeaders, "ETag"].join(", ");

type Request = Parameters<RpcHandler>[0];
type Response = Parameters<RpcHandler>[1];

/** What became of a request by its origin. `answered`: nobody else must touch it. */
export type CorsOutcome = "pass" | "answered";

/**
 * Lets web pages call, and only those that may.
 *
 * Pages of this machine (`http://localhost:5173`) may always; others when `allowedOrigins` names them or holds `*`. A
 * request with another origin is refused outright, rather than merely answered without CORS headers: a page on the
 * internet must not reach a feed on its visitor's machine, not even by way of a name that it points at 127.0.0.1.
 */
export function createCors(allowedOrigins: readonly string[]): (request: Request, response: Response) => CorsOutcome {
  const allowed = new Set(allowedOrigins);
  return (request, response) => {
    const { origin } = request.headers;
    if (origin === undefined) {
      return "pass";
    }
    if (!allowed.has("*") && !allowed.has(origin) && !isLoopbackOrigin(origin)) {
      refuse(response, `Pages of ${origin} may not call this server. Allow them with --cors-origins ${origin}`);
      return "answered";
    }
    response.setHeader("Access-Control-Allow-Origin", origin);
    response.setHeader("Vary", "Origin");
    if (request.method !== "OPTIONS" || request.headers["access-control-request-method"] === undefined) {
      response.setHeader("Access-Control-Expose-Headers", exposedHeaders);
      return "pass";
    }
    response.setHeader("Access-Control-Allow-Methods", cors.allowedMethods.join(", "));
    response.setHeader("Access-Control-Allow-Headers", allowedHeaders);
    // The longest that browsers keep.
    response.setHeader("Access-Control-Max-Age", "7200");
    if (request.headers["access-control-request-private-network"] === "true") {
      response.setHeader("Access-Control-Allow-Private-Network", "true");
    }
    response.statusCode = 204;
    response.end();
    return "answered";
  };
}

function isLoopbackOrigin(origin: string): boolean {
  return URL.canParse(origin) && isLoopback(new URL(origin).hostname);
}

/** A sentence for whoever may not call. */
export function refuse(response: Response, sentence: string): void {
  response.statusCode = 403;
  response.setHeader("Content-Type", "text/plain; charset=utf-8");
  response.setHeader("Cache-Control", "no-store");
  response.setHeader("Vary", "Origin");
  response.end(`${sentence}\n`);
}
