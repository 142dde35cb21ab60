import type pg from "pg";
import { FeedError } from "../core/errors.ts";
import type { Version } from "../core/event.ts";
import type { Ancestor, Lineage } from "../core/lineage.ts";
import type { Page, Tick } from "../core/page.ts";
import type {
  Bounds,
  FeedStore,
  Publication,
  Published,
  Service,
  SnapshotReader,
  SnapshotRequest,
  WakeUp,
} from "../core/ports.ts";
import type { StreamMail } from "../core/stream/stream-mail.ts";
import type { SubscriptionStore } from "../core/subscription/subscription-store.ts";
import { waitForTransaction } from "./barrier.ts";
import { createPool } from "./database.ts";
import { type EntryOptions, enterEpoch, type Followed } from "./epoch/enter-epoch.ts";
import { assertContinues, ShownTicks } from "./epoch/shown-ticks.ts";
import { GatheredQuestions } from "./gathered-questions.ts";
import { withLease } from "./lease.ts";
import { defaultPageLimits, type PageLimits, PageReader, readPage } from "./page.ts";
import { publish } from "./publish.ts";
import { queryError } from "./query-error.ts";
import { openSnapshot, type SnapshotOptions } from "./snapshot/snapshot.ts";
import { readBounds, readTickAt, readTicksOf } from "./statements/find-ticks.ts";
import { PostgresStreamMail } from "./stream-mail/stream-mail.ts";
import { PostgresSubscriptions } from "./subscription/subscription-store.ts";
import { Tail } from "./tail.ts";
import { tickFromText } from "./tick-row.ts";
import { PostgresWakeUp, type WakeUpSignals } from "./wake-up.ts";
import { SessionWatch } from "./watch/session-watch.ts";

/** What a Postgres store needs to know. */
export interface PostgresStoreOptions {
  /** A migrated database, as a role that `millrace.allow` made a server. May lead through a transaction-mode pooler. */
  readonly url: string;
  /**
   * For LISTEN, past any pooler. Default `url`, which is tried and left alone when a pooler answers; `false` for none, which
   * means polling.
   */
  readonly directUrl?: string | false | undefined;
  /** Connections that read history at the same time. Default 4. */
  readonly historyConnections?: number | undefined;
  /** Connections for publishing, barriers and single questions. Default 4. */
  readonly serviceConnections?: number | undefined;
  readonly pages?: Partial<PageLimits> | undefined;
  readonly snapshots?: SnapshotOptions | undefined;
  /** How long one tick may take before it is given up and tried with twice the time, in milliseconds. Default 30,000. */
  readonly tickTimeoutMs?: number | undefined;
  /** How long another replica may take to answer for a stream of its own, in milliseconds. Default 5,000. */
  readonly mailTimeoutMs?: number | undefined;
  readonly signals?: PostgresStoreSignals | undefined;
  /** Who watches the connections. Default: one of the store's own, that tells nobody. */
  readonly watch?: SessionWatch | undefined;
  /** Told each time that the tail was restarted several times in a row without success. */
  readonly onTailHopeless?: ((reason: FeedError) => void) | undefined;
  /** How often the connection that listens says something, in milliseconds. Default 10,000. */
  readonly pingMs?: number | undefined;
  /**
   * What to do with a database that the epoch in force was not written by (restored, promoted, copied, rolled back): begin a
   * new epoch, or fail the start with INVALID_REQUEST. Default `auto`.
   */
  readonly newEpoch?: EntryOptions["newEpoch"] | undefined;
  /** Of the store that this one takes the place of: proof in case that the disk was rolled back. */
  readonly followed?: Followed | undefined;
  readonly onNewEpoch?: EntryOptions["onBegun"];
}

/** What a store announces, for tests and metrics. */
export interface PostgresStoreSignals extends WakeUpSignals {
  /** The number of the last tick, each time the database was asked. */
  readonly onTick?: (tick: number) => void;
}

/** A feed in Postgres. `start` it before anything else; it keeps one to twenty connections, made when they are needed. */
export interface PostgresStore extends FeedStore, Service {
  readonly wakeUp: WakeUp;
  /** To the streams of other replicas. */
  readonly mail: StreamMail;
  readonly subscriptions: SubscriptionStore;
  /** For the store that comes after it; `undefined` before `start`. */
  readonly followed: Followed | undefined;
}

/**
 * The feed that is in this database. Failures of the database are DATABASE_UNAVAILABLE: each call makes the connection
 * that it needs, so that the next one after an outage succeeds without anybody's doing.
 */
