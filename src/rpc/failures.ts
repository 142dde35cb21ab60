import type { Interceptor } from "@connectrpc/connect";
import { connectErrorFrom } from "./errors.ts";
import type { RpcLog } from "./log.ts";

/** The outermost interceptor: whatever a call throws leaves as a member of the closed set. */
export function createFailureInterceptor(log: RpcLog): Interceptor {
  return (next) => async (request) => {
    const procedure = `${request.service.typeName}/${request.method.name}`;
    const translate = (thrown: unknown) => connectErrorFrom(thrown, procedure, request.signal, log);
    try {
      const response = await next(request);
      return response.stream ? { ...response, message: translated(response.message, translate) } : response;
    } catch (thrown) {
      throw translate(thrown);
    }
  };
}

async function* translated<Message>(
  messages: AsyncIterable<Message>,
  translate: (thrown: unknown) => Error,
): AsyncGenerator<Message> {
  try {
    yield* messages;
  } catch (thrown) {
    throw translate(thrown);
  }
}
