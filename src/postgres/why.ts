import { setTimeout as delay } from "node:timers/promises";
import type pg from "pg";
import type { Version } from "../core/event.ts";
import { epochFindings } from "./epoch/checks.ts";
import { duration, error, type Finding, ok, warning } from "./finding.ts";
import { type Lease, withLease } from "./lease.ts";
import { look } from "./look.ts";
import { queryError } from "./query-error.ts";
import { readStorage, type StorageProblem, storageFinding, storageProblems } from "./retention/storage.ts";
import { readSources, type SourceProblem } from "./sources.ts";
import { lastTick, lockWaits, openTransactions, preparedTransactions, seesActivity } from "./statements/why.ts";
import {
  type Restart,
  readRestarts,
  readStuckSessions,
  restartFinding,
  type StuckSession,
  stuckFinding,
  usualSilentMs,
} from "./watch/stuck-sessions.ts";

/** What the feed waits for, as far as this role may see it. Ages are as of the look. */
export interface Why {
  readonly lastTick: LastTick;
  /** Oldest first, at most five. */
  readonly transactions: readonly OpenTransaction[];
  /** Oldest first, at most five. */
  readonly prepared: readonly PreparedTransaction[];
  readonly waits: readonly LockWait[];
  /** Sessions of servers that stand still. */
  readonly stuck: readonly StuckSession[];
  /** What servers found stuck of themselves, and restarted, within the last hour; the last of each part. */
  readonly restarts: readonly Restart[];
  /** What is wrong with the capture of watched tables. */
  readonly capture: readonly SourceProblem[];
  /** What is wrong with what is kept. */
  readonly storage: readonly StorageProblem[];
  /** Why nothing can be settled before a new epoch begins; empty when nothing keeps the one in force from going on. */
  readonly epoch: readonly Finding[];
  /** Whether sessions of other roles are visible; if not, `transactions` names only those that wrote events, without age. */
  readonly seesActivity: boolean;
  /** The above in sentences, errors first. */
  readonly findings: readonly Finding[];
}

/** The last tick and what is committed beyond it. */
export interface LastTick {
  readonly tick: number;
  readonly head: Version;
  /** Microseconds since the Unix epoch, by the database's clock. */
  readonly timeMicros: number;
  readonly ageMs: number;
  /** Committed events that no tick has settled. 10,001 means more than that. */
  readonly unsettled: number;
  /** Since the oldest of them was written. */
  readonly unsettledAgeMs: number | null;
}

/** A transaction that is not over. It holds up nobody's events but its own. */
export interface OpenTransaction {
  readonly pid: number;
  readonly role: string | null;
  readonly application: string | null;
  readonly state: string | null;
  readonly ageMs: number | null;
  readonly wroteEvents: boolean;
  /** Its last statement, for members of the role that owns Millrace; `null` for everybody else. */
  readonly query: string | null;
}

/** A transaction that waits for COMMIT PREPARED or ROLLBACK PREPARED. */
export interface PreparedTransaction {
  readonly gid: string;
  readonly role: string;
  readonly ageMs: number;
  readonly wroteEvents: boolean;
}

/** A session that waits for a lock on a table that Millrace needs. */
export interface LockWait {
  readonly pid: number;
  readonly relation: string;
  readonly mode: string;
  /** 0 stands for a prepared transaction. */
  readonly blockedBy: readonly number[];
}

