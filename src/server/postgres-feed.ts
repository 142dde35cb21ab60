import type { Logger } from "pino";
import { systemClock } from "../core/clock.ts";
import type { FeedError } from "../core/errors.ts";
import type { FeedLimits } from "../core/feed/feed-limits.ts";
import { createFeed } from "../core/feed/feed-service.ts";
import type { FeedObserver } from "../core/feed.ts";
import { createPool } from "../postgres/database.ts";
import type { BegunEpoch, Followed } from "../postgres/epoch/enter-epoch.ts";
import { whatHappened } from "../postgres/epoch/reason.ts";
import { withLease } from "../postgres/lease.ts";
import { look } from "../postgres/look.ts";
import { migrate } from "../postgres/migrate.ts";
import { createPoller } from "../postgres/poll/poller.ts";
import { createKeeper } from "../postgres/retention/keeper.ts";
import { readStorage, type Storage, storageProblems } from "../postgres/retention/storage.ts";
import { createSchemaWatch } from "../postgres/schema-change/schema-watch.ts";
import { listSources } from "../postgres/sources.ts";
import { createPostgresStore, type PostgresStore } from "../postgres/store.ts";
import { builtFeed } from "./built-feed.ts";
import type { Config } from "./config.ts";
import type { FollowedConfig } from "./config-file/followed-config.ts";
import type { OpenedFeed, OpenFeed } from "./feed-holder.ts";
import { createFeedWatch, type FeedWatch } from "./feed-watch.ts";
import { createLastLook } from "./last-look.ts";
import { openSources } from "./open-sources.ts";
import { openSubscriptions } from "./open-subscriptions.ts";
import { createProblemMonitor } from "./problem-monitor.ts";

/** The monitor's connection is kept no longer than it takes to look. */
const MONITOR_IDLE_MS = 1_000;
/** Other servers take a waiter that says nothing for longer than three of these for a dead one. */
const LONGEST_PING_MS = 10_000;
/** Several looks of the monitor: what one that fails leaves out is not missed, what a database that is away hides is. */
const STORAGE_MAX_AGE_MS = 60_000;

/** Told of what a feed does, and of what had to be done about it. */
export interface ServedFeedObserver extends FeedObserver {
  /** A part of it was stuck, and was restarted. */
  restarted?(part: string): void;
}

/**
 * Opens the feed that is in `config.databaseUrl`, any number of times one after the other: each opening knows what the one
 * before has read.
 *
 * @param url - where other replicas reach this one; asked when a feed is opened. Default: nowhere
 */
export function postgresFeedOpener(
  config: Config,
  log: Logger,
  observer: ServedFeedObserver,
  declared?: FollowedConfig,
  url: () => string | undefined = () => undefined,
): OpenFeed {
  let before: PostgresStore | undefined;
  return async (signal, onOver) => {
    const opened = await openPostgresFeed(config, log, {
      signal,
      onOver,
      observer,
      followed: before?.followed,
      declared,
      url: url(),
    });
    before = opened.store;
    return opened;
  };
}

interface Opening {
  readonly signal: AbortSignal;
  readonly onOver: (reason: FeedError) => void;
  readonly observer: ServedFeedObserver;
  readonly followed: Followed | undefined;
  readonly declared: FollowedConfig | undefined;
  /** Where other replicas reach this one. */
  readonly url: string | undefined;
}

