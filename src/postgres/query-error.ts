import pg from "pg";
import { FeedError } from "../core/errors.ts";
import { EpochOver } from "../core/lineage.ts";
import { sqlState } from "./database-error.ts";

/** What a role lacks or a schema misses: the client cannot mend it. */
const misconfigured: ReadonlySet<string> = new Set([
  sqlState.insufficientPrivilege,
  sqlState.undefinedTable,
  sqlState.undefinedFunction,
  sqlState.undefinedSchema,
]);

/** A server in recovery refuses read-write transactions and locks before any function of ours can say what it is. */
const standby: ReadonlySet<string> = new Set(["0A000", "25006", "MR002"]);

/** Connection lost, no resources, operator's intervention, lock and serialization failures: classes that pass. */
const passing = /^(?:08|40|53|55|57|58|25P)/;

/**
 * A failed statement as an error with what to do. FeedErrors and the reasons of aborted signals stay as they are.
 *
 * @param doing completes "could not …": `take the snapshot`.
 */
export function queryError(error: unknown, doing: string): unknown {
  if (error instanceof FeedError || (error instanceof Error && error.name === "AbortError")) return error;
  const reason = error instanceof Error ? error.message : String(error);
  const message = `Could not ${doing}: ${reason}.`;
  if (!(error instanceof pg.DatabaseError)) return unavailable(message, error);
  const state = error.code ?? "";
  // Another replica has begun a new epoch; or this is another server, or another state of the data, and nobody has yet.
  if (state === "MR001" || state === "MR003") return new EpochOver(message, { cause: error });
  if (standby.has(state)) {
    const action = "Point Millrace at the primary; it goes on by itself once this server is promoted.";
    return new FeedError("DATABASE_UNAVAILABLE", message, action, { cause: error, retryAfterMs: 1000 });
  }
  if (misconfigured.has(state) || (state.startsWith("MR") && state !== "MR005")) {
    return new FeedError(
      "DATABASE_UNAVAILABLE",
      message,
      error.hint ?? "Run `millrace doctor`: it names the migration or grant that is missing.",
      { cause: error },
    );
  }
  if (passing.test(state)) return unavailable(message, error);
  return new FeedError("INTERNAL", message, `Report it with the SQLSTATE, ${state}.`, { cause: error });
}

function unavailable(message: string, cause: unknown): FeedError {
  return new FeedError(
    "DATABASE_UNAVAILABLE",
    message,
    "Try again once the database answers; a running server reconnects by itself.",
    {
      cause,
      retryAfterMs: 1000,
    },
  );
}
