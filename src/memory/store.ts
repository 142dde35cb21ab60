import { systemClock } from "../core/clock.ts";
import { FeedError } from "../core/errors.ts";
import type { Event, Version } from "../core/event.ts";
import { type Ancestor, EpochOver } from "../core/lineage.ts";
import type { Page, Tick } from "../core/page.ts";
import type {
  Bounds,
  Clock,
  FeedStore,
  Publication,
  Published,
  SnapshotReader,
  SnapshotRequest,
  WakeUp,
} from "../core/ports.ts";
import type { StreamMail } from "../core/stream/stream-mail.ts";
import type { SubscriptionStore } from "../core/subscription/subscription-store.ts";
import { History } from "./history.ts";
import { Outage } from "./outage.ts";
import { Outbox } from "./outbox.ts";
import { Publisher } from "./publisher.ts";
import { type Snapshot, sees } from "./snapshot.ts";
import { createMemoryStreamMail } from "./stream-mail.ts";
import { MemorySubscriptions } from "./subscription/subscription-store.ts";
import { copyTables } from "./table-copy.ts";
import { Tables } from "./tables.ts";
import { beginTransaction, type MemoryTransaction } from "./transaction.ts";
import { Transactions } from "./transactions.ts";
import { createMemoryWakeUp } from "./wake-up.ts";

/** What a store in memory holds. */
export interface MemoryStoreOptions {
  /** Topics, or templates like `orders.{region}`, that rows can be put into. Default none: only `emit`. */
  readonly sources?: readonly string[];
  /** Events per page. Default 1,000. */
  readonly pageEvents?: number;
  /** Rows per batch of a snapshot. Default 1,000. */
  readonly snapshotRows?: number;
  /** Rows after which a snapshot is cut, as those of a database are by their bounds. Default none. */
  readonly snapshotMaxRows?: number;
  /** Those of `sources` whose rows a snapshot copies in no order that it could go on in. Default none. */
  readonly unordered?: readonly string[];
  /** Milliseconds between polls when nothing nudges. Default 20. */
  readonly idleMs?: number;
  /** A UUID. Default a random one. */
  readonly epoch?: string;
  /** Default the machine's. */
  readonly clock?: Clock;
}

/** A feed's store without a database: for tests, simulation, and programs that want a feed of their own. */
export interface MemoryStore extends FeedStore {
  readonly wakeUp: WakeUp;
  /** To the streams of other feeds over this store. */
  readonly mail: StreamMail;
  readonly subscriptions: SubscriptionStore;
  readonly outage: Outage;
  /** Begins a writer's transaction. */
  begin(): MemoryTransaction;
  /** Makes a source of this topic or template, for what is written from now on. */
  watch(source: string): void;
  /** It is a source no more. Its rows are forgotten; the events stay. */
  unwatch(source: string): void;
  /** Forgets what is older than this version. */
  retainFrom(version: Version): void;
  /**
   * What a restore does: the feed as it was at this version, the last of a tick, in a new epoch, with whatever came after
   * forgotten. From now on this store rejects everything with `EpochOver`. Subscriptions stand where they stood, also those
   * beyond the fork.
   */
  fork(version: Version): MemoryStore;
}

/** Holds everything in memory and forgets it with the process. Ticks by the same rule as Postgres. */
export function createMemoryStore(options: MemoryStoreOptions = {}): MemoryStore {
  return new Store(options);
}

/** What a store takes over from the one that it forks. */
interface Inheritance {
  readonly lineage: readonly Ancestor[];
  readonly transactions: Transactions;
  readonly history: History;
  readonly subscriptions: MemorySubscriptions;
}

class Store implements MemoryStore {
  readonly epoch: string;
  readonly lineage: readonly Ancestor[];
  readonly wakeUp: WakeUp;
  readonly mail = createMemoryStreamMail();
  readonly outage = new Outage();
  readonly subscriptions: MemorySubscriptions;
  readonly #options: MemoryStoreOptions;
  readonly #clock: Clock;
  readonly #pageEvents: number;
  readonly #transactions: Transactions;
  readonly #outbox = new Outbox();
  readonly #tables: Tables;
  readonly #history: History;
  readonly #publisher: Publisher;
  /** Of the last tick. */
  #snapshot: Snapshot;

