import type { Version } from "../../core/event.ts";
import { duration, error, type Finding, warning } from "../finding.ts";
import type { Lease } from "../lease.ts";
import { readExtent, readHolds, readPartitions, readRetention, readSubscriptions } from "./statements.ts";

/** How long history is kept. `undefined` is no limit. */
export interface RetentionSettings {
  /** Milliseconds after they settled for which events are kept at least. */
  readonly keepAgeMs: number | undefined;
  /** The outbox's bytes, indexes included, above which the oldest history goes. */
  readonly keepBytes: number | undefined;
  /** Milliseconds after which history goes although something holds it back. */
  readonly holdCapAgeMs: number | undefined;
  /** Bytes of the outbox above which held history goes nevertheless. */
  readonly holdCapBytes: number | undefined;
}

/** A claim on history: the events after `version` are wanted. */
export interface HeldBack {
  /** `hold` or `subscription`. */
  readonly kind: string;
  readonly name: string;
  readonly version: Version;
  /** Milliseconds since the Unix epoch; `undefined` for none. */
  readonly expiresAtMs: number | undefined;
  /** Some of what it claims is gone: it was past the cap. */
  readonly overridden: boolean;
}

/** Durable subscriptions, as far as what is kept depends on them. */
export interface KeptSubscriptions {
  readonly count: number;
  /** Those of which something is gone that they have not acknowledged. */
  readonly lostCount: number;
  /** Some of their names. */
  readonly lost: readonly string[];
}

/** A part of the outbox: events with a seq from `lowerSeq` to before `upperSeq`. */
export interface Partition {
  readonly name: string;
  /** `undefined` for the default partition. */
  readonly lowerSeq: number | undefined;
  readonly upperSeq: number | undefined;
  /** With indexes. */
  readonly bytes: number;
}

/** What the feed takes up in the database, and what becomes of it. */
export interface Storage {
  /** Of the outbox with its indexes. */
  readonly bytes: number;
  /** Of the order, with its indexes. */
  readonly tickBytes: number;
  /** Oldest readable version; `head + 1` when there is none. */
  readonly oldest: Version;
  /** When it settled, in milliseconds since the Unix epoch; `undefined` when there is none. */
  readonly oldestSettledAtMs: number | undefined;
  readonly head: Version;
  /** The last seq drawn. */
  readonly drawn: number;
  readonly partitions: readonly Partition[];
  /** Events in the default partition, of which at most 10,001 are counted. */
  readonly defaultRows: number;
  readonly settings: RetentionSettings;
  /** What needs most of it first: all holds, and of the subscriptions those that are furthest behind. */
  readonly heldBack: readonly HeldBack[];
  readonly subscriptions: KeptSubscriptions;
  /** Why what is due could not be done, as a sentence. */
  readonly waitsFor: string | undefined;
  /** For how long by now, in milliseconds. */
  readonly waitsMs: number | undefined;
}

/** Something that is wrong with what is kept. */
export interface StorageProblem {
  readonly code: "HOLD_OVERRIDDEN" | "SUBSCRIPTION_LOST" | "RETENTION_WAITS" | "DEFAULT_PARTITION";
  readonly message: string;
  readonly action: string;
}

/** As a row of the database has it. */
type Row<T> = { readonly [K in keyof T]: Exclude<T[K], undefined> | (undefined extends T[K] ? null : never) };

/** What was set, and what upkeep waits for. */
type RetentionRow = RetentionSettings & Pick<Storage, "waitsFor" | "waitsMs">;

/** The settings, as all servers see them. */
export async function readSettings(lease: Pick<Lease, "rows">): Promise<RetentionSettings> {
  const [row] = await lease.rows<Row<RetentionRow>>(readRetention);
  return settingsOf(row);
}

function settingsOf(row: Row<RetentionRow> | undefined): RetentionSettings {
  return {
    keepAgeMs: row?.keepAgeMs ?? undefined,
    keepBytes: row?.keepBytes ?? undefined,
    holdCapAgeMs: row?.holdCapAgeMs ?? undefined,
    holdCapBytes: row?.holdCapBytes ?? undefined,
  };
}

/** There may be thousands: nobody reads so many lines. */
const subscriptionsNamed = 5;

