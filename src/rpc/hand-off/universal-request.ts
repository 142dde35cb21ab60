import type { ContextValues } from "@connectrpc/connect";
import type { UniversalServerRequest } from "@connectrpc/connect/protocol";
import type { Exchange } from "./exchange.ts";

/** What its handlers look at is the path alone. */
const BASE = "http://millrace";

/**
 * A request in Connect's form. Unlike Connect's own function it leaves no listener on the request: what outlives the call's
 * beginning would be kept once per stream.
 */
export function universalRequest(
  exchange: Exchange,
  signal: AbortSignal,
  contextValues: ContextValues,
): UniversalServerRequest {
  return {
    httpVersion: exchange.httpVersion,
    method: exchange.method,
    url: new URL(exchange.path, BASE).toString(),
    header: headersOf(exchange),
    body: chunksOf(exchange),
    signal,
    contextValues,
  };
}

function headersOf(exchange: Exchange): Headers {
  const headers = new Headers();
  for (const [name, value] of Object.entries(exchange.headers)) {
    if (!name.startsWith(":") && value !== undefined) {
      for (const one of Array.isArray(value) ? value : [value]) {
        headers.append(name, one);
      }
    }
  }
  return headers;
}

async function* chunksOf({ body }: Exchange): AsyncGenerator<Uint8Array> {
  for await (const chunk of body) {
    yield chunk;
  }
}