  constructor(options: MemoryStoreOptions, inherited?: Inheritance) {
    this.#options = options;
    this.epoch = options.epoch ?? crypto.randomUUID();
    this.wakeUp = createMemoryWakeUp(options.idleMs ?? 20);
    this.#clock = options.clock ?? systemClock;
    this.#pageEvents = options.pageEvents ?? 1_000;
    this.lineage = inherited?.lineage ?? [];
    this.#transactions = inherited?.transactions ?? new Transactions();
    this.#tables = new Tables(options.sources ?? [], this.#transactions);
    this.#history = inherited?.history ?? new History(this.#nowMicros());
    this.#tables.restore(this.#history.events);
    this.#publisher = new Publisher(
      () => this.begin(),
      (xid) => this.#history.lastVersionOf(xid),
    );
    this.#snapshot = this.#transactions.snapshot();
    this.subscriptions = new MemorySubscriptions({
      inForce: { epoch: this.epoch, lineage: this.lineage },
      bounds: () => ({ oldest: this.#history.oldest, head: this.#history.head }),
      clock: this.#clock,
      outage: this.outage,
      inherited: inherited?.subscriptions,
    });
  }

  begin(): MemoryTransaction {
    return beginTransaction({
      transactions: this.#transactions,
      outbox: this.#outbox,
      tables: this.#tables,
      nowMicros: () => this.#nowMicros(),
      committed: () => this.wakeUp.nudge(),
      signal: new AbortController().signal,
    });
  }

  watch(source: string): void {
    this.#tables.add(source);
  }

  unwatch(source: string): void {
    this.#tables.drop(source);
  }

  retainFrom(version: Version): void {
    this.#history.retainFrom(version);
  }

  fork(version: Version): MemoryStore {
    const lineage = [{ epoch: this.epoch, forkVersion: version }, ...this.lineage];
    const { epoch: _epoch, ...options } = this.#options;
    const { sources } = this.#tables;
    const { subscriptions } = this;
    const history = this.#history.until(version);
    const inherited = { lineage, transactions: this.#transactions, history, subscriptions };
    const successor = new Store({ ...options, sources }, inherited);
    this.outage.refuseForGood(new EpochOver(`The epoch in force is ${successor.epoch}, not ${this.epoch}.`));
    this.wakeUp.nudge();
    return successor;
  }

  async bounds(signal: AbortSignal): Promise<Bounds> {
    await this.outage.gate(signal);
    return { oldest: this.#history.oldest, head: this.#history.head };
  }

  async advance(after: Version, signal: AbortSignal): Promise<Page | undefined> {
    await this.outage.gate(signal);
    this.#tick("when_not_empty");
    return this.#page(after);
  }

  async readAfter(after: Version, signal: AbortSignal): Promise<Page | undefined> {
    await this.outage.gate(signal);
    return this.#page(after);
  }

  async tickOf(version: Version, signal: AbortSignal): Promise<Tick | undefined> {
    await this.outage.gate(signal);
    return this.#history.tickOf(version);
  }

  async tickAt(timeMicros: number, signal: AbortSignal): Promise<Tick | undefined> {
    await this.outage.gate(signal);
    return this.#history.tickAt(timeMicros);
  }

  async snapshot(request: SnapshotRequest, signal: AbortSignal): Promise<SnapshotReader> {
    await this.outage.gate(signal);
    const tick = this.#tick("always");
    const { snapshotRows = 1_000, snapshotMaxRows = Number.POSITIVE_INFINITY, unordered = [] } = this.#options;
    const bounds = { batchRows: snapshotRows, maxRows: snapshotMaxRows };
    return copyTables(this.#tables, tick, { request, unordered, ...bounds }, signal);
  }

  async publish(request: Publication, signal: AbortSignal): Promise<Published> {
    await this.outage.gate(signal);
    return this.#publisher.publish(request);
  }

  async settled(xid: string, signal: AbortSignal): Promise<Version> {
    await this.outage.gate(signal);
    const number = Number(xid);
    if (!this.#transactions.begun(number)) {
      throw new FeedError(
        "INVALID_REQUEST",
        `Transaction ${xid} has not begun yet.`,
        "Pass the transaction of something that was written.",
        { violations: [{ field: "after_transaction", message: "must be a transaction that has begun" }] },
      );
    }
    await this.#transactions.until(() => !this.#transactions.running(number), signal);
    await this.outage.gate(signal);
    if (!sees(this.#snapshot, number)) {
      this.#tick("always");
    }
    return this.#history.head;
  }

  /** What this moment sees and the last tick's did not. */
  #tick(write: "always" | "when_not_empty"): Tick {
    const before = this.#snapshot;
    const now = this.#transactions.snapshot();
    const taken = this.#outbox.take(before, now);
    this.#snapshot = now;
    const last = this.#history.tickOf(this.#history.head);
    if (taken.length === 0 && write === "when_not_empty" && last !== undefined) {
      return last;
    }
    return this.#history.settle((first) => {
      const events = taken.map(({ seq: _seq, ...row }, i): Event => ({ ...row, version: first + i }));
      this.#tables.apply(events);
      return events;
    }, this.#nowMicros());
  }

  #page(after: Version): Page | undefined {
    const { oldest, head } = this.#history;
    if (after + 1 < oldest) {
      throw new FeedError(
        "HISTORY_LOST",
        `Version ${after + 1} is older than what is kept: the oldest version is ${oldest}.`,
        "Start from `snapshot` to get the state and go on from there, or from `oldest` to accept the loss.",
        { epoch: this.epoch, oldestVersion: oldest, headVersion: head },
      );
    }
    return this.#history.page(after, this.#pageEvents);
  }

  #nowMicros(): number {
    return Math.round(this.#clock.now() * 1_000);
  }
}
