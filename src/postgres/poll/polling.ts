import { duration } from "../finding.ts";

/** How a source is polled, and how that goes. */
export interface Polling {
  /** Rises with every change. */
  readonly column: string;
  /** Says of a row that it is deleted; `null` when nothing does. */
  readonly deletedColumn: string | null;
  readonly everyMs: number;
  readonly overlapMs: number;
  /** Since the last complete look, or since it was asked for. */
  readonly sinceLookMs: number;
  /** Since looks began to fail; `null` when the last one did not. */
  readonly failingMs: number | null;
  /** Why the last look failed. */
  readonly failure: string | null;
}

/** What is wrong with the polling of a table. */
export interface PollingProblem {
  readonly kind: "POLL_FAILING" | "POLL_BEHIND";
  readonly message: string;
  readonly action: string;
}

/** A look may be late by this much before anybody is told, in milliseconds. */
const lateMs = 60_000;

/** What is wrong with the polling of this table: nothing is lost by it, but comes later. */
export function* pollingProblems(table: string, polling: Polling): Generator<PollingProblem> {
  const { failure, failingMs, sinceLookMs, everyMs, column } = polling;
  if (failure !== null) {
    yield {
      kind: "POLL_FAILING",
      message: `Polling ${table} has been failing for ${duration(failingMs ?? 0)}: ${failure}.`,
      action: failureAction(table, failure),
    };
  } else if (sinceLookMs > Math.max(lateMs, 10 * everyMs)) {
    yield {
      kind: "POLL_BEHIND",
      message: `The last complete look at ${table} was ${duration(sinceLookMs)} ago.`,
      action: `Start a Millrace server on this database; if one runs, see that an index of ${table} begins with ${column}.`,
    };
  }
}

function failureAction(table: string, failure: string): string {
  if (failure.includes("permission denied"))
    return `Grant the server's role SELECT on ${table} and USAGE on its schema: changes are told then.`;
  if (failure.includes("row-level security"))
    return "Run `alter role <the server's> bypassrls` as a superuser: changes are told then.";
  return `Mend that, or run \`millrace watch ${table} --poll <column>\` again: changes are told then.`;
}
