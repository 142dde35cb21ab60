import pg from "pg";
import { vi } from "vitest";
import type { FeedError } from "../../../src/core/errors.ts";
import { createFeed, type FeedOptions } from "../../../src/core/feed/feed-service.ts";
import type { EpochFeed } from "../../../src/core/feed.ts";
import type { StreamState } from "../../../src/core/frame.ts";
import { eventBytes } from "../../../src/core/page.ts";
import type { FeedStore, WakeUp } from "../../../src/core/ports.ts";
import { createPool } from "../../../src/postgres/database.ts";
import { migrate } from "../../../src/postgres/migrate.ts";
import { createPostgresStore, type PostgresStore, type PostgresStoreOptions } from "../../../src/postgres/store.ts";
import { createFeedWatch, type FeedWatch, type FeedWatchOptions } from "../../../src/server/feed-watch.ts";
import type { TestCluster } from "../../support/cluster.ts";
import { FreezingProxy } from "../../support/freezing-proxy.ts";

/** Machines that run tests pause for longer than the watchdog is patient there: nothing here is timed. */
export const PATIENCE = { timeout: 60_000, interval: 20 };
export const never = new AbortController().signal;

export interface WatchedOptions {
  readonly watch?: Partial<FeedWatchOptions>;
  readonly store?: Partial<PostgresStoreOptions>;
  readonly feed?: Partial<FeedOptions>;
  /** What the feed has instead of the store, or of its wake-up. */
  readonly over?: (store: PostgresStore) => { readonly store?: FeedStore; readonly wakeUp?: WakeUp };
}

/** A feed with its watch, as a server has them, and what was said of it. */
export interface WatchedFeed {
  readonly feed: EpochFeed;
  readonly store: PostgresStore;
  readonly watch: FeedWatch;
  /** Parts that were restarted, one after the other. */
  readonly restarts: readonly string[];
  /** What the log was told. */
  readonly said: readonly string[];
  /** Why the feed was to be opened anew. */
  readonly hopeless: readonly FeedError[];
  /** Resolves once this part was restarted. */
  restarted(part: string): Promise<void>;
}

/** A migrated database behind a proxy that can freeze its connections. */
export class Stage implements AsyncDisposable {
  readonly url: string;
  readonly proxy: FreezingProxy;
  readonly #things: AsyncDisposableStack;

  private constructor(url: string, proxy: FreezingProxy, things: AsyncDisposableStack) {
    this.url = url;
    this.proxy = proxy;
    this.#things = things;
  }

  static async open(cluster: TestCluster): Promise<Stage> {
    const url = await cluster.createDatabase();
    await migrate(url);
    const things = new AsyncDisposableStack();
    return new Stage(url, things.use(await FreezingProxy.before(url)), things);
  }

  /** A session past the proxy. */
  async session(application = "test"): Promise<pg.Client> {
    const client = new pg.Client({ connectionString: this.url, application_name: application });
    client.on("error", () => undefined);
    await client.connect();
    this.#things.defer(() => client.end());
    return client;
  }

  /** Connections past the proxy. */
  pool(): pg.Pool {
    const pool = createPool({ url: this.url, max: 1, idleMs: 1_000 });
    this.#things.defer(() => pool.end());
    return pool;
  }

  async feed({ watch: how, store: of, feed: as, over }: WatchedOptions = {}): Promise<WatchedFeed> {
    const { url } = this.proxy;
    const restarts: string[] = [];
    const said: string[] = [];
    const hopeless: FeedError[] = [];
    const tell = (fields: { readonly reason?: string }, message: string): void => {
      said.push(fields.reason === undefined ? message : `${message} ${fields.reason}`);
    };
    const watch = createFeedWatch({
      url,
      stuckAfterMs: 500,
      log: { info: tell, warn: tell } as FeedWatchOptions["log"],
      onRestart: (part) => restarts.push(part),
      onHopeless: (reason) => hopeless.push(reason),
      ...how,
    });
    this.#things.defer(() => watch.stop());
    const store = createPostgresStore({
      url,
      tickTimeoutMs: 2_000,
      pingMs: 500,
      watch: watch.sessions,
      onTailHopeless: (reason) => watch.tailIsHopeless(reason),
      ...of,
    });
    this.#things.defer(() => store.stop());
    await store.start(never);
    const { watchdog } = watch;
    const feed = createFeed({ store, wakeUp: store.wakeUp, watchdog, ...over?.(store), ...as });
    this.#things.defer(() => feed.stop());
    await feed.start(never);
    watch.follow(feed);
    const restarted = async (part: string): Promise<void> => {
      await vi.waitUntil(() => restarts.includes(part), PATIENCE);
    };
    return { feed, store, watch, restarts, said, hopeless, restarted };
  }

  /** Ended with the stage. */
  follow(feed: EpochFeed, from: "now" | "oldest" = "oldest"): Follower {
    return this.#things.use(new Follower(feed, from));
  }

  /** Writes an event of each key, in one transaction. */
  async commit(session: pg.Client, ...keys: readonly string[]): Promise<void> {
    await session.query("select millrace.emit('notes', k) from unnest($1::text[]) k", [keys]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#things.disposeAsync();
  }
}

/** One stream that is never opened again, and what came on it. */
export class Follower implements AsyncDisposable {
  readonly versions: number[] = [];
  readonly keys: (string | undefined)[] = [];
  readonly states = new Set<StreamState>();
  error: unknown;
  readonly #call = new AbortController();
  readonly #done: Promise<void>;

  constructor(feed: EpochFeed, from: "now" | "oldest") {
    const request = {
      start: { kind: from },
      selectors: [],
      checkpointIntervalMs: 100,
      maxBatchBytes: 1024 * 1024,
      codec: { identity: "test", measure: eventBytes },
      afterTransaction: undefined,
      deadlineMs: undefined,
    } as const;
    this.#done = this.#run(feed.subscribe(request, this.#call.signal));
  }

  /** Resolves when so many events have come; rejects when the stream ends before. */
  async has(count: number): Promise<void> {
    await vi.waitUntil(() => this.versions.length >= count || this.error !== undefined, PATIENCE);
    if (this.error !== undefined) throw this.error;
  }

  async says(state: StreamState): Promise<void> {
    await vi.waitUntil(() => this.states.has(state) || this.error !== undefined, PATIENCE);
    if (this.error !== undefined) throw this.error;
  }

  /** Every version once, in order, from the first to this one, and nothing else. */
  isExactlyUpTo(version: number): boolean {
    return this.versions.length === version && this.versions.every((one, at) => one === at + 1);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#call.abort();
    await this.#done;
  }

  async #run(frames: ReturnType<EpochFeed["subscribe"]>): Promise<void> {
    try {
      for await (const frame of frames) {
        if (frame.kind === "checkpoint") this.states.add(frame.state);
        if (frame.kind !== "events") continue;
        for (const { version, key } of frame.events) {
          this.versions.push(version);
          this.keys.push(key);
        }
      }
      this.error = new Error("the stream ended without an error");
    } catch (error) {
      this.error = error;
    }
  }
}
