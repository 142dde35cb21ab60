import type pg from "pg";
import { FeedError } from "../../core/errors.ts";
import type { Version } from "../../core/event.ts";
import { placeInVersion } from "../../core/subscription/position-place.ts";
import {
  type Kept,
  positionNotKept,
  positionUnrelated,
  subscriptionExists,
  subscriptionLost,
  subscriptionNotFound,
  subscriptionPaused,
} from "../../core/subscription/store-failures.ts";
import { assertSubscriptionId, isSubscriptionId } from "../../core/subscription/subscription-id.ts";
import type {
  Advance,
  AdvanceOutcome,
  Claim,
  Claimant,
  DeadLetterFilter,
  HeldClaim,
  Listed,
  NewSubscription,
  PageOf,
  StoredPosition,
  SubscriptionFilter,
  SubscriptionRecord,
  SubscriptionState,
  SubscriptionStore,
  SubscriptionSummary,
} from "../../core/subscription/subscription-store.ts";
import { GatheredQuestions } from "../gathered-questions.ts";
import { withLease } from "../lease.ts";
import type { Literal } from "../literal.ts";
import { queryError } from "../query-error.ts";
import { readBounds } from "../statements/find-ticks.ts";
import { advanceText, inRounds, type Reasons, storable } from "./advance-text.ts";
import { isUnstorable, unstorable } from "./encoding.ts";
import { GatheredClaims } from "./gathered-claims.ts";
import {
  type DeadLetterRow,
  deadLetterFromRow,
  deliveredFromRow,
  positionFromRow,
  type RecordRow,
  recordFromRow,
} from "./record.ts";
import * as sql from "./statements.ts";

/** What subscriptions in a database stand on. */
export interface PostgresSubscriptionsOptions {
  readonly pool: pg.Pool;
  /** Of the store: nothing is written once another one is in force. */
  readonly epoch: () => string;
}

interface OutcomeRow {
  readonly outcome: string;
}

const lostNamed = 100;

/**
 * Subscriptions as rows. Whatever is decided about one, also about several at once, is decided in the database under the lock of
 * its row; each call is one round trip, and none leaves a transaction open behind it.
 */
