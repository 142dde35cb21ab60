import type { NodeRequest, NodeResponse } from "../rpc/node-call.ts";

/** Headers of one connection, which HTTP/2 has no place for. */
const ofConnections = new Set(["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"]);

/**
 * A request of either of Node's servers as the web has them.
 *
 * @param body - of the request; empty for none
 * @param signal - aborted when the client has gone
 */
export function webRequestFrom(request: NodeRequest, body: Uint8Array<ArrayBuffer>, signal: AbortSignal): Request {
  const method = request.method ?? "GET";
  const headers = new Headers();
  for (const [name, value] of Object.entries(request.headers)) {
    if (name.startsWith(":") || value === undefined || ofConnections.has(name)) continue;
    headers.set(name, Array.isArray(value) ? value.join(", ") : value);
  }
  const withBody = method !== "GET" && method !== "HEAD" && body.byteLength > 0;
  // Nobody looks at the authority: the path is all that a request line must have.
  const url = URL.parse(request.url ?? "/", "http://localhost") ?? new URL("http://localhost/");
  return new Request(url, { method, headers, signal, ...(withBody ? { body } : {}) });
}

/** Sends it as fast as the client takes it, and stops making it when the client has gone. */
export async function sendWebResponse(answer: Response, response: NodeResponse): Promise<void> {
  response.statusCode = answer.status;
  for (const [name, value] of answer.headers) {
    if (!ofConnections.has(name)) response.setHeader(name, value);
  }
  if (answer.body === null) {
    response.end();
    return;
  }
  const reader = answer.body.getReader();
  const gone = () => void reader.cancel().catch(() => undefined);
  response.once("close", gone);
  try {
    // So that whoever waits for the first event of a stream knows that it is one.
    if ("flushHeaders" in response) response.flushHeaders();
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      if (response.destroyed) return;
      if (!write(response, part.value)) await room(response);
    }
    response.end();
  } finally {
    response.off("close", gone);
  }
}

/** The two kinds of responses share no signature of `write`. */
function write(response: NodeResponse, chunk: Uint8Array): boolean {
  return "stream" in response ? response.write(chunk) : response.write(chunk);
}

/** Resolves when there is room for more, or nobody to take it. */
function room(response: NodeResponse): Promise<void> {
  return new Promise((resolve) => {
    const settle = (): void => {
      response.off("drain", settle);
      response.off("close", settle);
      resolve();
    };
    response.on("drain", settle);
    response.on("close", settle);
  });
}

/** @returns `undefined` when it is larger than `maxBytes` */
export async function readBody(request: NodeRequest, maxBytes: number): Promise<Uint8Array<ArrayBuffer> | undefined> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of request) {
    if (!(chunk instanceof Uint8Array)) continue;
    bytes += chunk.byteLength;
    if (bytes > maxBytes) return undefined;
    chunks.push(chunk);
  }
  return new Uint8Array(Buffer.concat(chunks));
}
