import type { UniversalHandler } from "@connectrpc/connect/protocol";
import type { RpcLog } from "./log.ts";

/**
 * Answers calls whose handler fails with 500. Connect's adapter for Node does not end them at all: their clients would wait for
 * ever.
 */
export function withAnswers(handler: UniversalHandler, log: RpcLog): UniversalHandler {
  return Object.assign(async (request: Parameters<UniversalHandler>[0]) => {
    try {
      return await handler(request);
    } catch (error) {
      if (request.signal.aborted) {
        throw error;
      }
      log.error({ err: error, path: handler.requestPath }, "a call could not be answered");
      return { status: 500 };
    }
  }, handler);
}
