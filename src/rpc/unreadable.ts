import { Code, ConnectError } from "@connectrpc/connect";
import type { UniversalHandler } from "@connectrpc/connect/protocol";
import { createAsyncIterable, readAllBytes } from "@connectrpc/connect/protocol";
import { codeToHttpStatus, errorFromJsonBytes, errorToJsonBytes } from "@connectrpc/connect/protocol-connect";
import { connectErrorFromFeedError, invalidRequest } from "./errors.ts";
import { unreadableRequest } from "./validation.ts";

/** Connect's own errors quote the request, which has a limit of its own. */
const MAX_ERROR_BYTES = 2 ** 31 - 1;

/**
 * A unary request is parsed before any interceptor runs, so that a misspelt JSON field would come back as a bare
 * sentence. Around the handler, Connect's unary error is opened, and gets our detail where it has none.
 */
export function withReadableErrors(handler: UniversalHandler): UniversalHandler {
  if (handler.method.methodKind !== "unary") {
    return handler;
  }
  const wrapped: UniversalHandler = Object.assign(async (request: Parameters<UniversalHandler>[0]) => {
    const response = await handler(request);
    const { status, header, body } = response;
    const isUnaryError = status >= 400 && header?.get("content-type") === "application/json";
    if (!isUnaryError || header.has("content-encoding") || body === undefined) {
      return response;
    }
    const bytes = await readAllBytes(body, MAX_ERROR_BYTES);
    const error = readableError(bytes, request.method);
    const readable = error === undefined ? bytes : errorToJsonBytes(error, undefined);
    header.set("content-length", String(readable.byteLength));
    return {
      ...response,
      status: error === undefined ? status : codeToHttpStatus(error.code),
      body: createAsyncIterable([readable]),
    };
  }, handler);
  return wrapped;
}

/** `undefined` when the error is fine as it is. */
function readableError(body: Uint8Array, method: string): ConnectError | undefined {
  const fallback = new ConnectError("not an error of Connect", Code.Unknown);
  const error = errorFromJsonBytes(body, undefined, fallback);
  if (error.details.length > 0) {
    return undefined;
  }
  // What throws before any interceptor runs, and is no ConnectError: of a GET, the decoding of its query.
  const undecoded = method === "GET" && error.code === Code.Internal && error.rawMessage === "internal error";
  const failure = undecoded
    ? invalidRequest([{ field: "", message: "cannot be read: its `message` is not base64" }])
    : unreadableRequest(error);
  return failure && connectErrorFromFeedError(failure);
}
