import pg from "pg";
import { FeedError } from "../core/errors.ts";

/** SQLSTATEs that Millrace looks at; the whole list is Postgres' appendix A. */
export const sqlState = {
  lockNotAvailable: "55P03",
  insufficientPrivilege: "42501",
  undefinedTable: "42P01",
  undefinedObject: "42704",
  invalidParameterValue: "22023",
  undefinedFunction: "42883",
  undefinedSchema: "3F000",
  serializationFailure: "40001",
  deadlockDetected: "40P01",
} as const;

/** The SQLSTATE of a failure, `undefined` when the database did not answer at all. */
export function sqlStateOf(error: unknown): string | undefined {
  return error instanceof pg.DatabaseError ? error.code : undefined;
}

/**
 * A failed connection as an error with what to do. INVALID_REQUEST when trying again cannot help (wrong password, no such
 * database), DATABASE_UNAVAILABLE otherwise. The sentence names the host and never the password.
 */
export function connectionError(error: unknown, client: pg.Client): FeedError {
  const place = `${client.host}:${client.port}/${client.database ?? ""}`;
  const message = sentence(`could not connect to Postgres at ${place}: ${reason(error)}`);
  const state = sqlStateOf(error);
  if (state?.startsWith("28") || state === "3D000") {
    return new FeedError("INVALID_REQUEST", message, "Correct the role, password or database in DATABASE_URL.", {
      cause: error,
    });
  }
  return new FeedError(
    "DATABASE_UNAVAILABLE",
    message,
    "Check that Postgres runs there and that DATABASE_URL names it.",
    {
      cause: error,
    },
  );
}

function reason(error: unknown): string {
  if (error instanceof AggregateError) return error.errors.map(reason).join("; ");
  return error instanceof Error ? error.message : String(error);
}

/** A message of Postgres' style (no capital, no period) as a sentence. A name at its beginning keeps its spelling. */
export function sentence(message: string): string {
  const told = /^[a-z]+[ ,:]/.test(message) ? `${message.slice(0, 1).toUpperCase()}${message.slice(1)}` : message;
  return told.endsWith(".") ? told : `${told}.`;
}
