import { Code, ConnectError } from "@connectrpc/connect";
import { CommanderError } from "commander";
import pg from "pg";
import { ErrorCode, ErrorDetailSchema } from "../../gen/millrace/v1/error_pb.js";
import { FeedError, type FeedErrorCode } from "../core/errors.ts";
import { sqlState, sqlStateOf } from "../postgres/database-error.ts";
import { type ExitCode, exitCode } from "./exit-code.ts";

/** Why a command failed, in the form in which it is told: a sentence, what to do, and the code for scripts. */
export class Failure extends Error {
  readonly exitCode: ExitCode;
  /** Stable name: one of `docs/errors.md`, or USAGE, SERVER_UNREACHABLE, ADDRESS_IN_USE, or `SQLSTATE_` and five characters. */
  readonly code: string;
  /** One sentence; empty when the message says it all. */
  readonly action: string;

  constructor(code: string, exit: ExitCode, message: string, action: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = "Failure";
    this.code = code;
    this.exitCode = exit;
    this.action = action;
  }
}

/** A wrong command line. */
export function usageFailure(message: string, action = ""): Failure {
  return new Failure("USAGE", exitCode.usage, message, action);
}

const exitCodes: Readonly<Record<FeedErrorCode, ExitCode>> = {
  HISTORY_LOST: exitCode.positionLost,
  EPOCH_CHANGED: exitCode.positionLost,
  CURSOR_INVALID: exitCode.positionLost,
  FILTER_INVALID: exitCode.usage,
  TOPIC_FORBIDDEN: exitCode.failure,
  LIMIT_EXCEEDED: exitCode.failure,
  SLOW_CONSUMER: exitCode.failure,
  SUBSCRIPTION_NOT_FOUND: exitCode.failure,
  SUBSCRIPTION_EXISTS: exitCode.failure,
  SUBSCRIPTION_PAUSED: exitCode.failure,
  SUBSCRIPTION_BUSY: exitCode.serverUnreachable,
  SUBSCRIPTION_FENCED: exitCode.failure,
  SOURCE_NOT_FOUND: exitCode.failure,
  STREAM_NOT_FOUND: exitCode.failure,
  INVALID_REQUEST: exitCode.usage,
  DRAINING: exitCode.serverUnreachable,
  DATABASE_UNAVAILABLE: exitCode.databaseUnreachable,
  INTERNAL: exitCode.failure,
};

/** The schema, or a right to it. */
const lacking: ReadonlySet<string> = new Set([
  sqlState.insufficientPrivilege,
  sqlState.undefinedSchema,
  sqlState.undefinedTable,
  sqlState.undefinedFunction,
]);

/** Whatever a command threw, as something that can be told. */
export function failureFrom(error: unknown): Failure {
  if (error instanceof Failure) return error;
  if (error instanceof FeedError) {
    if (isAddressTrouble(error.cause)) {
      return new Failure("ADDRESS_IN_USE", exitCode.addressInUse, error.message, error.action, error);
    }
    // Postgres answered, so that to wait for it does not help.
    if (error.code === "DATABASE_UNAVAILABLE" && lacking.has(sqlStateOf(error.cause) ?? "")) {
      return new Failure(error.code, exitCode.failure, error.message, error.action, error);
    }
    return new Failure(error.code, exitCodes[error.code], error.message, error.action, error);
  }
  if (error instanceof CommanderError) {
    // Commander puts what may have been meant on a line of its own, in brackets.
    const message = error.message.replace(/^error: /, "").replace(/\n\((.*)\)$/, ". $1");
    return usageFailure(message, "See `millrace --help`, or `millrace COMMAND --help`.");
  }
  if (error instanceof ConnectError) return failureFromConnect(error);
  if (error instanceof pg.DatabaseError) return failureFromPostgres(error);
  const message = error instanceof Error ? error.message : String(error);
  return new Failure("INTERNAL", exitCode.failure, message, "", error);
}

/** The codes with which the system refuses an address to listen on. */
function isAddressTrouble(cause: unknown): boolean {
  const codes: readonly unknown[] = ["EADDRINUSE", "EADDRNOTAVAIL"];
  return cause instanceof Error && "code" in cause && codes.includes(cause.code);
}

function failureFromConnect(error: ConnectError): Failure {
  const code = feedErrorCodeOf(error);
  if (code !== undefined) {
    const action = error.findDetails(ErrorDetailSchema)[0]?.action ?? "";
    const message = action === "" ? error.rawMessage : error.rawMessage.replace(` ${action}`, "");
    return new Failure(code, exitCodes[code], message, action, error);
  }
  const plaintext = error.rawMessage.includes("wrong version number");
  const reason = plaintext ? "it does not speak TLS" : error.rawMessage.replace(/[.\s]+$/, "");
  return new Failure(
    error.code === Code.Unimplemented ? "NOT_MILLRACE" : "SERVER_UNREACHABLE",
    exitCode.serverUnreachable,
    `no answer from the Millrace server: ${reason}.`,
    plaintext
      ? "Write http:// instead of https://, or start it with --tls-cert and --tls-key."
      : "Check that it runs (`npm start`) and that --url or MILLRACE_URL names it.",
    error,
  );
}

/** The member of the closed set that the server named; `undefined` when the failure is not of its making. */
export function feedErrorCodeOf(error: ConnectError): FeedErrorCode | undefined {
  const [detail] = error.findDetails(ErrorDetailSchema);
  const name = detail === undefined ? undefined : ErrorCode[detail.code];
  return Object.keys(exitCodes).find((code): code is FeedErrorCode => code === name);
}

function failureFromPostgres(error: pg.DatabaseError): Failure {
  const state = error.code ?? "XX000";
  const message = `${error.message}${error.detail === undefined ? "" : ` (${error.detail})`}`;
  const code = `SQLSTATE_${state}`;
  const told = (exit: ExitCode, action: string) => new Failure(code, exit, message, error.hint ?? action, error);
  // No such schema, function or table, and it is one of Millrace's.
  if (["3F000", "42883", "42P01"].includes(state) && /\bmillrace\b/.test(error.message)) {
    return told(exitCode.failure, "Run `millrace migrate` on this database first.");
  }
  if (state === "42501") return told(exitCode.failure, "`millrace doctor` names the grants that this role lacks.");
  // 08 connection, 57P shutting down or starting up, 53300 too many connections
  if (/^(?:08|57P|53300)/.test(state)) return told(exitCode.databaseUnreachable, "Try again once Postgres is up.");
  // 22 the value of an argument is not acceptable
  return told(state.startsWith("22") ? exitCode.usage : exitCode.failure, "");
}

/** For people: two lines at most. */
export function failureText(failure: Failure): string {
  const message = /[.!?:]$/.test(failure.message) ? failure.message : `${failure.message}.`;
  return `millrace: ${message}${failure.action === "" ? "" : `\n  ${failure.action}`}`;
}

/** For scripts: one line of JSON. */
export function failureJson(failure: Failure): string {
  const { code, message, action } = failure;
  return JSON.stringify({ error: { code, message, action, exitCode: failure.exitCode } });
}
