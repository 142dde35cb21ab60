import pg from "pg";
import { rowsOf } from "./catalog.ts";
import { epochFindings } from "./epoch/checks.ts";
import { error, type Finding, ok, warning } from "./finding.ts";
import { type Lease, withLease } from "./lease.ts";
import { look } from "./look.ts";
import { shippedMigrations } from "./migration-files.ts";
import { queryError } from "./query-error.ts";
import { storageFindings } from "./retention/checks.ts";
import { type ReadableSource, sourceRights } from "./snapshot/sources.ts";
import { readSources } from "./sources.ts";
import { capabilities, serverFacts } from "./statements/doctor.ts";
import { appliedMigrations, lastTickAhead, migrationsReadable, schemaOwner } from "./statements/lookups.ts";
import { preparedTransactions } from "./statements/why.ts";
import { captureFinding, type PreparedTransaction } from "./why.ts";

/** How `doctor` looks. */
export interface DoctorOptions {
  /** Milliseconds since the Unix epoch, to compare the database's clock with. Default `Date.now`. */
  readonly now?: (() => number) | undefined;
  readonly signal?: AbortSignal | undefined;
}

interface ServerFacts {
  readonly version: string;
  readonly number: number;
  readonly role: string;
  readonly pid: number;
  readonly recovery: boolean;
  readonly synchronousCommit: string;
  readonly fsync: string;
  readonly fullPageWrites: string;
  readonly isolation: string;
  readonly readOnly: string;
  readonly prepared: number;
  readonly notifications: number;
  readonly clockMs: number;
  readonly schema: boolean;
}

const oldestServer = 130_000;
const newestServer = 190_000;

/**
 * Examines server, session, schema, rights and sources, as the role that the pool logs in as. Every check yields a finding,
 * `ok` too; one that cannot be made yields CHECK_FAILED and does not keep the others from being made. Changes nothing.
 *
 * @throws FeedError DATABASE_UNAVAILABLE when there is no connection at all.
 */
export async function doctor(pool: pg.Pool, options: DoctorOptions = {}): Promise<readonly Finding[]> {
  const signal = options.signal ?? new AbortController().signal;
  const now = options.now ?? Date.now;
  try {
    return await withLease(pool, signal, async (lease) => {
      const [facts] = await look(lease.client, () => lease.rows<ServerFacts & pg.QueryResultRow>(serverFacts));
      if (facts === undefined) throw new Error("the server said nothing of itself");
      const findings = [...serverFindings(facts), ...sessionFindings(facts, lease), clockFinding(facts, now())];
      const schema = await look(lease.client, () => schemaFinding(lease, facts));
      findings.push(schema);
      if (schema.severity === "error" && schema.code !== "SCHEMA_NEWER") return findings;
      for (const check of checks) findings.push(...(await attempt(check, lease, facts)));
      return findings;
    });
  } catch (cause) {
    throw signal.aborted ? signal.reason : queryError(cause, "examine the database");
  }
}

type Check = (lease: Lease, facts: ServerFacts) => Promise<readonly Finding[]>;

async function attempt(check: Check, lease: Lease, facts: ServerFacts): Promise<readonly Finding[]> {
  try {
    return await look(lease.client, () => check(lease, facts));
  } catch (cause) {
    if (!(cause instanceof pg.DatabaseError)) throw cause;
    return [
      error(
        "CHECK_FAILED",
        `A check failed: ${cause.message}.`,
        cause.hint ?? "Mend what the other findings name, and look again.",
      ),
    ];
  }
}

function serverFindings(facts: ServerFacts): readonly Finding[] {
  return [
    versionFinding(facts),
    facts.recovery
      ? error("IN_RECOVERY", "This server is a standby: nothing can be settled here.", "Point Millrace at the primary.")
      : ok("IN_RECOVERY", "This server is a primary."),
    facts.fsync === "on" && facts.fullPageWrites === "on"
      ? ok("CRASH_SAFETY", "fsync and full_page_writes are on.")
      : error(
          "CRASH_SAFETY",
          "fsync or full_page_writes is off: a crash of the machine can lose or corrupt what was committed and delivered.",
          "Set fsync = on and full_page_writes = on in postgresql.conf.",
        ),
    notificationFinding(facts.notifications),
    facts.prepared === 0
      ? ok("PREPARED_TRANSACTIONS", "max_prepared_transactions is 0: writers wake a sleeping server at once.")
      : warning(
          "PREPARED_TRANSACTIONS",
          `max_prepared_transactions is ${facts.prepared}: writers cannot wake a sleeping server, which polls every 100 ms.`,
          "Set max_prepared_transactions = 0 if nobody uses PREPARE TRANSACTION.",
        ),
  ];
}

