import { FeedError, goingDown } from "../errors.ts";
import type { Version } from "../event.ts";
import type { Feed, OpenStream, Start } from "../feed.ts";
import type { Clock, Timers } from "../ports.ts";
import { Advances } from "./advances.ts";
import type { Groups } from "./group-consumers.ts";
import { Holding } from "./holding.ts";
import { Holdings } from "./holdings.ts";
import { type OpeningContext, openHolding } from "./open-holding.ts";
import { cursorOfPosition, isBehind, storedPosition } from "./positions.ts";
import { subscriptionNotFound, subscriptionPaused } from "./store-failures.ts";
import { fenced, invalid, noGroups, tooManySubscriptions } from "./subscription-failures.ts";
import type {
  AdvanceOutcome,
  DeadLetterFilter,
  NewSubscription,
  PageOf,
  StoredPosition,
  SubscriptionFilter,
  SubscriptionRecord,
  SubscriptionStore,
  SubscriptionSummary,
} from "./subscription-store.ts";
import type { Acknowledged, Acknowledgement, Consumer, SubscriptionStats, Subscriptions } from "./subscriptions.ts";

/** What subscriptions are made of. */
export interface SubscriptionsOptions {
  /** Whose streams they are. Started before, stopped after. */
  readonly feed: Pick<Feed, "open" | "status" | "locate" | "recognise">;
  readonly store: SubscriptionStore;
  readonly clock: Clock;
  readonly timers: Timers;
  /** Default: there are none, and those of the store cannot be consumed here. */
  readonly groups?: Groups | undefined;
  /** This feed, as `Claimant.replica`: unique among all that share the store. */
  readonly replica: string;
  /** Where other replicas reach it; `undefined` when they cannot. */
  readonly url?: string | undefined;
  /** Most that there may be, about: they are counted now and then. Default: any number. */
  readonly maxSubscriptions?: number | undefined;
  /** Told of failures that nobody else is told of. Default: nobody is. */
  readonly report?: ((message: string, error?: unknown) => void) | undefined;
}

/** Durable subscriptions over a feed. Start them after it, stop them before it. */
export function createSubscriptions(options: SubscriptionsOptions): Subscriptions {
  return new SubscriptionService({ ...options, report: options.report ?? (() => undefined) });
}

/** All of them are counted this often, for metrics and readiness. */
const SUMMARY_MS = 10_000;
/** Of which it is remembered whether they are groups: that never changes while they are there. */
const MAX_KINDS = 10_000;
/** So long a database that does not answer is waited for at the end. */
const LAST_WORD_MS = 2_000;
/** Means nothing without a group. */
const NO_LEASE_MS = 0;

type ResolvedOptions = SubscriptionsOptions & { readonly report: NonNullable<SubscriptionsOptions["report"]> };

class SubscriptionService implements Subscriptions {
  readonly #options: ResolvedOptions;
  readonly #stopping = new AbortController();
  readonly #advances: Advances;
  readonly #holdings: Holdings;
  readonly #opening: OpeningContext;
  readonly #isGroup = new Map<string, boolean>();
  #summary: SubscriptionSummary | undefined;
  /** Here, since that began to be counted. */
  #created = 0;
  #cancelSummary: (() => void) | undefined;
  #forgetChanges: (() => void) | undefined;
  #acknowledgements = 0;
  #redelivered = 0;
  #fenced = 0;

