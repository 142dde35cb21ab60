import type { DescMessage, MessageShape } from "@bufbuild/protobuf";
import { pathToString } from "@bufbuild/protobuf/reflect";
import { createValidator, type Violation } from "@bufbuild/protovalidate";
import { Code, ConnectError, type Interceptor } from "@connectrpc/connect";
import { FeedError } from "../core/errors.ts";
import { invalidRequest } from "./errors.ts";

/** Throws INVALID_REQUEST with the path of each field that breaks a rule of its schema. */
export type RequestCheck = <Desc extends DescMessage>(schema: Desc, message: MessageShape<Desc>) => void;

/** For requests that come another way than by RPC. */
export function createRequestCheck(): RequestCheck {
  const validator = createValidator();
  return (schema, message) => {
    const result = validator.validate(schema, message);
    if (result.kind === "invalid") {
      throw invalidRequest(result.violations.map(violationText));
    }
    if (result.kind === "error") {
      throw result.error;
    }
  };
}

/**
 * Holds every request to the rules in its schema. A request that breaks one, or that cannot be read at all, fails with
 * INVALID_REQUEST and the path of each wrong field.
 */
export function createValidationInterceptor(): Interceptor {
  const assertValid = createRequestCheck();
  return (next) => (request) => {
    if (!request.stream) {
      assertValid(request.method.input, request.message);
      return next(request);
    }
    return next({ ...request, message: validated(request.message, request.method.input, assertValid) });
  };
}

async function* validated<Message extends MessageShape<DescMessage>>(
  messages: AsyncIterable<Message>,
  schema: DescMessage,
  assertValid: (schema: DescMessage, message: Message) => void,
): AsyncGenerator<Message> {
  try {
    for await (const message of messages) {
      assertValid(schema, message);
      yield message;
    }
  } catch (error) {
    throw unreadableRequest(error) ?? error;
  }
}

/**
 * Connect's own failures to read a request, in our shape. It calls a broken binary message "internal", which would blame
 * the server for what the client sent.
 */
export function unreadableRequest(error: unknown): FeedError | undefined {
  if (!(error instanceof ConnectError)) {
    return undefined;
  }
  if (error.code === Code.InvalidArgument || error.rawMessage.startsWith("parse binary: ")) {
    return invalidRequest([{ field: "", message: `cannot be read: ${error.rawMessage}` }]);
  }
  if (error.code === Code.ResourceExhausted) {
    return new FeedError(
      "LIMIT_EXCEEDED",
      `The request is larger than this server reads: ${error.rawMessage}.`,
      "Send less in one request.",
      { cause: error },
    );
  }
  return undefined;
}

/** What the pattern of a field means, for those who do not read patterns. */
const patternMeanings: Readonly<Record<string, string>> = {
  "millrace.v1.Selector.topics":
    "must be a topic or a pattern such as `orders`, `orders.*` or `orders.>`, of letters, digits, `_`, `-` and `%`",
  "millrace.v1.NewEvent.topic": "must be a dotted name of letters, digits, `_`, `-` and `%`",
  "millrace.v1.SubscribeRequest.after_transaction":
    "must be `<epoch>:<xid8>`, as Publish and millrace.transaction() give it",
  "millrace.v1.UpdateStreamRequest.stream_id": "must be a stream's name as `opened.stream_id` gives it",
  "millrace.v1.CreateSubscriptionRequest.subscription_id":
    "must be a name of up to 255 letters, digits, `_`, `-`, `.`, `:` and `/`",
  "millrace.v1.PollRequest.epoch": "must be an epoch as `opened`, GetStatus and pages give it, a UUID",
  "millrace.v1.SubscribeRequest.epoch": "must be an epoch as `opened` and GetStatus give it, a UUID",
};

function violationText(violation: Violation): { readonly field: string; readonly message: string } {
  const field = violation.field.findLast((step) => step.kind === "field");
  const meaning =
    violation.ruleId === "string.pattern" && field !== undefined
      ? patternMeanings[`${field.parent.typeName}.${field.name}`]
      : undefined;
  return { field: pathToString(violation.field), message: meaning ?? violation.message };
}
