import type pg from "pg";
import { FeedError } from "../../core/errors.ts";
import type { Version } from "../../core/event.ts";
import { sentence, sqlState, sqlStateOf } from "../database-error.ts";
import { queryError } from "../query-error.ts";
import { placeHold, releaseHold, writeRetention } from "./statements.ts";
import type { RetentionSettings } from "./storage.ts";

/** A hold as it is now. */
export interface Hold {
  readonly name: string;
  /** The events after it are kept. */
  readonly version: Version;
  /** Milliseconds since the Unix epoch. */
  readonly expiresAtMs: number;
}

/** What to hold. */
export interface HoldRequest {
  readonly name: string;
  /** The events after it; all that are kept now by default. */
  readonly version?: Version | undefined;
  /** Milliseconds from now. */
  readonly lastsMs: number;
}

/**
 * Sets what is kept, for all servers.
 *
 * @throws FeedError INVALID_REQUEST for a role that is not the owner, or limits that are none.
 */
export async function setRetention(client: pg.ClientBase, settings: RetentionSettings): Promise<void> {
  const { keepAgeMs, keepBytes, holdCapAgeMs, holdCapBytes } = settings;
  const values = [seconds(keepAgeMs), keepBytes ?? null, seconds(holdCapAgeMs), holdCapBytes ?? null];
  await asked(client, "set what is kept", "Do it as the owner of Millrace's schema or a superuser.", (run) =>
    run(writeRetention, values),
  );
}

/**
 * Places a hold, or renews the one of that name.
 *
 * @throws FeedError INVALID_REQUEST for a version that is not kept any more or not settled yet.
 */
export async function hold(client: pg.ClientBase, { name, version, lastsMs }: HoldRequest): Promise<Hold> {
  const rows = await asked(client, "hold history", allow, (run) =>
    run<Hold & pg.QueryResultRow>(placeHold, [name, version ?? null, seconds(lastsMs)]),
  );
  const [held] = rows;
  if (held === undefined) throw new FeedError("INTERNAL", "The hold gave no answer.", "Report this.");
  return held;
}

/** Ends a hold. False when there was none of that name. */
export async function release(client: pg.ClientBase, name: string): Promise<boolean> {
  const rows = await asked(client, "release the hold", allow, (run) =>
    run<{ readonly released: boolean }>(releaseHold, [name]),
  );
  return rows[0]?.released === true;
}

const allow = "Run `select millrace.allow('<role>', 'server')` as the owner of Millrace's schema or a superuser.";

type Run = <R extends pg.QueryResultRow>(sql: string, values: readonly unknown[]) => Promise<readonly R[]>;

/** A statement in a transaction that writes and is READ COMMITTED, whatever the role's defaults. */
async function asked<T>(
  client: pg.ClientBase,
  doing: string,
  toBeAllowed: string,
  use: (run: Run) => Promise<T>,
): Promise<T> {
  try {
    await client.query("begin isolation level read committed read write; set local lock_timeout = '5s'");
    const result = await use(
      async <R extends pg.QueryResultRow>(sql: string, values: readonly unknown[]) =>
        (await client.query<R>(sql, [...values])).rows,
    );
    await client.query("commit");
    return result;
  } catch (error) {
    // When that fails too, the connection is gone, and the first error says why.
    await client.query("rollback").catch(() => undefined);
    throw requestError(error, doing, toBeAllowed);
  }
}

function requestError(error: unknown, doing: string, toBeAllowed: string): unknown {
  const state = sqlStateOf(error);
  if (!(error instanceof Error) || state === undefined) return queryError(error, doing);
  const hint = "hint" in error && typeof error.hint === "string" ? error.hint : undefined;
  if (state === sqlState.insufficientPrivilege) {
    return new FeedError("INVALID_REQUEST", sentence(error.message), toBeAllowed, { cause: error });
  }
  if (state === sqlState.invalidParameterValue) {
    return new FeedError("INVALID_REQUEST", sentence(error.message), hint ?? "Correct the request.", { cause: error });
  }
  return queryError(error, doing);
}

function seconds(ms: number | undefined): number | null {
  return ms === undefined ? null : ms / 1000;
}
