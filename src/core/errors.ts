/** The closed set of failures; `src/rpc/errors.ts` maps each to the wire and `docs/errors.md` explains it. */
export type FeedErrorCode =
  | "HISTORY_LOST"
  | "EPOCH_CHANGED"
  | "CURSOR_INVALID"
  | "FILTER_INVALID"
  | "TOPIC_FORBIDDEN"
  | "LIMIT_EXCEEDED"
  | "SLOW_CONSUMER"
  | "SUBSCRIPTION_NOT_FOUND"
  | "SUBSCRIPTION_EXISTS"
  | "SUBSCRIPTION_PAUSED"
  | "SUBSCRIPTION_BUSY"
  | "SUBSCRIPTION_FENCED"
  | "SOURCE_NOT_FOUND"
  | "STREAM_NOT_FOUND"
  | "INVALID_REQUEST"
  | "DRAINING"
  | "DATABASE_UNAVAILABLE"
  | "INTERNAL";

/** What lets the client go on. Which codes carry which field: `ErrorDetail` in `proto/millrace/v1/error.proto`. */
export interface FeedErrorDetail {
  readonly epoch?: string;
  readonly oldestVersion?: number;
  readonly headVersion?: number;
  readonly forkVersion?: number;
  readonly cursor?: string;
  readonly retryAfterMs?: number;
  /** Where the first wrong filter is wrong: its selector from 0, line and column in characters from 1. */
  readonly filter?: { readonly selector: number; readonly line: number; readonly column: number };
  readonly violations?: readonly { readonly field: string; readonly message: string }[];
}

/** A failure with a code, what happened, and what to do about it. The only error that crosses a port. */
export class FeedError extends Error {
  readonly code: FeedErrorCode;
  /** One sentence: what to do next. */
  readonly action: string;
  readonly detail: FeedErrorDetail;

  constructor(
    code: FeedErrorCode,
    message: string,
    action: string,
    options: FeedErrorDetail & { readonly cause?: unknown } = {},
  ) {
    const { cause, ...detail } = options;
    super(message, cause === undefined ? undefined : { cause });
    this.name = "FeedError";
    this.code = code;
    this.action = action;
    this.detail = detail;
  }
}

/** DRAINING: what is refused, or cut after its grace, because this process ends. */
export function goingDown(): FeedError {
  return new FeedError("DRAINING", "The server is going down.", "Connect to another replica, or again in a moment.", {
    retryAfterMs: 1_000,
  });
}
