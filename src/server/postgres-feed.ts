import type { Logger } from "pino";
import { createFeed } from "../core/feed-service.ts";
import { createPool } from "../postgres/database.ts";
import { withLease } from "../postgres/lease.ts";
import { look } from "../postgres/look.ts";
import { migrate } from "../postgres/migrate.ts";
import { createKeeper } from "../postgres/retention/keeper.ts";
import { readStorage, storageProblems } from "../postgres/retention/storage.ts";
import { createSchemaWatch } from "../postgres/schema-change/schema-watch.ts";
import { listSources } from "../postgres/sources.ts";
import { createPostgresStore } from "../postgres/store.ts";
import type { Config } from "./config.ts";
import { createProblemMonitor } from "./problem-monitor.ts";
import type { OpenedFeed } from "./server.ts";

/** The monitor's connection is kept no longer than it takes to look. */
const MONITOR_IDLE_MS = 1_000;

/** Brings the schema up to date, or checks it, and opens the feed that is in `config.databaseUrl`. */
export async function openPostgresFeed(config: Config, log: Logger, signal: AbortSignal): Promise<OpenedFeed> {
  const { databaseUrl, directUrl } = config;
  const { applied, version } = await migrate(databaseUrl, {
    apply: config.migrate,
    onWait: (sentence) => log.warn({}, sentence),
    signal,
  });
  log.info({ schema: version, applied: applied.map(({ name }) => name) }, "the schema is up to date");

  await using opening = new AsyncDisposableStack();
  const store = createPostgresStore({
    url: databaseUrl,
    directUrl: directUrl === "none" ? false : directUrl,
    historyConnections: config.historyConnections,
    serviceConnections: config.serviceConnections,
  });
  opening.defer(() => store.stop());
  await store.start(signal);

  const feed = createFeed({
    store,
    wakeUp: store.wakeUp,
    limits: { maxStreams: config.maxStreams, logMaxBytes: config.logBytes },
    report: (message, error) => (error === undefined ? log.info({}, message) : log.warn({ err: error }, message)),
  });
  opening.defer(() => feed.stop());
  await feed.start(signal);

  const pool = createPool({ url: databaseUrl, max: 1, idleMs: MONITOR_IDLE_MS });
  opening.defer(() => pool.end());
  const monitor = createProblemMonitor(async (stopping) => {
    const sources = await listSources(pool);
    const storage = await withLease(pool, stopping, (lease) => look(lease.client, () => readStorage(lease)));
    const captured = sources.flatMap(({ problems }) =>
      problems.map(({ kind, message, action }) => ({ code: kind, message, action })),
    );
    return [...captured, ...storageProblems(storage)];
  }, log);
  opening.defer(() => monitor.stop());
  await monitor.start(signal);
  const schemas = createSchemaWatch({
    pool,
    report: (message, error) => (error === undefined ? log.info({}, message) : log.debug({ err: error }, message)),
  });
  opening.defer(() => schemas.stop());
  await schemas.start(signal);

  const keeper = createKeeper({
    url: databaseUrl,
    report: (message, error) => (error === undefined ? log.info({}, message) : log.warn({ err: error }, message)),
  });
  opening.defer(() => keeper.stop());
  await keeper.start(signal);

  const open = opening.move();
  return { feed, problems: monitor.current, stop: () => open.disposeAsync() };
}
