import type { ContextValues } from "@connectrpc/connect";
import type { UniversalServerRequest } from "@connectrpc/connect/protocol";
import type { NodeRequest } from "../node-call.ts";

/** What its handlers look at is the path alone. */
const BASE = "http://millrace";

/**
 * A request in Connect's form. Unlike Connect's own function it leaves no listener on the request: what outlives the call's
 * beginning would be kept once per stream.
 */
export function universalRequest(
  request: NodeRequest,
  signal: AbortSignal,
  contextValues: ContextValues,
): UniversalServerRequest {
  return {
    httpVersion: request.httpVersion,
    method: request.method ?? "",
    url: new URL(request.url ?? "", BASE).toString(),
    header: headersOf(request),
    body: chunksOf(request),
    signal,
    contextValues,
  };
}

function headersOf(request: NodeRequest): Headers {
  const headers = new Headers();
  for (const [name, value] of Object.entries(request.headers)) {
    if (!name.startsWith(":") && value !== undefined) {
      for (const one of Array.isArray(value) ? value : [value]) {
        headers.append(name, one);
      }
    }
  }
  return headers;
}

async function* chunksOf(request: NodeRequest): AsyncGenerator<Uint8Array> {
  for await (const chunk of request) {
    yield chunk;
  }
}
