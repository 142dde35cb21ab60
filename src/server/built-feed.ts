import type { Logger } from "pino";
import { type BuilderStats, withBuilders } from "../core/builder/built-store.ts";
import { systemClock, systemTimers } from "../core/clock.ts";
import type { FeedStore } from "../core/ports.ts";
import { type ConnectionOptions, createPool } from "../postgres/database.ts";
import { readWatchedTopics } from "../postgres/source/watched-topics.ts";
import type { Problem } from "../rpc/status.ts";
import { createBuilderFailures } from "./builder-failures.ts";
import type { Declarations } from "./config-file/declarations.ts";

/** What building takes. */
export interface BuiltFeedOptions {
  readonly databaseUrl: string;
  readonly log: Logger;
  readonly file: Declarations | undefined;
  readonly sessions: ConnectionOptions["watch"];
}

/** What a feed stands on, and how its builders fare. */
export interface BuiltFeed {
  readonly store: FeedStore;
  readonly problems: () => readonly Problem[];
  /** `undefined` when there are none. */
  readonly stats: (() => BuilderStats) | undefined;
}

/** For the few questions which tables are watched. The tail asks, too, and waits for nobody. */
const IDLE_MS = 30_000;

/** The store as the declared builders show it; the store itself when there are none. */
export function builtFeed(
  opening: AsyncDisposableStack,
  store: FeedStore,
  { databaseUrl, log, file, sessions }: BuiltFeedOptions,
): BuiltFeed {
  if (file === undefined || file.built.length === 0) {
    return { store, problems: () => [], stats: undefined };
  }
  const pool = createPool({ url: databaseUrl, max: 1, idleMs: IDLE_MS, watch: sessions });
  opening.defer(() => pool.end());
  const failures = createBuilderFailures(log, systemClock);
  const topics = new Map(file.sources.map(({ table, settings }) => [table, settings?.topic]));
  const built = withBuilders({
    store,
    sources: file.built.map((source) => ({ source, topic: topics.get(source.table) })),
    watched: (signal) => readWatchedTopics(pool, signal),
    clock: systemClock,
    timers: systemTimers,
    onFailure: failures.failed,
    onImpure: failures.impure,
  });
  return { store: built, problems: failures.problems, stats: () => built.builderStats };
}
