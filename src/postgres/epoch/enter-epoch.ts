import pg from "pg";
import { FeedError } from "../../core/errors.ts";
import type { Version } from "../../core/event.ts";
import type { Ancestor, Lineage } from "../../core/lineage.ts";
import type { Tick } from "../../core/page.ts";
import { sentence, sqlStateOf } from "../database-error.ts";
import type { Lease } from "../lease.ts";
import { look } from "../look.ts";
import { tickFate } from "../statements/tick.ts";
import { beginEpoch, epochInForce, readLineage, restoreUnderWay } from "./statements.ts";

/** What a store has read of a database: proof for the store that comes after it, should the database not hold it any more. */
export interface Followed extends Lineage {
  /** The newest ticks that were shown to anybody. */
  readonly newest: readonly Tick[];
}

/** An epoch that was begun. */
export interface BegunEpoch {
  readonly epoch: string;
  readonly parent: string;
  /** The last version that the two share. */
  readonly forkVersion: Version;
  /** `restored`, `promoted`, `copied`, `upgraded` or `rolled_back`. */
  readonly reason: string;
  /** Committed events that no tick had settled when the dump was made; `undefined` unless `restored`. */
  readonly unsettled: number | undefined;
}

/** How to meet a database that the epoch in force was not written by. */
export interface EntryOptions {
  /** `auto` begins a new epoch, `refuse` fails and leaves that to somebody else. */
  readonly newEpoch: "auto" | "refuse";
  /** What the store before this one has read, at the same address. */
  readonly followed?: Followed | undefined;
  /** Told of an epoch that this call has begun. */
  readonly onBegun?: ((begun: BegunEpoch) => void) | undefined;
}

const copied = "MR003";

/**
 * The epoch to serve, with its ancestors. Begins one when the database turns out to be a copy, or older than what was read
 * from it before.
 *
 * @throws FeedError INVALID_REQUEST for `refuse` where one is due; DATABASE_UNAVAILABLE while a dump is being restored. What
 * the driver throws: a standby raises MR002.
 */
export async function enterEpoch(lease: Lease, options: EntryOptions): Promise<Lineage> {
  const due = await epochDue(lease, options.followed);
  if (due.kind === "in_force") return { epoch: due.epoch, lineage: await lineageOf(lease, due.epoch) };
  if (options.newEpoch === "refuse") {
    throw new FeedError(
      "INVALID_REQUEST",
      due.why,
      "Start with --new-epoch auto, or run `select millrace.begin_epoch()`, to begin a new epoch here; `millrace doctor` explains.",
    );
  }
  await assertRestored(lease);
  const begun = await begin(lease, due.proof);
  const { parent } = begun;
  if (parent !== undefined && begun.epoch !== due.proof?.epoch) options.onBegun?.({ ...begun, parent });
  return { epoch: begun.epoch, lineage: await lineageOf(lease, begun.epoch) };
}

type Due =
  | { readonly kind: "in_force"; readonly epoch: string }
  | {
      readonly kind: "due";
      readonly why: string;
      readonly proof?: { readonly epoch: string; readonly lost: Tick } | undefined;
    };

async function epochDue(lease: Lease, followed: Followed | undefined): Promise<Due> {
  const found = await inForce(lease);
  if (typeof found === "string") return { kind: "due", why: found };
  const { epoch, younger } = found;
  if (younger) {
    return { kind: "due", why: "Transaction ids went back: this database was restored under its newest ticks." };
  }
  const lost = await lostTick(lease, epoch, followed);
  if (lost === undefined) return { kind: "in_force", epoch };
  const why = `The data are from an earlier time: tick ${lost.tick} was read here and is gone.`;
  return { kind: "due", why, proof: { epoch, lost } };
}

/** A sentence when this database is another than the epoch in force was written by. */
async function inForce(lease: Lease): Promise<{ readonly epoch: string; readonly younger: boolean } | string> {
  try {
    const [row] = await lease.rows<{ readonly epoch: string; readonly younger: boolean }>(epochInForce);
    if (row === undefined) throw new FeedError("INTERNAL", "The feed has no tick.", "Run `millrace doctor`.");
    return row;
  } catch (error) {
    if (sqlStateOf(error) === copied && error instanceof pg.DatabaseError) return sentence(error.message);
    throw error;
  }
}

/**
 * What was read under the epoch in force, or under one that descends from it, must be here. Under any other it says nothing
 * of this database: somebody else may have begun an epoch by now, or this is another feed.
 */
async function lostTick(lease: Lease, epoch: string, followed: Followed | undefined): Promise<Tick | undefined> {
  if (followed === undefined) return undefined;
  if (followed.epoch !== epoch && !followed.lineage.some((ancestor) => ancestor.epoch === epoch)) return undefined;
  for (const tick of followed.newest) {
    const [fate] = await lease.rows<{ readonly held: boolean; readonly dropped: boolean }>(tickFate(tick));
    if (fate?.held === false && !fate.dropped) return tick;
  }
  return undefined;
}

async function assertRestored(lease: Lease): Promise<void> {
  const [row] = await look(lease.client, () => lease.rows<{ readonly restoring: boolean }>(restoreUnderWay));
  if (row?.restoring === true) {
    throw new FeedError(
      "DATABASE_UNAVAILABLE",
      "A dump is being restored into this database.",
      "Let it come to its end and close its sessions (pg_restore, psql): a new epoch then begins by itself.",
      { retryAfterMs: 1_000 },
    );
  }
}

interface BegunRow {
  readonly epoch: string;
  readonly parent: string | null;
  readonly forkVersion: string | null;
  readonly reason: string;
  readonly unsettled: string | null;
}

type Begun = Omit<BegunEpoch, "parent"> & { readonly parent: string | undefined };

async function begin(lease: Lease, proof: { readonly epoch: string; readonly lost: Tick } | undefined): Promise<Begun> {
  const results: unknown = await lease.client.query(beginEpoch(proof));
  for (const result of Array.isArray(results) ? results : [results]) {
    const row: BegunRow | undefined = result?.rows?.[0];
    if (row === undefined) continue;
    const { epoch, parent, forkVersion, reason, unsettled } = row;
    return {
      epoch,
      parent: parent ?? undefined,
      forkVersion: Number(forkVersion ?? 0),
      reason,
      unsettled: unsettled === null ? undefined : Number(unsettled),
    };
  }
  throw new FeedError("INTERNAL", "begin_epoch() gave no answer.", "Report this with the version of Postgres.");
}

async function lineageOf(lease: Lease, epoch: string): Promise<readonly Ancestor[]> {
  const rows = await lease.rows<{ readonly epoch: string; readonly forkVersion: string }>(readLineage, [epoch]);
  return rows.map((row) => ({ epoch: row.epoch, forkVersion: Number(row.forkVersion) }));
}