function versionFinding({ version, number }: ServerFacts): Finding {
  if (number < oldestServer) {
    return error("SERVER_VERSION", `This is Postgres ${version}; Millrace needs 13 or later.`, "Upgrade the server.");
  }
  return number < newestServer
    ? ok("SERVER_VERSION", `Postgres ${version}.`)
    : warning(
        "SERVER_VERSION",
        `Postgres ${version} is newer than what Millrace was tried on, 13 to 18.`,
        "Upgrade Millrace.",
      );
}

function notificationFinding(usage: number): Finding {
  const message = `The notification queue is ${Math.round(usage * 100)} % full`;
  if (usage < 0.5) return ok("NOTIFICATION_QUEUE", `${message}.`);
  const action = "End the session that listens but has been in one transaction for long: see pg_stat_activity.";
  return usage < 0.9
    ? warning("NOTIFICATION_QUEUE", `${message}: servers poll instead.`, action)
    : error("NOTIFICATION_QUEUE", `${message}: at 100 % every commit that notifies fails.`, action);
}

function sessionFindings(facts: ServerFacts, lease: Lease): readonly Finding[] {
  return [
    poolerFinding(facts.pid, lease),
    facts.synchronousCommit === "off"
      ? warning(
          "SYNCHRONOUS_COMMIT",
          `synchronous_commit is off for role ${facts.role}. Ticks switch it on for themselves, so nothing delivered is ever lost; but writers with this setting can lose their last commits in a crash.`,
          `Run \`alter role ${pg.escapeIdentifier(facts.role)} reset synchronous_commit\`, or leave it if that is meant.`,
        )
      : ok("SYNCHRONOUS_COMMIT", `synchronous_commit is ${facts.synchronousCommit}.`),
    ok(
      "TRANSACTION_DEFAULTS",
      `Default isolation is ${facts.isolation}${facts.readOnly === "on" ? ", read only" : ""}; Millrace's transactions say their own.`,
    ),
  ];
}

/** A pooler answers with a process id of its own, not that of the session behind it. */
function poolerFinding(pid: number, { client }: Lease): Finding {
  const announced: unknown = Reflect.get(client, "processID");
  return announced === pid
    ? ok("POOLER", "The connection goes to Postgres itself.")
    : warning(
        "POOLER",
        "A pooler stands between: sessions may change with every transaction, so there is no LISTEN, and servers poll.",
        "Give servers the address of Postgres itself as their direct URL; the pooler may stay for the rest.",
      );
}

function clockFinding({ clockMs }: ServerFacts, nowMs: number): Finding {
  const apart = Math.round(Math.abs(clockMs - nowMs) / 1000);
  return apart < 5
    ? ok("CLOCK", "The database's clock agrees with this machine's.")
    : warning(
        "CLOCK",
        `The database's clock is ${apart} s ${clockMs > nowMs ? "ahead of" : "behind"} this machine's: lags and times will look wrong.`,
        "Have both keep time with NTP.",
      );
}

async function schemaFinding(lease: Lease, { schema, role }: ServerFacts): Promise<Finding> {
  if (!schema) {
    return error(
      "SCHEMA_MISSING",
      "This database has no Millrace schema.",
      "Run `millrace migrate` as a role that may create it.",
    );
  }
  const [rights] = await rowsOf(lease.client, migrationsReadable);
  if (rights?.readable !== true) {
    return error("GRANT_READ", `Role ${role} may not read the schema "millrace".`, allowing(role, "server"));
  }
  const found = (await rowsOf(lease.client, appliedMigrations)).at(-1)?.number ?? 0;
  const known = (await shippedMigrations()).at(-1)?.number ?? 0;
  if (found > known) {
    return error("SCHEMA_NEWER", `The schema is ${found}, this Millrace knows ${known}.`, "Upgrade Millrace.");
  }
  return found < known
    ? error("SCHEMA_OLDER", `The schema is ${found}, this Millrace needs ${known}.`, "Run `millrace migrate`.")
    : ok("SCHEMA", `The schema is ${found}, as this Millrace needs it.`);
}