export class PostgresSubscriptions implements SubscriptionStore {
  readonly #options: PostgresSubscriptionsOptions;
  readonly #listeners = new Set<(id: string | undefined) => void>();
  readonly #claims = new GatheredClaims(
    () => this.#epoch,
    (statements, signal) => this.#write("take subscriptions up", statements, signal),
  );
  readonly #records = new GatheredQuestions<string, RecordRow>(async (ids, signal) => {
    const rows = await this.#read("read subscriptions", sql.readRecords, [this.#epoch, ids], signal);
    return new Map(rows.map((row) => [row.id, row]));
  });

  constructor(options: PostgresSubscriptionsOptions) {
    this.#options = options;
  }

  /** Something became of this subscription; of any, perhaps, when nobody has listened for a while. */
  heard(id: string | undefined): void {
    for (const listener of this.#listeners) listener(id);
  }

  async create(subscription: NewSubscription, signal: AbortSignal) {
    const { id, definition, isGroup, topics, owner, labels, expireAfterMs = null, position } = subscription;
    assertSubscriptionId(id);
    assertStorable(subscription);
    const values = [id, definition, isGroup, topics, owner, JSON.stringify(labels), expireAfterMs];
    const [outcomes = [], records = []] = await this.#write(
      "create the subscription",
      [
        [sql.createSubscription, [this.#epoch, ...values, ...positionValues(position)]],
        [sql.recordOf, [id]],
      ],
      signal,
    );
    const outcome = outcomeOf(outcomes);
    if (outcome === "differs") throw subscriptionExists(id);
    await this.#assertTaken(outcome, position, signal);
    return { record: recordIn(records, id), existed: outcome === "existed" };
  }

  async get(id: string, signal: AbortSignal): Promise<SubscriptionRecord> {
    assertNamed(id);
    const row = await this.#records.about(id, signal);
    return recordIn(row === undefined ? [] : [row], id);
  }

  async list(filter: SubscriptionFilter, page: PageOf, signal: AbortSignal): Promise<Listed<SubscriptionRecord>> {
    const { topic, owner, labels } = filter;
    const rows = await this.#read<RecordRow & { readonly total: number; readonly id: string | null }>(
      "list subscriptions",
      sql.listRecords,
      [
        this.#epoch,
        topic === undefined ? null : sql.patternsOf(storable(topic)),
        owner === undefined ? null : storable(owner),
        labels === undefined ? null : JSON.stringify(storableLabels(labels)),
        page.after ?? null,
        page.limit + 1,
      ],
      signal,
    );
    const found = rows.filter(({ id }) => id !== null);
    return {
      items: found.slice(0, page.limit).map(recordFromRow),
      total: rows[0]?.total ?? 0,
      more: found.length > page.limit,
    };
  }

  async delete(id: string, signal: AbortSignal): Promise<SubscriptionRecord> {
    assertNamed(id);
    const [records = []] = await this.#write(
      "delete the subscription",
      [[sql.deleteSubscription, [this.#epoch, id]]],
      signal,
    );
    return recordIn(records, id);
  }

  async pause(id: string, paused: boolean, signal: AbortSignal): Promise<SubscriptionRecord> {
    assertNamed(id);
    const [, records = []] = await this.#write(
      "pause or resume the subscription",
      [
        [sql.pauseSubscription, [this.#epoch, id, paused]],
        [sql.recordOf, [id]],
      ],
      signal,
    );
    return recordIn(records, id);
  }

  async seek(id: string, position: StoredPosition, signal: AbortSignal): Promise<SubscriptionRecord> {
    assertNamed(id);
    const [outcomes = [], records = []] = await this.#write(
      "move the subscription",
      [
        [sql.seekSubscription, [this.#epoch, id, ...positionValues(position)]],
        [sql.recordOf, [id]],
      ],
      signal,
    );
    await this.#assertTaken(outcomeOf(outcomes), position, signal);
    return recordIn(records, id);
  }

  async claim(id: string, claimant: Claimant, signal: AbortSignal): Promise<Claim> {
    assertNamed(id);
    const { outcome, row } = await this.#claims.claim(id, claimant, signal);
    if (row === undefined || outcome === "gone") throw subscriptionNotFound(id);
    if (outcome === "paused") throw subscriptionPaused(id);
    if (outcome === "lost") throw subscriptionLost(id, row.version, await this.#kept(signal));
    const record = recordFromRow(row);
    if (outcome === "held") {
      const { holderReplica, holderUrl, heldUntilMs } = row;
      const { leaseMs } = claimant;
      const holder = { replica: holderReplica ?? "", url: holderUrl ?? undefined, leaseMs, untilMs: heldUntilMs ?? 0 };
      return { kind: "held", record, holder };
    }
    return { kind: "claimed", record, delivered: deliveredFromRow(row), progress: row.progress ?? undefined };
  }

  async advance(advances: readonly Advance[], signal: AbortSignal): Promise<readonly AdvanceOutcome[]> {
    if (advances.length === 0) return [];
    const rounds = inRounds(advances);
    const write = (reasons: Reasons) =>
      this.#write<AdvanceRow>(
        "acknowledge",
        rounds.map((indexes) => {
          const round = indexes.flatMap((index) => advances[index] ?? []).filter(({ id }) => isSubscriptionId(id));
          const text = advanceText(round, reasons);
          return [sql.advanceSubscriptions, [this.#epoch, text.advances, text.settled, text.letters]];
        }),
        signal,
      );
    const answers = await write("as they are").catch((error: unknown) => {
      // Reasons are whatever clients say; all else comes from this database.
      if (isUnstorable(error)) return write("ascii");
      throw error;
    });
    const outcomes = new Map<number, AdvanceOutcome>();
    for (const [round, indexes] of rounds.entries()) {
      const byId = new Map(answers[round]?.map((row) => [row.id, row]));
      for (const index of indexes) outcomes.set(index, advanceOutcome(byId.get(advances[index]?.id ?? "")));
    }
    return advances.map((_, index) => outcomes.get(index) ?? { kind: "gone" });
  }

  async renew(held: readonly HeldClaim[], leaseMs: number, signal: AbortSignal): Promise<readonly string[]> {
    const values = [this.#epoch, ...claims(held), leaseMs];
    const [rows = []] = await this.#write("renew claims", [[sql.renewSubscriptions, values]], signal);
    const lost = new Set(rows.map(({ id }) => id));
    return held.map(({ id }) => id).filter((id) => lost.has(id) || !isSubscriptionId(id));
  }

  async release(held: readonly HeldClaim[], signal: AbortSignal): Promise<void> {
    await this.#write("give claims up", [[sql.releaseSubscriptions, [this.#epoch, ...claims(held)]]], signal);
  }

  async deadLetters(id: string, filter: DeadLetterFilter, page: PageOf<Version>, signal: AbortSignal) {
    assertNamed(id);
    const values = [this.#epoch, id, ...filterValues(filter), page.after ?? null, page.limit + 1];
    const rows = await this.#read<DeadLetterRow>("list dead letters", sql.listDeadLetters, values, signal);
    if (rows[0]?.there !== true) throw subscriptionNotFound(id);
    const found = rows.flatMap(({ version, ...row }) =>
      version === null ? [] : deadLetterFromRow({ ...row, version }),
    );
    return { items: found.slice(0, page.limit), total: rows[0].total, more: found.length > page.limit };
  }

  async discardDeadLetters(id: string, filter: DeadLetterFilter, signal: AbortSignal) {
    assertNamed(id);
    interface Discarded {
      readonly there: boolean;
      readonly discarded: number;
      readonly remaining: number;
    }
    const [versions, key] = filterValues(filter);
    const values = [this.#epoch, id, versions ?? null, key ?? null];
    const [[row] = []] = await this.#write<Discarded>(
      "discard dead letters",
      [[sql.discardDeadLetters, values]],
      signal,
    );
    if (row?.there !== true) throw subscriptionNotFound(id);
    return { discarded: row.discarded, remaining: row.remaining };
  }

  onChange(listener: (id: string | undefined) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  states(ids: readonly string[], signal: AbortSignal): Promise<readonly SubscriptionState[]> {
    return this.#read("look at subscriptions", sql.readStates, [this.#epoch, ids.filter(isSubscriptionId)], signal);
  }

  async summary(signal: AbortSignal): Promise<SubscriptionSummary> {
    type Row = Omit<SubscriptionSummary, "lost" | "oldestVersion"> & {
      readonly lost: readonly string[] | null;
      readonly oldestVersion: Version | null;
    };
    const [row] = await this.#read<Row>("count subscriptions", sql.readSummary, [this.#epoch, lostNamed], signal);
    if (row === undefined) throw noAnswer();
    return { ...row, lost: row.lost ?? [], oldestVersion: row.oldestVersion ?? undefined };
  }

  get #epoch(): string {
    return this.#options.epoch();
  }

  async #assertTaken(outcome: string, position: StoredPosition, signal: AbortSignal): Promise<void> {
    if (outcome === "unrelated") throw positionUnrelated(position, { epoch: this.#epoch });
    if (outcome === "forgotten") throw positionNotKept(position.version, await this.#kept(signal));
  }

  async #kept(signal: AbortSignal): Promise<Kept> {
    const [row] = await this.#read<{ readonly oldest: string; readonly head: string }>(
      "read what the feed holds",
      readBounds,
      [this.#epoch],
      signal,
    );
    if (row === undefined) throw noAnswer();
    return { epoch: this.#epoch, oldestVersion: Number(row.oldest), headVersion: Number(row.head) };
  }

  async #read<R extends object = RecordRow>(
    doing: string,
    statement: string,
    values: readonly unknown[],
    signal: AbortSignal,
  ): Promise<readonly R[]> {
    try {
      return await withLease(this.#options.pool, signal, (lease) => lease.rows<R>(statement, values));
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      throw isUnstorable(error) ? unstorable(error) : queryError(error, doing);
    }
  }

  /** The rows of each statement. */
  async #write<R extends object = RecordRow>(
    doing: string,
    statements: readonly (readonly [string, readonly Literal[]])[],
    signal: AbortSignal,
  ): Promise<readonly (readonly R[])[]> {
    try {
      return await withLease(this.#options.pool, signal, async ({ client }) => {
        // One message of several statements has an answer for each; the driver's types know of one.
        const results: unknown = await client.query(sql.writing(statements));
        return (results as readonly pg.QueryResult<R & pg.QueryResultRow>[])
          .slice(-1 - statements.length, -1)
          .map(({ rows }) => rows);
      });
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      throw isUnstorable(error) ? unstorable(error) : queryError(error, doing);
    }
  }
}

interface AdvanceRow extends StoredPosition {
  readonly id: string;
  readonly outcome: "advanced" | "fenced" | "gone";
  readonly generation: number;
}

function advanceOutcome(row: AdvanceRow | undefined): AdvanceOutcome {
  if (row === undefined || row.outcome === "gone") return { kind: "gone" };
  return row.outcome === "fenced"
    ? { kind: "fenced", generation: row.generation }
    : { kind: "advanced", position: positionFromRow(row) };
}

function outcomeOf(rows: readonly object[]): string {
  const [row] = rows as readonly OutcomeRow[];
  if (row === undefined) throw noAnswer();
  return row.outcome;
}

function recordIn(rows: readonly RecordRow[], id: string): SubscriptionRecord {
  const [row] = rows;
  if (row === undefined) throw subscriptionNotFound(id);
  return recordFromRow(row);
}

function positionValues(position: StoredPosition): readonly [string, Version, number, string] {
  return [position.epoch, position.version, placeInVersion(position), position.cursor];
}

function claims(held: readonly HeldClaim[]): readonly [readonly string[], readonly string[]] {
  const named = held.filter(({ id }) => isSubscriptionId(id));
  return [named.map(({ id }) => id), named.map(({ generation }) => String(generation))];
}

function filterValues({ versions, key }: DeadLetterFilter): readonly [readonly string[] | null, string | null] {
  return [versions?.map(String) ?? null, key === undefined ? null : storable(key)];
}

function storableLabels(labels: Readonly<Record<string, string>>): Readonly<Record<string, string>> {
  return Object.fromEntries(Object.entries(labels).map(([name, value]) => [storable(name), storable(value)]));
}

/** @throws FeedError INVALID_REQUEST */
function assertStorable({ definition, owner, labels, position }: NewSubscription): void {
  const texts = [definition, owner, position.cursor, ...Object.entries(labels).flat()];
  if (texts.some((text) => storable(text) !== text)) throw unstorable();
}

/** Of another name there is none, and what is asked in a batch must not fail those that are asked beside it. */
function assertNamed(id: string): void {
  if (!isSubscriptionId(id)) throw subscriptionNotFound(id);
}

function noAnswer(): FeedError {
  return new FeedError("INTERNAL", "The database gave no answer about subscriptions.", "Report it.");
}
