import { FeedError } from "../../core/errors.ts";
import { sqlStateOf } from "../database-error.ts";

/** untranslatable_character and character_not_in_repertoire: the database's encoding has no such character. */
const states: ReadonlySet<string | undefined> = new Set(["22P05", "22021"]);

/** Whether a statement failed for a text that this database cannot hold. */
export function isUnstorable(error: unknown): boolean {
  return states.has(sqlStateOf(error instanceof FeedError ? error.cause : error));
}

/** Of texts that Postgres, or this database in its encoding, cannot hold. */
export function unstorable(cause?: unknown): FeedError {
  return new FeedError(
    "INVALID_REQUEST",
    "A text holds a character that this database cannot store.",
    "Leave U+0000 out, and in a database that is not in UTF8 what its encoding lacks.",
    { cause },
  );
}
