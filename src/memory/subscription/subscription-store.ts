import type { Version } from "../../core/event.ts";
import type { Lineage } from "../../core/lineage.ts";
import type { Bounds, Clock } from "../../core/ports.ts";
import { compareCodePoints } from "../../core/selector/filter/code-points.ts";
import {
  type Kept,
  positionNotKept,
  positionUnrelated,
  subscriptionExists,
  subscriptionLost,
  subscriptionNotFound,
  subscriptionPaused,
} from "../../core/subscription/store-failures.ts";
import { assertSubscriptionId } from "../../core/subscription/subscription-id.ts";
import type {
  Advance,
  AdvanceOutcome,
  Claim,
  Claimant,
  DeadLetter,
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
import type { Outage } from "../outage.ts";
import { isForward, versionInForce } from "./position.ts";
import { copyRow, newRow, passes, type SubscriptionRow, sameSubscription } from "./row.ts";

/** What subscriptions in memory stand on. */
export interface MemorySubscriptionsOptions {
  readonly inForce: Lineage;
  readonly bounds: () => Bounds;
  readonly clock: Clock;
  readonly outage: Outage;
  /** Of the store whose place this one's takes. */
  readonly inherited?: MemorySubscriptions | undefined;
}

const lostNamed = 100;
/** A new epoch begins so far above the generations that it knows of: more may have been given out after its backup. */
const EPOCH_GENERATIONS = 2 ** 20;

/** Subscriptions that end with the process. Those that nobody uses are gone the moment that somebody asks for any. */
export class MemorySubscriptions implements SubscriptionStore {
  readonly #options: MemorySubscriptionsOptions;
  readonly #rows: Map<string, SubscriptionRow>;
  readonly #listeners = new Set<(id: string | undefined) => void>();
  /** Of the last claim of any: a name that is deleted and created again does not repeat them. */
  #generation: number;

  constructor(options: MemorySubscriptionsOptions) {
    this.#options = options;
    const { inherited } = options;
    this.#rows = inherited === undefined ? new Map() : inherited.#copy();
    this.#generation = inherited === undefined ? 0 : inherited.#generation + EPOCH_GENERATIONS;
  }

  #copy(): Map<string, SubscriptionRow> {
    return new Map([...this.#rows].map(([id, row]) => [id, copyRow(row)]));
  }

  async create(subscription: NewSubscription, signal: AbortSignal) {
    assertSubscriptionId(subscription.id);
    const nowMs = await this.#enter(signal);
    const there = this.#rows.get(subscription.id);
    if (there !== undefined) {
      if (!sameSubscription(there.created, subscription)) throw subscriptionExists(subscription.id);
      return { record: this.#record(there), existed: true };
    }
    this.#assertKept(subscription.position);
    const row = newRow(subscription, nowMs);
    this.#rows.set(subscription.id, row);
    return { record: this.#record(row), existed: false };
  }

  async get(id: string, signal: AbortSignal): Promise<SubscriptionRecord> {
    await this.#enter(signal);
    return this.#record(this.#row(id));
  }

  async list(filter: SubscriptionFilter, page: PageOf, signal: AbortSignal): Promise<Listed<SubscriptionRecord>> {
    await this.#enter(signal);
    const rows = [...this.#rows.values()].filter(({ created }) => passes(created, filter));
    rows.sort((a, b) => compareCodePoints(a.created.id, b.created.id));
    const { after } = page;
    const rest = rows.filter(({ created }) => after === undefined || compareCodePoints(created.id, after) > 0);
    const items = rest.slice(0, page.limit).map((row) => this.#record(row));
    return { items, total: rows.length, more: rest.length > items.length };
  }

  async delete(id: string, signal: AbortSignal): Promise<SubscriptionRecord> {
    await this.#enter(signal);
    const row = this.#row(id);
    const record = this.#record(row);
    this.#forget(row);
    return record;
  }

  async pause(id: string, paused: boolean, signal: AbortSignal): Promise<SubscriptionRecord> {
    const nowMs = await this.#enter(signal);
    const row = this.#row(id);
    row.paused = paused;
    row.lastUsedAtMs = nowMs;
    this.#changed(id);
    return this.#record(row);
  }

  async seek(id: string, position: StoredPosition, signal: AbortSignal): Promise<SubscriptionRecord> {
    const nowMs = await this.#enter(signal);
    const row = this.#row(id);
    this.#assertKept(position);
    row.position = position;
    row.generation = ++this.#generation;
    row.movedGeneration = row.generation;
    row.delivered = [];
    row.progress = undefined;
    row.lastUsedAtMs = nowMs;
    this.#changed(id);
    return this.#record(row);
  }

  async claim(id: string, claimant: Claimant, signal: AbortSignal): Promise<Claim> {
    const nowMs = await this.#enter(signal);
    const row = this.#row(id);
    const { state, position } = this.#record(row);
    if (state === "LOST") throw subscriptionLost(id, position.version, this.#kept());
    if (state === "PAUSED") throw subscriptionPaused(id);
    const { holder } = row;
    if (holder !== undefined && holder.untilMs > nowMs && !succeeds(claimant, holder)) {
      return { kind: "held", record: this.#record(row), holder };
    }
    row.generation = ++this.#generation;
    row.lastUsedAtMs = nowMs;
    if (row.created.isGroup) row.holder = { ...claimant, untilMs: nowMs + claimant.leaseMs };
    this.#changed(id);
    const delivered = row.delivered.filter(({ version }) => version > position.version);
    return { kind: "claimed", record: this.#record(row), delivered, progress: row.progress };
  }

  async advance(advances: readonly Advance[], signal: AbortSignal): Promise<readonly AdvanceOutcome[]> {
    const nowMs = await this.#enter(signal);
    return advances.map((advance) => this.#advance(advance, nowMs));
  }

  #advance(advance: Advance, nowMs: number): AdvanceOutcome {
    const row = this.#rows.get(advance.id);
    if (row === undefined) return { kind: "gone" };
    const { generation, position } = advance;
    if (generation !== 0 && generation !== row.generation) return { kind: "fenced", generation: row.generation };
    row.lastUsedAtMs = nowMs;
    if (position !== undefined && isForward(position, row.position, this.#options.inForce)) row.position = position;
    if (generation !== 0) {
      row.delivered = advance.delivered ?? row.delivered;
      row.progress = advance.progress ?? row.progress;
      for (const version of advance.settledDeadLetters ?? []) row.deadLetters.delete(version);
      for (const dead of advance.deadLetters ?? []) row.deadLetters.set(dead.version, { ...dead, deadAtMs: nowMs });
    }
    return { kind: "advanced", position: row.position };
  }

  async renew(held: readonly HeldClaim[], leaseMs: number, signal: AbortSignal): Promise<readonly string[]> {
    const nowMs = await this.#enter(signal);
    return held.filter((claim) => !this.#renew(claim, nowMs, leaseMs)).map(({ id }) => id);
  }

  #renew({ id, generation }: HeldClaim, nowMs: number, leaseMs: number): boolean {
    const row = this.#rows.get(id);
    if (row?.generation !== generation) return false;
    row.lastUsedAtMs = nowMs;
    if (row.holder !== undefined) row.holder = { ...row.holder, untilMs: nowMs + leaseMs };
    return true;
  }

  async release(held: readonly HeldClaim[], signal: AbortSignal): Promise<void> {
    await this.#enter(signal);
    for (const { id, generation } of held) {
      const row = this.#rows.get(id);
      if (row?.generation === generation && row.holder !== undefined) {
        row.holder = undefined;
        this.#changed(id);
      }
    }
  }

  async deadLetters(id: string, filter: DeadLetterFilter, page: PageOf<Version>, signal: AbortSignal) {
    await this.#enter(signal);
    const all = deadLettersOf(this.#row(id), filter);
    const rest = all.filter(({ version }) => version > (page.after ?? -1));
    const items = rest.slice(0, page.limit);
    return { items, total: all.length, more: rest.length > items.length };
  }

  async discardDeadLetters(id: string, filter: DeadLetterFilter, signal: AbortSignal) {
    await this.#enter(signal);
    const row = this.#row(id);
    const discarded = deadLettersOf(row, filter);
    for (const { version } of discarded) row.deadLetters.delete(version);
    if (discarded.length > 0) this.#changed(id);
    return { discarded: discarded.length, remaining: row.deadLetters.size };
  }

  onChange(listener: (id: string | undefined) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async states(ids: readonly string[], signal: AbortSignal): Promise<readonly SubscriptionState[]> {
    await this.#enter(signal);
    const rows = ids.flatMap((id) => this.#rows.get(id) ?? []);
    return rows.map((row) => ({
      id: row.created.id,
      state: this.#state(row),
      generation: row.generation,
      movedGeneration: row.movedGeneration,
    }));
  }

  async summary(signal: AbortSignal): Promise<SubscriptionSummary> {
    await this.#enter(signal);
    const rows = [...this.#rows.values()];
    const inState = (state: SubscriptionRecord["state"]) => rows.filter((row) => this.#state(row) === state);
    const lost = inState("LOST").map(({ created }) => created.id);
    const claims = rows.filter((row) => this.#state(row) !== "LOST").map((row) => this.#inForce(row.position) ?? 0);
    return {
      active: inState("ACTIVE").length,
      paused: inState("PAUSED").length,
      lost: lost.sort(compareCodePoints).slice(0, lostNamed),
      lostCount: lost.length,
      deadLetters: rows.reduce((sum, { deadLetters }) => sum + deadLetters.size, 0),
      oldestVersion: claims.length === 0 ? undefined : Math.min(...claims),
    };
  }

  /** @returns the time, once the database answers and those that have expired are gone */
  async #enter(signal: AbortSignal): Promise<number> {
    await this.#options.outage.gate(signal);
    const nowMs = this.#options.clock.now();
    for (const row of this.#rows.values()) {
      if ((expiresAtMs(row) ?? Number.POSITIVE_INFINITY) <= nowMs) this.#forget(row);
    }
    return nowMs;
  }

  #forget({ created }: SubscriptionRow): void {
    this.#rows.delete(created.id);
    this.#changed(created.id);
  }

  /** Later: whoever is told may ask again at once. */
  #changed(id: string): void {
    for (const listener of this.#listeners) queueMicrotask(() => listener(id));
  }

  #row(id: string): SubscriptionRow {
    const row = this.#rows.get(id);
    if (row === undefined) throw subscriptionNotFound(id);
    return row;
  }

  #record(row: SubscriptionRow): SubscriptionRecord {
    const state = this.#state(row);
    return {
      ...row.created,
      position: row.position,
      state,
      generation: row.generation,
      createdAtMs: row.createdAtMs,
      lastUsedAtMs: row.lastUsedAtMs,
      expiresAtMs: expiresAtMs(row),
      deadLetters: row.deadLetters.size,
      oldestVersion: state === "LOST" ? this.#options.bounds().oldest : undefined,
    };
  }

  #state({ position, paused }: SubscriptionRow): SubscriptionRecord["state"] {
    const version = this.#inForce(position);
    if (version === undefined || version + 1 < this.#options.bounds().oldest) return "LOST";
    return paused ? "PAUSED" : "ACTIVE";
  }

  #inForce(position: StoredPosition): Version | undefined {
    return versionInForce(position, this.#options.inForce);
  }

  #assertKept(position: StoredPosition): void {
    const version = this.#inForce(position);
    if (version === undefined) throw positionUnrelated(position, this.#options.inForce);
    if (version + 1 < this.#options.bounds().oldest) throw positionNotKept(position.version, this.#kept());
  }

  #kept(): Kept {
    const { oldest, head } = this.#options.bounds();
    return { epoch: this.#options.inForce.epoch, oldestVersion: oldest, headVersion: head };
  }
}

/** The same replica once more; or another at its address, where two cannot be: it is dead. */
function succeeds(claimant: Claimant, holder: Claimant): boolean {
  return claimant.replica === holder.replica || (claimant.url !== undefined && claimant.url === holder.url);
}

function expiresAtMs({ created, lastUsedAtMs }: SubscriptionRow): number | undefined {
  return created.expireAfterMs === undefined ? undefined : lastUsedAtMs + created.expireAfterMs;
}

function deadLettersOf({ deadLetters }: SubscriptionRow, { versions, key }: DeadLetterFilter): readonly DeadLetter[] {
  const wanted = versions === undefined ? undefined : new Set(versions);
  const all = [...deadLetters.values()].filter(
    (dead) => (wanted?.has(dead.version) ?? true) && (key === undefined || dead.key === key),
  );
  return all.sort((a, b) => a.version - b.version);
}
