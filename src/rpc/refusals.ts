import { setTimeout as delay } from "node:timers/promises";
import type { UniversalHandler } from "@connectrpc/connect/protocol";
import { createAsyncIterable } from "@connectrpc/connect/protocol";

const longestWaitMs = 250;
const mostBytes = 64 * 1024;
const unsupportedMediaType = 415;
const methodNotAllowed = 405;

/**
 * Connect refuses a wrong content type or HTTP method with a bare status, before it speaks any protocol in which it could
 * say more. Whoever tries with curl gets a line of text.
 */
export function withSpokenRefusals(handler: UniversalHandler): UniversalHandler {
  const streams = handler.method.methodKind !== "unary";
  return Object.assign(async (request: Parameters<UniversalHandler>[0]) => {
    const response = await handler(request);
    if (response.body !== undefined) return response;
    const text = refusal(response.status, handler.requestPath, streams);
    if (text === undefined) return response;
    await takeBody(request.body);
    return {
      ...response,
      header: new Headers({ "content-type": "text/plain; charset=utf-8" }),
      body: createAsyncIterable([new TextEncoder().encode(`${text}\n`)]),
    };
  }, handler);
}

/**
 * Over HTTP/2 an answer that comes before the request's end makes Node reset the stream, and curl then shows neither status
 * nor text. Small bodies, such as curl sends, are here at once; others are not waited for.
 */
async function takeBody(body: Parameters<UniversalHandler>[0]["body"]): Promise<void> {
  if (typeof body !== "object" || body === null || !(Symbol.asyncIterator in body)) return;
  const chunks = body[Symbol.asyncIterator]();
  const late = delay(longestWaitMs, undefined, { ref: false });
  for (let bytes = 0; bytes <= mostBytes; ) {
    const next = await Promise.race([chunks.next(), late]).catch(() => undefined);
    if (next === undefined || next.done === true) return;
    bytes += next.value.length;
  }
}

function refusal(status: number, path: string, streams: boolean): string | undefined {
  if (status === methodNotAllowed) return "Use POST.";
  if (status !== unsupportedMediaType) return undefined;
  return streams
    ? `${path} streams: call it with a client of gRPC, gRPC-Web or Connect, such as \`npx buf curl\`. By hand, send application/connect+json with the request in an envelope.`
    : `${path} takes application/json or application/proto by POST, or gRPC and gRPC-Web: curl -H 'content-type: application/json' -d '{}' …`;
}
