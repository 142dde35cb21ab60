import { durationMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { ErrorCode, type ErrorDetail, ErrorDetailSchema } from "../../gen/millrace/v1/error_pb.js";
import { FeedError } from "../core/errors.ts";

/** Why a tool did not do what it was asked for, as a model is told. */
export interface ToolFailure {
  /** One of `docs/errors.md`, or SERVER_UNREACHABLE. */
  readonly code: string;
  readonly message: string;
  /** What to do; empty when the message says it all. */
  readonly action: string;
  /** More that helps, a line each. */
  readonly lines: readonly string[];
}

/** What helps with these tools, where the server's own advice is about its RPCs. */
const withTheseTools: Readonly<Record<string, string>> = {
  HISTORY_LOST: "With these tools: `unsubscribe`, then `subscribe_changes` again, from `oldest` or `now`.",
  EPOCH_CHANGED:
    "With these tools: `subscribe_changes`, or `poll_changes`, from `version:N`, N being the fork's version.",
  SUBSCRIPTION_NOT_FOUND: "`get_subscriptions` lists what there is.",
  SUBSCRIPTION_FENCED:
    "With these tools: poll without `cursor` to take the subscription over; or make one of your own, so that both get everything.",
  SUBSCRIPTION_EXISTS:
    "With these tools: leave `subscription_id` out, give another, or `unsubscribe` the one that is there.",
};

/** Whatever was thrown, as something that can be told. */
export function toolFailureFrom(error: unknown): ToolFailure {
  if (error instanceof FeedError) {
    const lines = (error.detail.violations ?? []).map(({ field, message }) => `${argumentName(field)}: ${message}`);
    return { code: error.code, message: error.message, action: error.action, lines };
  }
  if (error instanceof ConnectError) return failureFromConnect(error);
  const message = error instanceof Error ? error.message : String(error);
  return { code: "INTERNAL", message, action: "Report it, with what was asked for.", lines: [] };
}

function failureFromConnect(error: ConnectError): ToolFailure {
  const [detail] = error.findDetails(ErrorDetailSchema);
  if (detail !== undefined) {
    const code = ErrorCode[detail.code] ?? "INTERNAL";
    const message = detail.action === "" ? error.rawMessage : error.rawMessage.replace(` ${detail.action}`, "");
    return { code, message, action: detail.action, lines: detailLines(code, detail) };
  }
  if (error.code === Code.DeadlineExceeded) {
    return {
      code: "SERVER_UNREACHABLE",
      message: "The Millrace server did not answer in time.",
      action: tryAgain,
      lines: [],
    };
  }
  const reason = error.rawMessage.replace(/[.\s]+$/, "");
  return {
    code: "SERVER_UNREACHABLE",
    message: `No answer from the Millrace server: ${reason}.`,
    action:
      error.code === Code.Unimplemented
        ? "It is no Millrace server, or an older one: ask whoever runs it."
        : `${tryAgain} Whoever set this up can check that it runs (\`npm start\`), and that --url or MILLRACE_URL names it.`,
    lines: [],
  };
}

const tryAgain = "Nothing is lost: try again in a moment.";

function detailLines(code: string, detail: ErrorDetail): readonly string[] {
  const place = detail.filterPosition;
  const lines = detail.violations
    // The sentence says the same of a filter.
    .filter(({ field }) => place === undefined || !field.endsWith(".filter"))
    .map(({ field, message }) => `${argumentName(field)}: ${message}`);
  if (place !== undefined) lines.push(`The mistake is at line ${place.line}, column ${place.column} of \`filter\`.`);
  if (detail.oldestVersion !== undefined) lines.push(`The oldest version still readable: ${detail.oldestVersion}.`);
  if (detail.headVersion !== undefined) lines.push(`The last version: ${detail.headVersion}.`);
  if (detail.forkVersion !== undefined) lines.push(`The fork's version: ${detail.forkVersion}.`);
  if (detail.retryAfter !== undefined) lines.push(`Try again after ${durationMs(detail.retryAfter) / 1000} s.`);
  const more = withTheseTools[code];
  if (more !== undefined) lines.push(more);
  return lines;
}

/** A field of the request as the tools' arguments name it. */
function argumentName(field: string): string {
  const bare = field.replace(/^selectors\[0\]\./, "").replace(/^max_events$/, "batch_size");
  return bare === "" ? "The request as a whole" : `\`${bare}\``;
}

/** For a model: code, sentence, what to do, and whatever else is known. */
export function failureText({ code, message, action, lines }: ToolFailure): string {
  return [`${code}: ${message}${action === "" ? "" : ` ${action}`}`, ...lines].join("\n");
}