/** How `why` looks. */
export interface WhyOptions {
  /** Events that are committed and not settled are looked at again after this long, in milliseconds. Default 500. */
  readonly graceMs?: number | undefined;
  /** How long the tail of a server may say nothing, in milliseconds; other sessions up to three times as long. Default 15,000. */
  readonly silentMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

const longTransactionMs = 10_000;
const longPreparedMs = 60_000;

/**
 * Looks for what holds the feed up.
 *
 * @throws FeedError DATABASE_UNAVAILABLE, also when the schema or the rights to read it are missing.
 */
export async function why(pool: pg.Pool, options: WhyOptions = {}): Promise<Why> {
  const signal = options.signal ?? new AbortController().signal;
  try {
    const { silentMs = usualSilentMs } = options;
    const first = await examine(pool, silentMs, signal);
    // What has committed a moment ago is not late. Whoever ticks does so several times meanwhile.
    const again = first.lastTick.unsettled > 0;
    if (again) await delay(options.graceMs ?? 500, undefined, { signal });
    const seen = again ? await examine(pool, silentMs, signal) : first;
    const stuck = again && seen.lastTick.tick === first.lastTick.tick;
    return { ...seen, findings: bySeverity(findings(seen, stuck)) };
  } catch (cause) {
    throw signal.aborted ? signal.reason : queryError(cause, "look for what holds the feed up");
  }
}

type Seen = Omit<Why, "findings">;

function examine(pool: pg.Pool, silentMs: number, signal: AbortSignal): Promise<Seen> {
  return withLease(pool, signal, async (lease) => {
    const seen = await look(lease.client, () => seenBy(lease, silentMs));
    // In a transaction of its own: what it asks fails where the epoch is another's.
    const epoch = await look(lease.client, () => epochFindings(lease));
    return { ...seen, epoch: epoch.filter(({ severity }) => severity === "error") };
  });
}

async function seenBy({ client, rows }: Lease, silentMs: number): Promise<Omit<Seen, "epoch">> {
  const [tick] = await rows<LastTick & pg.QueryResultRow>(lastTick);
  if (tick === undefined) throw new Error("millrace.tick is empty");
  return {
    lastTick: tick,
    transactions: await rows<OpenTransaction & pg.QueryResultRow>(openTransactions),
    prepared: await rows<PreparedTransaction & pg.QueryResultRow>(preparedTransactions),
    waits: await rows<LockWait & pg.QueryResultRow>(lockWaits),
    stuck: await readStuckSessions({ rows }, silentMs),
    restarts: await readRestarts({ rows }),
    seesActivity: (await rows<{ sees: boolean }>(seesActivity))[0]?.sees ?? false,
    capture: (await readSources(client)).flatMap(({ problems }) => problems),
    storage: storageProblems(await readStorage({ rows })),
  };
}

function findings(seen: Seen, stuck: boolean): readonly Finding[] {
  return [
    ...(seen.epoch.length > 0 ? seen.epoch : [settling(seen.lastTick, stuck)]),
    ...seen.stuck.map(stuckFinding),
    ...seen.restarts.map(restartFinding),
    ...seen.waits.map(waitFinding),
    ...seen.capture.map(captureFinding),
    ...seen.storage.map(storageFinding),
    ...seen.prepared.flatMap(preparedFinding),
    ...seen.transactions.flatMap(transactionFinding),
    ...(seen.seesActivity ? [] : [hidden]),
  ];
}

/** Errors, then warnings, then the rest; otherwise in their order. */
export function bySeverity(all: readonly Finding[]): readonly Finding[] {
  const rank = { error: 0, warning: 1, ok: 2 };
  return all.toSorted((a, b) => rank[a.severity] - rank[b.severity]);
}

function settling({ tick, head, ageMs, unsettled, unsettledAgeMs }: LastTick, stuck: boolean): Finding {
  if (!stuck)
    return ok("SETTLING", `All that is committed is settled: version ${head}, tick ${tick}, ${duration(ageMs)} ago.`);
  const count = unsettled > 10_000 ? "More than 10,000" : String(unsettled);
  return error(
    "NOT_SETTLING",
    `${count} committed event${unsettled === 1 ? " is" : "s are"} not settled, the oldest written ${duration(unsettledAgeMs ?? 0)} ago; the last tick was ${duration(ageMs)} ago.`,
    "Start a Millrace server on this database; if one runs, its log and the lock waits below say what stops it.",
  );
}

function waitFinding({ pid, relation, mode, blockedBy }: LockWait): Finding {
  const holders = blockedBy.map((blocker) => (blocker === 0 ? "a prepared transaction" : `pid ${blocker}`)).join(", ");
  return warning(
    "LOCK_WAIT",
    `pid ${pid} waits for ${mode} on ${relation}, which ${holders === "" ? "nobody any more" : holders} has.`,
    "End the transaction that has it, or wait for it.",
  );
}

/** What is wrong with the capture of a table, as a finding. */
export function captureFinding({ kind, message, action }: SourceProblem): Finding {
  return nothingLostYet.has(kind) ? warning(kind, message, action) : error(kind, message, action);
}

/** Of which nothing is lost yet. */
const nothingLostYet: ReadonlySet<SourceProblem["kind"]> = new Set([
  "POLL_BEHIND",
  "COLUMN_GONE",
  "TABLE_GONE",
  "KEY_NULLABLE",
  "TABLE_UNLOGGED",
]);

function preparedFinding({ gid, role, ageMs, wroteEvents }: PreparedTransaction): readonly Finding[] {
  if (!wroteEvents && ageMs < longPreparedMs) return [];
  const text = `Transaction '${gid}' of ${role} was prepared ${duration(ageMs)} ago`;
  const decide = `Run COMMIT PREPARED or ROLLBACK PREPARED '${gid}'.`;
  return wroteEvents
    ? [
        warning(
          "PREPARED_TRANSACTION",
          `${text}; its events come when it is committed, nobody else's wait for it.`,
          decide,
        ),
      ]
    : [warning("PREPARED_TRANSACTION", `${text}; it wrote no events, but holds vacuum and its locks.`, decide)];
}

function transactionFinding(transaction: OpenTransaction): readonly Finding[] {
  const { pid, role, application, state, ageMs, wroteEvents, query } = transaction;
  if (ageMs !== null && ageMs < longTransactionMs) return [];
  const who = [role, application === "" ? null : application].filter((part) => part !== null).join(", ");
  const text = `pid ${pid}${who === "" ? "" : ` (${who})`} has been in a transaction for ${
    ageMs === null ? "a time that this role may not see" : duration(ageMs)
  }${state === null ? "" : `, ${state}`}${query === null || query === "" ? "" : `: ${query.replaceAll(/\s+/g, " ").trim().slice(0, 200)}`}`;
  return wroteEvents
    ? [
        warning(
          "OPEN_TRANSACTION",
          `${text}. It wrote events, which come when it commits; nobody else's wait for it.`,
          `Wait for it, or run select pg_terminate_backend(${pid}).`,
        ),
      ]
    : [ok("OPEN_TRANSACTION", `${text}. It wrote no events and holds no event up.`)];
}

const hidden = warning(
  "ACTIVITY_HIDDEN",
  "This role may not see other roles' sessions: transactions that wrote no events, and ages, are not shown.",
  "Run `grant pg_read_all_stats to <role>` as a superuser.",
);