  constructor(options: ResolvedOptions) {
    this.#options = options;
    const { signal } = this.#stopping;
    this.#advances = new Advances(options.store, signal);
    this.#holdings = new Holdings({
      ...options,
      groups: options.groups,
      advances: this.#advances,
      signal,
      onFenced: () => this.#countFenced(),
    });
    this.#opening = {
      ...options,
      delivered: (holding) => this.#holdings.delivered(holding),
      rest: (holding) => this.#holdings.rest(holding),
      onRedelivered: () => {
        this.#redelivered += 1;
      },
    };
  }

  async start(signal: AbortSignal): Promise<void> {
    await this.#options.groups?.start(signal);
    this.#forgetChanges = this.#options.store.onChange((id) => this.#changed(id));
    void this.#summarise();
  }

  async stop(): Promise<void> {
    this.#cancelSummary?.();
    this.#forgetChanges?.();
    await this.#options.groups?.stop();
    const late = Promise.withResolvers<void>();
    const cancel = this.#options.timers.after(LAST_WORD_MS, late.resolve);
    await Promise.race([this.#holdings.stop(), late.promise]);
    cancel();
    this.#stopping.abort(goingDown());
  }

  stats(): SubscriptionStats {
    return {
      streams: this.#holdings.streams,
      acknowledgements: this.#acknowledgements,
      redelivered: this.#redelivered,
      fenced: this.#fenced,
      flushes: this.#advances.flushes,
      groups: this.#options.groups?.stats(),
    };
  }

  summary(): SubscriptionSummary | undefined {
    return this.#summary;
  }

  async create(subscription: Omit<NewSubscription, "position">, start: Start, signal: AbortSignal) {
    this.#assertServing();
    let position: StoredPosition;
    try {
      position = await this.#locate(start, subscription.isGroup, signal);
    } catch (error) {
      // Where it once began need not be there any more.
      const there = await this.#options.store.get(subscription.id, signal).catch(() => undefined);
      if (there === undefined) {
        throw error;
      }
      ({ position } = there);
    }
    await this.#assertRoom(subscription.id, signal);
    const created = await this.#options.store.create({ ...subscription, position }, signal);
    this.#created += created.existed ? 0 : 1;
    return created;
  }

  /** Those that are there may be asked for again. */
  async #assertRoom(id: string, signal: AbortSignal): Promise<void> {
    const { store, maxSubscriptions = Number.POSITIVE_INFINITY } = this.#options;
    const { active = 0, paused = 0, lostCount = 0 } = this.#summary ?? {};
    if (active + paused + lostCount + this.#created < maxSubscriptions) {
      return;
    }
    try {
      await store.get(id, signal);
    } catch (error) {
      const isNew = error instanceof FeedError && error.code === "SUBSCRIPTION_NOT_FOUND";
      throw isNew ? tooManySubscriptions(maxSubscriptions) : error;
    }
  }

  async get(id: string, signal: AbortSignal): Promise<SubscriptionRecord> {
    this.#assertServing();
    return await this.#get(id, signal);
  }

  async list(filter: SubscriptionFilter, page: PageOf, signal: AbortSignal) {
    this.#assertServing();
    return await this.#options.store.list(filter, page, signal);
  }

  async delete(id: string, signal: AbortSignal): Promise<SubscriptionRecord> {
    this.#assertServing();
    const record = await this.#options.store.delete(id, signal);
    this.#isGroup.delete(id);
    this.#holdings.drop(id, "DELETED");
    return record;
  }

  async pause(id: string, paused: boolean, signal: AbortSignal): Promise<SubscriptionRecord> {
    this.#assertServing();
    const record = await this.#options.store.pause(id, paused, signal);
    if (paused) {
      this.#holdings.drop(id, "PAUSED");
    }
    return record;
  }

  async seek(id: string, start: Start, signal: AbortSignal): Promise<SubscriptionRecord> {
    const { isGroup } = await this.get(id, signal);
    const position = await this.#locate(start, isGroup, signal);
    const record = await this.#options.store.seek(id, position, signal);
    this.#holdings.drop(id, "MOVED");
    return record;
  }

  async open(consumer: Consumer, signal: AbortSignal): Promise<OpenStream> {
    this.#assertServing();
    const { store, replica, url } = this.#options;
    const { id } = consumer;
    const found = this.#isGroup.get(id) === false ? undefined : await this.#get(id, signal);
    if (found?.isGroup === true) {
      return await this.#openOfGroup(consumer, found, signal);
    }
    // Else the claim would not know what the stream before it delivered, here, just now.
    await unless(signal, this.#holdings.told(id));
    const claim = await store.claim(id, { replica, url, leaseMs: NO_LEASE_MS }, signal);
    if (claim.kind === "held" || claim.record.isGroup) {
      // Deleted and created as a group since it was last looked at; what was claimed of that, its host claims again.
      this.#isGroup.set(id, true);
      return await this.#openOfGroup(consumer, claim.record, signal);
    }
    const { record, delivered } = claim;
    const holding = new Holding({ record, delivered, ...this.#now() });
    this.#holdings.add(holding);
    return await openHolding(holding, record, consumer.terms(record), this.#opening, signal);
  }

  async reopen(consumer: Consumer & { readonly generation: number }, signal: AbortSignal): Promise<OpenStream> {
    this.#assertServing();
    const { id, generation } = consumer;
    const record = await this.#get(id, signal);
    if (record.isGroup) {
      const groups = this.#groups(id);
      const stream = await groups.reopen(consumer, record, signal);
      this.#holdings.lookSoon();
      return stream;
    }
    if (record.generation !== generation) {
      this.#countFenced();
      throw fenced(id, record.generation);
    }
    if (record.state === "PAUSED") {
      throw subscriptionPaused(id);
    }
    let holding = this.#holdings.of(id);
    if (holding?.generation !== generation) {
      holding = new Holding({ record, delivered: [], ...this.#now() });
      this.#holdings.add(holding);
    }
    holding.stream?.endWith("TAKEN_OVER");
    return await openHolding(holding, record, consumer.terms(record), this.#opening, signal);
  }

  async #openOfGroup(consumer: Consumer, record: SubscriptionRecord, signal: AbortSignal): Promise<OpenStream> {
    const stream = await this.#groups(consumer.id).open(consumer, record, signal);
    this.#holdings.lookSoon();
    return stream;
  }

  async drain(graceMs: number): Promise<void> {
    await this.#options.groups?.drain(graceMs);
  }

  holds(id: string): boolean {
    return this.#options.groups?.held().includes(id) === true;
  }

  async acknowledge(acknowledgement: Acknowledgement, signal: AbortSignal): Promise<Acknowledged> {
    this.#assertRunning();
    const { id, member, versions, rejections } = acknowledgement;
    const asGroup = (member ?? "") !== "" || versions.length > 0 || rejections.length > 0;
    const isGroup = this.#holdings.of(id) === undefined ? this.#isGroup.get(id) : false;
    if (isGroup !== false || asGroup) {
      const record = await this.#get(id, signal);
      if (record.isGroup) {
        return await this.#groups(id).acknowledge(acknowledgement, record, signal);
      }
      if (asGroup) {
        const field = versions.length > 0 ? "versions" : rejections.length > 0 ? "rejections" : "member";
        throw invalid(field, `means nothing to "${id}", which is no group's: acknowledge with \`cursor\``);
      }
    }
    return await this.#acknowledgeUpTo(acknowledgement, signal);
  }

  async #acknowledgeUpTo(
    { id, generation, cursor: text }: Acknowledgement,
    signal: AbortSignal,
  ): Promise<Acknowledged> {
    if (text === undefined) {
      throw invalid("cursor", "must be set: everything up to it is acknowledged");
    }
    const cursor = await this.#options.feed.recognise(text, signal);
    const holding = this.#holdings.of(id);
    const held = holding !== undefined && (generation === 0 || generation === holding.generation);
    if (cursor.snapshot !== undefined) {
      // The database orders positions by their versions, and many of a snapshot have the same.
      const kept = held ? storedPosition(holding.position) : (await this.#get(id, signal)).position;
      if (isBehind(cursor, cursorOfPosition(kept))) {
        return acknowledgedAt(kept);
      }
    }
    const delivered = held && generation !== 0 && holding.untold ? holding.deliveriesBeyond(cursor.version) : undefined;
    const said = this.#advances.say({ id, generation, position: storedPosition(cursor), delivered });
    const outcome = await unless(signal, said);
    return acknowledgedAt(this.#positionAfter(outcome, id, holding));
  }

  #positionAfter(outcome: AdvanceOutcome, id: string, holding: Holding | undefined): StoredPosition {
    switch (outcome.kind) {
      case "advanced":
        this.#acknowledgements += 1;
        holding?.acknowledged(outcome.position);
        return outcome.position;
      case "fenced":
        this.#countFenced();
        throw fenced(id, outcome.generation);
      case "gone":
        this.#isGroup.delete(id);
        throw subscriptionNotFound(id);
    }
  }

  async deadLetters(id: string, filter: DeadLetterFilter, page: PageOf<Version>, signal: AbortSignal) {
    this.#assertServing();
    const listed = await this.#options.store.deadLetters(id, filter, page, signal);
    const replaying = this.#options.groups?.replaying(id) ?? new Set();
    const items = listed.items.map((dead) => ({ ...dead, replaying: replaying.has(dead.version) }));
    return { ...listed, items };
  }

  async replayDeadLetters(id: string, filter: DeadLetterFilter, limit: number, signal: AbortSignal) {
    this.#assertServing();
    const record = await this.#get(id, signal);
    if (!record.isGroup) {
      return { replaying: 0, remaining: 0 };
    }
    return await this.#groups(id).replayDeadLetters(record, filter, limit, signal);
  }

  async discardDeadLetters(id: string, filter: DeadLetterFilter, signal: AbortSignal) {
    this.#assertServing();
    const outcome = await this.#options.store.discardDeadLetters(id, filter, signal);
    if (outcome.discarded > 0) {
      this.#options.groups?.discarded(id);
    }
    return outcome;
  }

  async #get(id: string, signal: AbortSignal): Promise<SubscriptionRecord> {
    const record = await this.#options.store.get(id, signal);
    this.#isGroup.set(id, record.isGroup);
    if (this.#isGroup.size > MAX_KINDS) {
      const [oldest] = this.#isGroup.keys();
      this.#isGroup.delete(oldest ?? id);
    }
    return record;
  }

  async #locate(start: Start, isGroup: boolean, signal: AbortSignal): Promise<StoredPosition> {
    const cursor = await this.#options.feed.locate(start, signal);
    if (isGroup && cursor.snapshot !== undefined) {
      const field = start.kind === "snapshot" ? "snapshot" : "after_cursor";
      throw invalid(field, "cannot begin a group in a snapshot: its rows have no order that members could share");
    }
    return storedPosition(cursor);
  }

  #changed(id: string | undefined): void {
    if (id === undefined) {
      this.#isGroup.clear();
    } else {
      this.#isGroup.delete(id);
    }
    this.#holdings.hint(id);
  }

  #groups(id: string): Groups {
    const { groups } = this.#options;
    if (groups === undefined) {
      throw noGroups(id);
    }
    return groups;
  }

  async #summarise(): Promise<void> {
    const { store, timers } = this.#options;
    const { signal } = this.#stopping;
    const before = this.#created;
    try {
      this.#summary = await store.summary(signal);
      this.#created -= before;
    } catch {
      // Whoever looks sees for itself that the database does not answer.
      this.#summary = undefined;
    }
    if (!signal.aborted) {
      this.#cancelSummary = timers.after(SUMMARY_MS, () => void this.#summarise());
    }
  }

  #countFenced(): void {
    this.#fenced += 1;
  }

  #now() {
    return { bornAtLook: this.#holdings.looks, nowMs: this.#options.clock.monotonic() };
  }

  /** Acknowledgements are taken to the last moment, everything else only where streams are. */
  #assertServing(): void {
    this.#assertRunning();
    if (this.#options.feed.status().state === "DRAINING") {
      throw goingDown();
    }
  }

  #assertRunning(): void {
    if (this.#stopping.signal.aborted) {
      throw goingDown();
    }
  }
}

function acknowledgedAt({ cursor, version }: StoredPosition): Acknowledged {
  return { cursor, version, accepted: 0 };
}

/** What was said is said, whether or not its caller waits to hear of it. */
function unless<T>(signal: AbortSignal, work: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
    if (signal.aborted) {
      onAbort();
    }
  });
}