const checks: readonly Check[] = [grants, owner, epochFindings, tickTime, prepared, storageFindings, capture, readable];

function allowing(role: string, capability: string): string {
  const name = pg.escapeLiteral(pg.escapeIdentifier(role));
  return `Run \`select millrace.allow(${name}, '${capability}')\` as the schema's owner or a superuser.`;
}

async function grants(lease: Lease, { role }: ServerFacts): Promise<readonly Finding[]> {
  const [may] = await lease.rows<{ mayRead: boolean; mayTick: boolean; mayPublish: boolean; mayWatch: boolean }>(
    capabilities,
  );
  const judge = (code: string, allowed: boolean | undefined, what: string) =>
    allowed === true
      ? ok(code, `Role ${role} may ${what}.`)
      : error(code, `Role ${role} may not ${what}, as a server must.`, allowing(role, "server"));
  return [
    judge("GRANT_READ", may?.mayRead, "read the feed"),
    judge("GRANT_TICK", may?.mayTick, "tick"),
    judge("GRANT_PUBLISH", may?.mayPublish, "publish"),
    // A server needs not watch: it is no fault, but who wonders why `watch` fails finds it here.
    may?.mayWatch === true
      ? ok("GRANT_WATCH", `Role ${role} may watch tables that it owns.`)
      : ok("GRANT_WATCH", `Role ${role} may not watch tables. ${allowing(role, "watcher")}`),
  ];
}

async function owner(lease: Lease): Promise<readonly Finding[]> {
  const [found] = await rowsOf(lease.client, schemaOwner);
  if (found === undefined) return [];
  const hand = `Run \`alter schema millrace owner to\` a role that is no superuser, and the same for what is in it.`;
  return [
    found.superuser
      ? warning(
          "OWNER_SUPERUSER",
          `The schema belongs to ${found.owner}, a superuser: capture runs with its rights.`,
          hand,
        )
      : ok("OWNER", `The schema belongs to ${found.owner}, which is no superuser.`),
  ];
}

async function tickTime(lease: Lease): Promise<readonly Finding[]> {
  const [row] = await rowsOf(lease.client, lastTickAhead);
  const ahead = Math.round((row?.aheadMs ?? 0) / 1000);
  return ahead < 5
    ? [ok("TICK_TIME", "The last tick is not in the future.")]
    : [
        warning(
          "TICK_TIME",
          `The last tick is ${ahead} s in the future: the database's clock was set back. Starting at a time is inexact until then.`,
          "Have the database's machine keep time with NTP.",
        ),
      ];
}

async function prepared(lease: Lease): Promise<readonly Finding[]> {
  const found = await lease.rows<PreparedTransaction & pg.QueryResultRow>(preparedTransactions);
  return found
    .filter(({ ageMs }) => ageMs > 3_600_000)
    .map(({ gid, role }) =>
      warning(
        "PREPARED_TRANSACTION",
        `Transaction '${gid}' of ${role} has been prepared for more than an hour: its events wait, and so does vacuum.`,
        `Run COMMIT PREPARED or ROLLBACK PREPARED '${gid}'.`,
      ),
    );
}

async function capture({ client }: Lease): Promise<readonly Finding[]> {
  const sources = await readSources(client);
  const problems = sources.flatMap((source) => source.problems);
  if (problems.length > 0) return problems.map(captureFinding);
  return [ok("CAPTURE", `${sources.length} watched table${sources.length === 1 ? " is" : "s are"} captured.`)];
}

async function readable(lease: Lease): Promise<readonly Finding[]> {
  return (await sourceRights(lease)).map((source: ReadableSource) =>
    source.refusal === undefined
      ? ok("SNAPSHOT_READ", `Snapshots of topic ${source.topic} can be taken.`)
      : warning(
          "SNAPSHOT_READ",
          `No snapshot of topic ${source.topic}: ${source.refusal.message}`,
          source.refusal.action,
        ),
  );
}
