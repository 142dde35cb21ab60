import type pg from "pg";
import { FeedError } from "../../core/errors.ts";
import type { SourceRequest, Sources, WatchedSource } from "../../core/source/sources.ts";
import { sqlState, sqlStateOf } from "../database-error.ts";
import { withLease } from "../lease.ts";
import { listSources, pollTable, unwatchTable, watchTable } from "../sources.ts";

/** Who asks waits no longer than this for a database that does not answer. */
const BOUND_MS = 60_000;

/** How the watched tables are reached. */
export interface SourceControlOptions {
  /** Of the role whose rights count. */
  readonly pool: pg.Pool;
  /** Longest time of one call, in milliseconds. Default 60,000. */
  readonly boundMs?: number | undefined;
}

/** The watched tables of this database, with the rights of the pool's role. */
export function createSourceControl({ pool, boundMs = BOUND_MS }: SourceControlOptions): Sources {
  const bounded = async <T>(
    doing: string,
    signal: AbortSignal,
    use: (client: pg.PoolClient, signal: AbortSignal) => Promise<T>,
  ): Promise<T> => {
    const bound = AbortSignal.timeout(boundMs);
    const either = AbortSignal.any([signal, bound]);
    try {
      return await withLease(pool, either, ({ client }) => use(client, either));
    } catch (error) {
      throw bound.aborted && !signal.aborted ? noAnswer(doing, boundMs) : error;
    }
  };
  return {
    async watch(request, signal) {
      return await bounded(`watch ${request.table}`, signal, (client, ending) =>
        begin(client, request, ending).catch((error: unknown) => {
          throw withoutRights(error, `millrace watch ${request.table}`);
        }),
      );
    },
    async unwatch(table, signal) {
      await bounded(`unwatch ${table}`, signal, (client, ending) =>
        unwatchTable(client, table, { signal: ending }).catch((error: unknown) => {
          throw withoutRights(error, `millrace unwatch ${table}`);
        }),
      );
    },
    list: (signal) => bounded("list the watched tables", signal, (client) => listSources(client)),
  };
}

async function begin(
  client: pg.ClientBase,
  { polling, ...request }: SourceRequest,
  signal: AbortSignal,
): Promise<WatchedSource> {
  const warnings: { readonly message: string; readonly action: string }[] = [];
  const onWarning = (message: string, action: string): void => {
    warnings.push({ message, action });
  };
  if (polling === undefined) {
    return { source: await watchTable(client, request, { signal, onWarning }), warnings };
  }
  const stray = Object.entries({
    before_values: request.beforeValues,
    truncate: request.captureTruncate,
    order: request.capture,
    reset: request.reset === true ? true : undefined,
  }).find(([, value]) => value !== undefined);
  if (stray !== undefined) {
    throw new FeedError(
      "INVALID_REQUEST",
      `\`${stray[0]}\` is for triggers, which polling does without.`,
      "Leave one of the two out.",
      { violations: [{ field: stray[0], message: "is for triggers, which polling does without" }] },
    );
  }
  return { source: await pollTable(client, { ...request, ...polling }, { signal, onWarning }), warnings };
}

/** A server's role is not a table's owner as a rule: who is, or who may give the rights, runs the command. */
function withoutRights(error: unknown, command: string): unknown {
  const refused = error instanceof FeedError && sqlStateOf(error.cause) === sqlState.insufficientPrivilege;
  if (!refused) return error;
  return new FeedError(
    "TOPIC_FORBIDDEN",
    error.message,
    `Run \`${command}\` with DATABASE_URL of a role that may, or give this server's role the right: ${error.action}`,
    { cause: error },
  );
}

function noAnswer(doing: string, boundMs: number): FeedError {
  return new FeedError(
    "DATABASE_UNAVAILABLE",
    `Could not ${doing} within ${boundMs / 1000} s.`,
    "Ask again; `millrace why` says what holds the database up, and whether the change came through `millrace sources`.",
    { retryAfterMs: 1_000 },
  );
}
