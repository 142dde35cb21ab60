import { create } from "@bufbuild/protobuf";
import { durationFromMs, durationMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { codeToHttpStatus } from "@connectrpc/connect/protocol-connect";
import { ErrorCode, type ErrorDetail, ErrorDetailSchema } from "../../gen/millrace/v1/error_pb.js";
import { FeedError, type FeedErrorCode } from "../core/errors.ts";
import type { RpcLog } from "./log.ts";

/** How one code of the closed set looks on the wire. */
export interface ErrorMapping {
  readonly wire: ErrorCode;
  readonly connect: Code;
  /** `retry_after` when the thrower gave none; `undefined` leaves it out. */
  readonly retryAfterMs: number | undefined;
}

/** The closed set. `docs/errors.md` says of each what causes it and what to do. */
export const errorTable: Readonly<Record<FeedErrorCode, ErrorMapping>> = {
  HISTORY_LOST: { wire: ErrorCode.HISTORY_LOST, connect: Code.OutOfRange, retryAfterMs: undefined },
  EPOCH_CHANGED: { wire: ErrorCode.EPOCH_CHANGED, connect: Code.FailedPrecondition, retryAfterMs: undefined },
  CURSOR_INVALID: { wire: ErrorCode.CURSOR_INVALID, connect: Code.InvalidArgument, retryAfterMs: undefined },
  FILTER_INVALID: { wire: ErrorCode.FILTER_INVALID, connect: Code.InvalidArgument, retryAfterMs: undefined },
  TOPIC_FORBIDDEN: { wire: ErrorCode.TOPIC_FORBIDDEN, connect: Code.PermissionDenied, retryAfterMs: undefined },
  LIMIT_EXCEEDED: { wire: ErrorCode.LIMIT_EXCEEDED, connect: Code.ResourceExhausted, retryAfterMs: undefined },
  SLOW_CONSUMER: { wire: ErrorCode.SLOW_CONSUMER, connect: Code.ResourceExhausted, retryAfterMs: undefined },
  SUBSCRIPTION_NOT_FOUND: {
    wire: ErrorCode.SUBSCRIPTION_NOT_FOUND,
    connect: Code.NotFound,
    retryAfterMs: undefined,
  },
  SUBSCRIPTION_EXISTS: { wire: ErrorCode.SUBSCRIPTION_EXISTS, connect: Code.AlreadyExists, retryAfterMs: undefined },
  SUBSCRIPTION_PAUSED: {
    wire: ErrorCode.SUBSCRIPTION_PAUSED,
    connect: Code.FailedPrecondition,
    retryAfterMs: undefined,
  },
  SUBSCRIPTION_BUSY: { wire: ErrorCode.SUBSCRIPTION_BUSY, connect: Code.Unavailable, retryAfterMs: 1_000 },
  SUBSCRIPTION_FENCED: { wire: ErrorCode.SUBSCRIPTION_FENCED, connect: Code.Aborted, retryAfterMs: undefined },
  SOURCE_NOT_FOUND: { wire: ErrorCode.SOURCE_NOT_FOUND, connect: Code.NotFound, retryAfterMs: undefined },
  STREAM_NOT_FOUND: { wire: ErrorCode.STREAM_NOT_FOUND, connect: Code.NotFound, retryAfterMs: undefined },
  INVALID_REQUEST: { wire: ErrorCode.INVALID_REQUEST, connect: Code.InvalidArgument, retryAfterMs: undefined },
  DRAINING: { wire: ErrorCode.DRAINING, connect: Code.Unavailable, retryAfterMs: 1_000 },
  DATABASE_UNAVAILABLE: { wire: ErrorCode.DATABASE_UNAVAILABLE, connect: Code.Unavailable, retryAfterMs: 1_000 },
  INTERNAL: { wire: ErrorCode.INTERNAL, connect: Code.Internal, retryAfterMs: undefined },
};

/** The HTTP status that Connect gives such a failure, for what answers over plain HTTP beside it. */
export function httpStatusOf(code: FeedErrorCode): number {
  return codeToHttpStatus(errorTable[code].connect);
}

/** The wire's form of a failure: code, "sentence. action", and the detail that lets the client go on. */
export function connectErrorFromFeedError(error: FeedError): ConnectError {
  const mapping = errorTable[error.code];
  const message = `${sentence(error.message)} ${error.action}`.trimEnd();
  const details = [{ desc: ErrorDetailSchema, value: detailOf(error, mapping) }];
  return new ConnectError(message, mapping.connect, undefined, details, error.cause);
}

/** The failure that another replica answered with; `undefined` when it is none of the closed set. */
export function feedErrorFromConnect(error: ConnectError): FeedError | undefined {
  const [detail] = error.findDetails(ErrorDetailSchema);
  const code = Object.entries(errorTable).find(([, { wire }]) => wire === detail?.code)?.[0];
  if (detail === undefined || code === undefined || !isFeedErrorCode(code)) {
    return undefined;
  }
  const { action, epoch, oldestVersion, headVersion, forkVersion, cursor, retryAfter, violations } = detail;
  const message = error.rawMessage.endsWith(action)
    ? error.rawMessage.slice(0, -action.length).trim()
    : error.rawMessage;
  return new FeedError(code, message, action, {
    ...(epoch === "" ? {} : { epoch }),
    ...(cursor === "" ? {} : { cursor }),
    ...(oldestVersion === undefined ? {} : { oldestVersion: Number(oldestVersion) }),
    ...(headVersion === undefined ? {} : { headVersion: Number(headVersion) }),
    ...(forkVersion === undefined ? {} : { forkVersion: Number(forkVersion) }),
    ...(retryAfter === undefined ? {} : { retryAfterMs: durationMs(retryAfter) }),
    ...(violations.length === 0 ? {} : { violations }),
  });
}

function isFeedErrorCode(code: string): code is FeedErrorCode {
  return code in errorTable;
}

/**
 * What a client gets to see of anything that was thrown. ConnectErrors (a cancelled call, a deadline, an unknown
 * encoding) pass; what nobody foresaw is logged here in full and tells the client nothing of our insides.
 *
 * @param signal - the call's, where what was thrown may be a consequence of its end
 */
export function connectErrorFrom(
  thrown: unknown,
  procedure: string,
  signal: AbortSignal | undefined,
  log: RpcLog,
): ConnectError {
  if (thrown instanceof FeedError) {
    if (thrown.code === "INTERNAL") {
      log.error({ err: thrown, procedure }, "a call failed by a fault of Millrace");
    }
    return connectErrorFromFeedError(thrown);
  }
  if (thrown instanceof ConnectError) {
    return thrown;
  }
  if (signal?.aborted === true) {
    const reason: unknown = signal.reason;
    if (reason instanceof FeedError) {
      return connectErrorFromFeedError(reason);
    }
    return reason instanceof ConnectError ? reason : new ConnectError("The call was cancelled.", Code.Canceled);
  }
  log.error({ err: thrown, procedure }, "a call failed by a fault of Millrace");
  return connectErrorFromFeedError(
    new FeedError(
      "INTERNAL",
      "Something went wrong inside Millrace.",
      "Look at the server's log, and report what it says.",
    ),
  );
}

/** Wrong fields that are told one by one: an error goes out in a header, and many clients take 8 KiB of those. */
const TOLD_VIOLATIONS = 16;
const TOLD_CHARACTERS = 256;

/** A request that cannot be read or breaks the schema's rules, field by field. */
export function invalidRequest(violations: readonly { readonly field: string; readonly message: string }[]): FeedError {
  const told = violations
    .slice(0, TOLD_VIOLATIONS)
    .map(({ field, message }) => ({ field: cut(field), message: cut(message) }));
  const [first] = told;
  const what = first === undefined || first.field === "" ? "The request" : `\`${first.field}\``;
  const more = violations.length > 1 ? ` (and ${violations.length - 1} more)` : "";
  const which = violations.length > told.length ? `the first ${told.length} wrong fields` : "every wrong field";
  return new FeedError(
    "INVALID_REQUEST",
    `${what} ${sentenceEnd(first?.message ?? "is wrong")}${more}.`,
    `Correct the request: the error's detail lists ${which}.`,
    { violations: told },
  );
}

/** What clients have written may be as long as a request. */
function cut(text: string): string {
  return text.length > TOLD_CHARACTERS ? `${text.slice(0, TOLD_CHARACTERS).toWellFormed()}…` : text;
}

function sentenceEnd(message: string): string {
  return message.replace(/[.\s]+$/, "");
}

function sentence(message: string): string {
  return /[.!?]$/.test(message) ? message : `${message}.`;
}

function detailOf(error: FeedError, mapping: ErrorMapping): ErrorDetail {
  const { detail } = error;
  const retryAfterMs = detail.retryAfterMs ?? mapping.retryAfterMs;
  return create(ErrorDetailSchema, {
    code: mapping.wire,
    action: error.action,
    epoch: detail.epoch ?? "",
    cursor: detail.cursor ?? "",
    violations: (detail.violations ?? []).map(({ field, message }) => ({ field, message })),
    ...(detail.oldestVersion === undefined ? {} : { oldestVersion: BigInt(detail.oldestVersion) }),
    ...(detail.headVersion === undefined ? {} : { headVersion: BigInt(detail.headVersion) }),
    ...(detail.forkVersion === undefined ? {} : { forkVersion: BigInt(detail.forkVersion) }),
    ...(detail.filter === undefined ? {} : { filterPosition: detail.filter }),
    ...(retryAfterMs === undefined ? {} : { retryAfter: durationFromMs(Math.ceil(retryAfterMs)) }),
  });
}