/** Brings the schema up to date, or checks it, and enters the epoch in force. */
async function openPostgresFeed(
  config: Config,
  log: Logger,
  { signal, onOver, observer, followed, declared, url }: Opening,
): Promise<OpenedFeed & { readonly store: PostgresStore }> {
  const { databaseUrl, directUrl } = config;
  // For as long as this feed lasts: of one that shows events by these builders.
  const file = declared?.current;
  await using opening = new AsyncDisposableStack();
  const watch = createFeedWatch({
    url: databaseUrl,
    stuckAfterMs: config.stuckAfterMs,
    log,
    onRestart: (part) => observer.restarted?.(part),
    onHopeless: onOver,
  });
  opening.defer(() => watch.stop());
  const { applied, version } = await migrate(databaseUrl, {
    // An empty database under a running server is one that somebody is about to restore into.
    apply: config.migrate && followed === undefined,
    onWait: (sentence) => log.warn({}, sentence),
    signal,
    watch: watch.sessions.sessions("opening"),
  });
  log.info({ schema: version, applied: applied.map(({ name }) => name) }, "the schema is up to date");

  const store = createPostgresStore({
    url: databaseUrl,
    directUrl: directUrl === "none" ? false : directUrl,
    historyConnections: config.historyConnections,
    serviceConnections: config.serviceConnections,
    newEpoch: config.newEpoch,
    followed,
    snapshots: { states: file?.states },
    onNewEpoch: (begun) => tellNewEpoch(begun, log),
    watch: watch.sessions,
    pingMs: Math.min(LONGEST_PING_MS, config.stuckAfterMs),
    onTailHopeless: (reason) => watch.tailIsHopeless(reason),
  });
  opening.defer(() => store.stop());
  await store.start(signal);
  const sessions = watch.sessions.sessions("service");
  const sources = await openSources(opening, { databaseUrl, log, signal, declared, file, onOver, sessions });
  const built = builtFeed(opening, store, { databaseUrl, log, file, sessions });

  const feed = createFeed({
    store: built.store,
    wakeUp: store.wakeUp,
    mail: store.mail,
    limits: feedLimits(config),
    maxStreamAgeMs: config.maxStreamAgeMs,
    observer,
    report: (message, error) => (error === undefined ? log.info({}, message) : log.warn({ err: error }, message)),
    onOver,
    watchdog: watch.watchdog,
  });
  opening.defer(() => feed.stop());
  await feed.start(signal);
  watch.follow(feed);
  const { streamBytes, maxStreamAgeMs, maxStreams: maxMembers, maxSubscriptions } = config;
  const terms = { url, streamBytes, maxStreamAgeMs, maxMembers, maxSubscriptions };
  const subscriptions = await openSubscriptions(opening, { feed, store: store.subscriptions, log, signal, ...terms });

  const looking = watch.sessions.sessions("monitor");
  const pool = createPool({ url: databaseUrl, max: 1, idleMs: MONITOR_IDLE_MS, watch: looking });
  opening.defer(() => pool.end());
  const { monitor, lastStorage } = await openMonitor(opening, pool, log, signal);
  await startBackground(opening, { pool, config, store, log, signal, watch });

  const open = opening.move();
  return {
    store,
    feed,
    subscriptions,
    lineage: store.lineage,
    problems: () => [...watch.problems(), ...monitor.current(), ...sources.problems(), ...built.problems()],
    storage: lastStorage.current,
    sources: sources.control,
    builders: built.stats,
    stop: () => open.disposeAsync(),
  };
}

/** Looks after what may go wrong beside the feed. */
async function openMonitor(opening: AsyncDisposableStack, pool: Background["pool"], log: Logger, signal: AbortSignal) {
  const lastStorage = createLastLook<Storage>(STORAGE_MAX_AGE_MS, systemClock);
  const monitor = createProblemMonitor(async (stopping) => {
    const sources = await listSources(pool);
    const storage = await withLease(pool, stopping, (lease) => look(lease.client, () => readStorage(lease)));
    lastStorage.saw(storage);
    const captured = sources.flatMap(({ problems }) =>
      problems.map(({ kind, message, action }) => ({ code: kind, message, action })),
    );
    return [...captured, ...storageProblems(storage)];
  }, log);
  opening.defer(() => monitor.stop());
  await monitor.start(signal);
  return { monitor, lastStorage };
}

function feedLimits(config: Config): Partial<FeedLimits> {
  return {
    maxStreams: config.maxStreams,
    maxStreamsPerPeer: config.maxStreamsPerPeer,
    maxSelectors: config.maxSelectors,
    maxFilterBytes: config.maxFilterBytes,
    maxFilterCost: config.maxFilterCost,
    maxLanes: config.maxLanes,
    maxLanesBytes: config.laneBytes,
    maxStreamBytes: config.streamBytes,
    logMaxBytes: config.logBytes,
    warmBytes: Math.min(config.warmBytes, config.logBytes),
    maxReads: config.historyConnections,
    historyCacheBytes: config.historyCacheBytes,
  };
}

interface Background {
  readonly pool: ReturnType<typeof createPool>;
  readonly config: Config;
  readonly store: PostgresStore;
  readonly log: Logger;
  readonly signal: AbortSignal;
  readonly watch: FeedWatch;
}

/** What runs beside the feed: nothing waits for it. */
async function startBackground(
  opening: AsyncDisposableStack,
  { pool, config, store, log, signal, watch }: Background,
): Promise<void> {
  const { databaseUrl: url } = config;
  const report = (message: string, error?: unknown): void =>
    error === undefined ? log.info({}, message) : log.warn({ err: error }, message);
  const schemas = createSchemaWatch({
    pool,
    report: (message, error) => (error === undefined ? log.info({}, message) : log.debug({ err: error }, message)),
  });
  const keeper = createKeeper({ url, report, watch: watch.sessions.sessions("retention") });
  const poller = createPoller({
    url,
    epoch: store.epoch,
    report,
    onTold: () => store.wakeUp.nudge(),
    watch: watch.sessions.sessions("polling"),
  });
  for (const service of [schemas, keeper, poller]) {
    opening.defer(() => service.stop());
    await service.start(signal);
  }
}

function tellNewEpoch({ reason, ...begun }: BegunEpoch, log: Logger): void {
  log.warn(
    { ...begun, reason },
    `a new epoch has begun, because this database ${whatHappened(reason)}: cursors go on up to version ${begun.forkVersion}, and what came after it is not part of this history`,
  );
}
