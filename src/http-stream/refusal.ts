import type { NodeResponse } from "../rpc/node-call.ts";
import type { HttpFailure } from "./failure.ts";
import { SSE } from "./text-form.ts";

/** What `/v1/events` answers. */
export const allowedMethods = "GET, HEAD, OPTIONS";

/** Proxies that buffer, compress or cache would hold events back; these are the words that they know. */
export const unbuffered = { "Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no" } as const;

/** Who is refused. */
export interface RefusedClient {
  /** It asked for `text/event-stream` by name. */
  readonly eventSource: boolean;
  /** Uniform in [0, 1): jitter. */
  readonly random: () => number;
}

/**
 * A stream that could not begin: the status that Connect has for the code, and the failure as JSON.
 *
 * `EventSource` never comes again after any status but 200, and hides the body. That is right where the same request would
 * meet the same failure for ever, and wrong while a server restarts: what passes is told to it within a stream, of 200, which
 * says when to come again, and ends. It keeps its `Last-Event-ID`, for nothing in there has an id.
 */
export function refuse(response: NodeResponse, failure: HttpFailure, { eventSource, random }: RefusedClient): void {
  const { passes, status, fields } = failure;
  const retryAfterMs = failure.retryAfterMs * (1 + random());
  if (passes && eventSource) {
    response.writeHead(200, { "Content-Type": SSE.contentType, ...unbuffered });
    response.end(SSE.retry(retryAfterMs) + SSE.other("error", fields, undefined));
    return;
  }
  const retryAfter = passes ? { "Retry-After": String(Math.ceil(retryAfterMs / 1000)) } : {};
  answer(response, status, fields, retryAfter);
}

/** Another method than GET. */
export function refuseMethod(response: NodeResponse): void {
  const fields = {
    code: "INVALID_REQUEST",
    message: "/v1/events is read, with GET.",
    action: "Use GET. To publish events, call /millrace.v1.FeedService/Publish.",
  };
  answer(response, 405, fields, { Allow: allowedMethods });
}

function answer(
  response: NodeResponse,
  status: number,
  fields: HttpFailure["fields"],
  headers: Readonly<Record<string, string>>,
): void {
  response.writeHead(status, { "Content-Type": "application/json", ...unbuffered, ...headers });
  response.end(`${JSON.stringify(fields)}\n`);
}
