import { FeedError, type FeedErrorCode } from "../core/errors.ts";
import { errorTable, httpStatusOf } from "../rpc/errors.ts";
import type { RpcLog } from "../rpc/log.ts";
import { queryParameters } from "./query-reader.ts";

/** When to come again, where nobody has said: after a fault of ours the same may happen again. */
const RETRY_MS = 1_000;
const RETRY_AFTER_FAULT_MS = 10_000;

/** How a failure is told over plain HTTP. */
export interface HttpFailure {
  readonly code: FeedErrorCode;
  readonly status: number;
  /** Of the body, or of the last message. */
  readonly fields: Readonly<Record<string, unknown>>;
  /** The same request may go through in a moment. */
  readonly passes: boolean;
  /** When to come again. */
  readonly retryAfterMs: number;
  /** Where to go on from, when the failure says so. */
  readonly cursor: string | undefined;
}

/**
 * What a client gets to see of anything that was thrown; what nobody foresaw is logged here in full, and tells the client
 * nothing of our insides.
 */
export function httpFailureFrom(thrown: unknown, log: RpcLog): HttpFailure {
  const error = foreseen(thrown);
  if (error.code === "INTERNAL") {
    log.error({ err: thrown, path: "/v1/events" }, "a call failed by a fault of Millrace");
  }
  const { code, message, action } = error;
  const { violations, filter: filterPosition, ...detail } = error.detail;
  const retryAfterMs = detail.retryAfterMs ?? errorTable[code].retryAfterMs;
  return {
    code,
    status: httpStatusOf(code),
    fields: {
      code,
      message: inParameters(message, violations),
      action,
      ...detail,
      retryAfterMs,
      filterPosition,
      violations: violations?.map((violation) => ({
        field: parameterOf(violation.field),
        message: violation.message,
      })),
    },
    passes: retryAfterMs !== undefined,
    retryAfterMs: retryAfterMs ?? (code === "INTERNAL" ? RETRY_AFTER_FAULT_MS : RETRY_MS),
    cursor: detail.cursor,
  };
}

function foreseen(thrown: unknown): FeedError {
  if (thrown instanceof FeedError) {
    return thrown;
  }
  return new FeedError(
    "INTERNAL",
    "Something went wrong inside Millrace.",
    "Look at the server's log, and report what it says.",
    { cause: thrown },
  );
}

/** The parameter that became this field of the request; the field itself where it is a parameter, or nobody's. */
function parameterOf(field: string): string {
  const startFields = ["after_version", "at_time", "start"];
  if (startFields.includes(field)) {
    return "from";
  }
  let name = field;
  let longest = 0;
  for (const [parameter, path] of Object.entries(queryParameters)) {
    if (path.length > longest && (field === path || field.startsWith(`${path}.`) || field.startsWith(`${path}[`))) {
      name = parameter;
      longest = path.length;
    }
  }
  return name;
}

/** A message names fields as the RPC has them, of whose selectors there is one here. */
function inParameters(message: string, violations: readonly { readonly field: string }[] = []): string {
  let text = message.replaceAll(" of selectors[0]", "");
  for (const { field } of violations.toSorted((a, b) => b.field.length - a.field.length)) {
    text = field === "" ? text : text.replaceAll(field, parameterOf(field));
  }
  return text;
}