export function createPostgresStore(options: PostgresStoreOptions): PostgresStore {
  return new Store(options);
}

const idleMs = 30_000;
/** To begin an epoch, all events that no tick has settled are written anew: without a timeout, for it cannot be split. */
const entryMs = 3_600_000;

class Store implements PostgresStore {
  readonly #options: PostgresStoreOptions;
  readonly #wakeUp: PostgresWakeUp;
  readonly #tailPool: pg.Pool;
  readonly #historyPool: pg.Pool;
  readonly #servicePool: pg.Pool;
  readonly #snapshotPool: pg.Pool;
  readonly #shown = new ShownTicks();
  readonly #mail: PostgresStreamMail;
  readonly #subscriptions: PostgresSubscriptions;
  readonly #watch: SessionWatch;
  /** Streams that come back together ask these together. */
  readonly #bounds = new GatheredQuestions<string, Bounds>((_epochs, signal) => this.#askBounds(signal));
  readonly #ticks = new GatheredQuestions<Version, Tick>((versions, signal) => this.#askTicks(versions, signal));
  #opened:
    | { readonly epoch: string; readonly lineage: readonly Ancestor[]; readonly tail: Tail; readonly pages: PageReader }
    | undefined;
  #stopping: Promise<void> | undefined;

  constructor(options: PostgresStoreOptions) {
    this.#options = options;
    const { url, directUrl, signals, onTailHopeless } = options;
    const watch = options.watch ?? new SessionWatch({ url });
    this.#watch = watch;
    this.#wakeUp = new PostgresWakeUp({
      directUrl: directUrl === false ? undefined : (directUrl ?? url),
      signals,
      onMail: (replica) => this.#mail.heard(replica),
      onSubscription: (id) => this.#subscriptions.heard(id),
      watch: watch.sessions("waiter"),
      pingMs: options.pingMs,
    });
    // The tail's connection is never idle for long; were it closed while the feed sleeps, waking up would make a new one.
    this.#tailPool = createPool({
      url,
      max: 1,
      idleMs: 0,
      watch: watch.sessions("tail", { onHopeless: onTailHopeless }),
    });
    const history = options.historyConnections ?? 4;
    this.#historyPool = createPool({ url, max: history, idleMs, watch: watch.sessions("history") });
    const service = options.serviceConnections ?? 4;
    this.#servicePool = createPool({ url, max: service, idleMs, watch: watch.sessions("service") });
    this.#mail = new PostgresStreamMail({
      pool: this.#servicePool,
      listening: () => this.#wakeUp.listening,
      timeoutMs: options.mailTimeoutMs ?? 5_000,
    });
    this.#subscriptions = new PostgresSubscriptions({ pool: this.#servicePool, epoch: () => this.epoch });
    // Each open snapshot has one, and one of them a second while it opens; one is for the moments when one has to ask.
    const snapshots = (options.snapshots?.maxOpen ?? 8) + 2;
    const copying = watch.sessions("snapshot", { allowedMs: options.snapshots?.deadlineMs });
    this.#snapshotPool = createPool({ url, max: snapshots, idleMs, watch: copying });
  }

  get wakeUp(): WakeUp {
    return this.#wakeUp;
  }

  get mail(): StreamMail {
    return this.#mail;
  }

  get subscriptions(): SubscriptionStore {
    return this.#subscriptions;
  }

  get epoch(): string {
    return this.#open.epoch;
  }

  get lineage(): readonly Ancestor[] {
    return this.#open.lineage;
  }

  get #open() {
    if (this.#opened === undefined) {
      throw new FeedError("INTERNAL", "The store has not been started.", "Await `start` before anything else.");
    }
    return this.#opened;
  }

  async start(signal: AbortSignal): Promise<void> {
    this.#watch.start();
    try {
      const { epoch, lineage } = await this.#enter(signal);
      const pages = new PageReader(epoch, { ...defaultPageLimits, ...definedOf(this.#options.pages) });
      const tail = new Tail({
        pool: this.#tailPool,
        epoch,
        pages,
        shown: this.#shown,
        tickTimeoutMs: this.#options.tickTimeoutMs ?? 30_000,
        onTick: (tick) => {
          this.#wakeUp.settled(tick);
          this.#options.signals?.onTick?.(tick);
        },
      });
      await this.#wakeUp.start(signal);
      this.#opened = { epoch, lineage, tail, pages };
    } catch (error) {
      await this.stop();
      throw error;
    }
  }

  get followed(): Followed | undefined {
    return this.#opened === undefined
      ? undefined
      : { epoch: this.epoch, lineage: this.lineage, newest: this.#shown.newest };
  }

  async #enter(signal: AbortSignal): Promise<Lineage> {
    const { newEpoch = "auto", followed, onNewEpoch } = this.#options;
    try {
      return await withLease(this.#servicePool, signal, (lease) => {
        lease.allow(entryMs);
        return enterEpoch(lease, { newEpoch, followed, onBegun: onNewEpoch });
      });
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      throw queryError(error, "open the feed");
    }
  }

  stop(): Promise<void> {
    this.#stopping ??= Promise.all([
      this.#wakeUp.stop(),
      ...[this.#tailPool, this.#historyPool, this.#servicePool, this.#snapshotPool].map((pool) => pool.end()),
    ]).then(async () => {
      if (this.#options.watch === undefined) await this.#watch.stop();
    });
    return this.#stopping;
  }

  async bounds(signal: AbortSignal): Promise<Bounds> {
    const bounds = await this.#bounds.about(this.epoch, signal);
    if (bounds === undefined) throw new FeedError("INTERNAL", "There is no tick.", "Run `millrace doctor`.");
    return bounds;
  }

  async #askBounds(signal: AbortSignal): Promise<ReadonlyMap<string, Bounds>> {
    const rows = await this.#rows<{ readonly oldest: string; readonly head: string }>(
      "read what the feed holds",
      readBounds,
      [this.epoch],
      signal,
    );
    return new Map(rows.map(({ oldest, head }) => [this.epoch, { oldest: Number(oldest), head: Number(head) }]));
  }

  advance(after: Version, signal: AbortSignal): Promise<Page | undefined> {
    return this.#open.tail.advance(after, signal);
  }

  async readAfter(after: Version, signal: AbortSignal): Promise<Page | undefined> {
    const { pages } = this.#open;
    try {
      const page = await readPage(this.#historyPool, signal, async (lease, alone) => {
        // Before each page, on its own connection: between two connections a disk may have been rolled back.
        await assertContinues(lease, this.#shown.newest);
        return await pages.read(lease, after, alone);
      });
      this.#shown.byReader(page?.ticks.at(-1));
      return page;
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      throw queryError(error, "read history");
    }
  }

  tickOf(version: Version, signal: AbortSignal): Promise<Tick | undefined> {
    return this.#ticks.about(version, signal);
  }

  async #askTicks(versions: readonly Version[], signal: AbortSignal): Promise<ReadonlyMap<Version, Tick>> {
    const values = [this.epoch, versions];
    const rows = await this.#rows<{ readonly version: string; readonly text: string }>(
      "look up ticks",
      readTicksOf,
      values,
      signal,
    );
    const ticks = rows.map(({ version, text }) => [Number(version), tickFromText(text)] as const);
    for (const [, tick] of ticks) this.#shown.byReader(tick);
    return new Map(ticks);
  }

  async tickAt(timeMicros: number, signal: AbortSignal): Promise<Tick | undefined> {
    const values = [this.epoch, timeMicros];
    const [row] = await this.#rows<{ readonly text: string }>("look up a tick", readTickAt, values, signal);
    const tick = row === undefined ? undefined : tickFromText(row.text);
    this.#shown.byReader(tick);
    return tick;
  }

  async snapshot(request: SnapshotRequest, signal: AbortSignal): Promise<SnapshotReader> {
    const reader = await openSnapshot(this.#snapshotPool, this.epoch, request, this.#options.snapshots ?? {}, signal);
    this.#shown.byReader(reader.tick);
    return reader;
  }

  async publish(request: Publication, signal: AbortSignal): Promise<Published> {
    const published = await publish(this.#servicePool, this.epoch, request, signal);
    this.#wakeUp.nudge();
    return published;
  }

  settled(xid: string, signal: AbortSignal): Promise<Version> {
    return waitForTransaction(this.#servicePool, this.epoch, xid, signal);
  }

  async #rows<R extends pg.QueryResultRow>(
    doing: string,
    sql: string,
    values: readonly unknown[],
    signal: AbortSignal,
  ): Promise<readonly R[]> {
    try {
      return await withLease(this.#servicePool, signal, (lease) => lease.rows<R>(sql, values));
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      throw queryError(error, doing);
    }
  }
}

function definedOf(limits: Partial<PageLimits> | undefined): Partial<PageLimits> {
  return Object.fromEntries(Object.entries(limits ?? {}).filter(([, value]) => value !== undefined));
}