/** Looks at all of it. Changes nothing; some milliseconds, and no lock but those of looking. */
export async function readStorage(lease: Pick<Lease, "rows">): Promise<Storage> {
  const [retention] = await lease.rows<Row<RetentionRow>>(readRetention);
  const [extent] = await lease.rows<{
    readonly oldest: number | null;
    readonly oldestSettledAtMs: number | null;
    readonly head: number;
    readonly drawn: number;
    readonly tickBytes: number;
    readonly defaultRows: number;
  }>(readExtent);
  const partitions = await lease.rows<Row<Partition>>(readPartitions);
  const holds = await lease.rows<Row<Omit<HeldBack, "overridden">>>(readHolds, [subscriptionsNamed]);
  const [subscriptions] = await lease.rows<Row<Omit<KeptSubscriptions, "lost">> & { readonly lost: string[] | null }>(
    readSubscriptions,
    [subscriptionsNamed],
  );
  const head = extent?.head ?? 0;
  const oldest = extent?.oldest ?? head + 1;
  return {
    bytes: partitions.reduce((sum, { bytes }) => sum + bytes, 0),
    tickBytes: extent?.tickBytes ?? 0,
    oldest,
    oldestSettledAtMs: extent?.oldestSettledAtMs ?? undefined,
    head,
    drawn: extent?.drawn ?? 0,
    partitions: partitions.map(({ lowerSeq, upperSeq, ...rest }) => ({
      ...rest,
      lowerSeq: lowerSeq ?? undefined,
      upperSeq: upperSeq ?? undefined,
    })),
    defaultRows: extent?.defaultRows ?? 0,
    settings: settingsOf(retention),
    heldBack: holds.map(({ expiresAtMs, ...hold }) => ({
      ...hold,
      expiresAtMs: expiresAtMs ?? undefined,
      overridden: hold.version + 1 < oldest,
    })),
    subscriptions: {
      count: subscriptions?.count ?? 0,
      lostCount: subscriptions?.lostCount ?? 0,
      lost: subscriptions?.lost ?? [],
    },
    waitsFor: retention?.waitsFor ?? undefined,
    waitsMs: retention?.waitsMs ?? undefined,
  };
}

/** The same as findings. What is lost is an error; the rest goes on by itself once it can. */
export function storageFinding({ code, message, action }: StorageProblem): Finding {
  return code === "HOLD_OVERRIDDEN" || code === "SUBSCRIPTION_LOST"
    ? error(code, message, action)
    : warning(code, message, action);
}

/** Something in the way for less than this is no matter: it is tried again. */
const worthTellingMs = 60_000;

/** What somebody should do something about. */
export function storageProblems(storage: Storage): readonly StorageProblem[] {
  const problems: StorageProblem[] = storage.heldBack
    .filter(({ overridden }) => overridden)
    .map(({ kind, name, version }) => ({
      code: "HOLD_OVERRIDDEN",
      message: `The ${kind} "${name}" wants what follows version ${version}, and was past the cap: the oldest is ${storage.oldest}.`,
      action: `Take a new snapshot where that was needed, and \`millrace hold ${name} --release\`; raise the cap with \`millrace retain\` if there is room.`,
    }));
  if (storage.subscriptions.lostCount > 0) problems.push(lostProblem(storage.subscriptions));
  if (storage.waitsFor !== undefined && (storage.waitsMs ?? 0) >= worthTellingMs) {
    problems.push({
      code: "RETENTION_WAITS",
      message: `The outbox could not be kept in order for ${duration(storage.waitsMs ?? 0)}: ${storage.waitsFor}`,
      action: "End that transaction if it is not meant to last. It is tried again all the while; events are not lost.",
    });
  }
  if (storage.defaultRows > 0) {
    const rows = storage.defaultRows > 10_000 ? "More than 10,000" : String(storage.defaultRows);
    problems.push({
      code: "DEFAULT_PARTITION",
      message: `${rows} events are in millrace.outbox_default: no partition was made for them in time. None is lost.`,
      action: "Let a server run, or run `millrace prune`: it makes that partition an ordinary one.",
    });
  }
  return problems;
}

/** Says nothing that changes while it lasts: it is logged once. */
function lostProblem({ lost, lostCount }: KeptSubscriptions): StorageProblem {
  const names = lost.map((name) => `"${name}"`).join(", ");
  const more = lostCount > lost.length ? ` and ${lostCount - lost.length} more` : "";
  return {
    code: "SUBSCRIPTION_LOST",
    message: `${lostCount === 1 ? "Subscription" : `${lostCount} subscriptions:`} ${names}${more} ${lostCount === 1 ? "was" : "were"} past the cap of what may be held back, and events that nobody had acknowledged are gone.`,
    action:
      "Seek each to where it is to go on (`oldest` accepts the loss), or delete it; raise the cap with `millrace retain` if there is room.",
  };
}
