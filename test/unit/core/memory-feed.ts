import { createFeed, type FeedOptions } from "../../../src/core/feed/feed-service.ts";
import type { EpochFeed, Feed } from "../../../src/core/feed.ts";
import type { Frame } from "../../../src/core/frame.ts";
import { eventBytes } from "../../../src/core/page.ts";
import type { FeedStore, WakeUp } from "../../../src/core/ports.ts";
import { createMemoryStore, type MemoryStore } from "../../../src/memory/store.ts";
import { ManualTime } from "./manual-time.ts";

/** A stream of everything from now on. */
export const REQUEST = {
  start: { kind: "now" },
  selectors: [],
  checkpointIntervalMs: 15_000,
  maxBatchBytes: 1024 * 1024,
  codec: { identity: "test", measure: eventBytes },
  afterTransaction: undefined,
  deadlineMs: undefined,
} as const;

/** A started feed, what it is over, and what it has reported. */
export interface Setup {
  readonly time: ManualTime;
  readonly memory: MemoryStore;
  readonly feed: EpochFeed;
  readonly reports: string[];
}

/** A feed over memory in time that stands still; sleeps only on timers of that time. */
export async function setUp(
  options: Partial<FeedOptions> = {},
  overStore = (store: FeedStore) => store,
): Promise<Setup> {
  const time = new ManualTime();
  const memory = createMemoryStore({ clock: time, sources: ["orders"] });
  const reports: string[] = [];
  const wakeUp: WakeUp = {
    nudge: () => undefined,
    wait: (_found, signal) => {
      return new Promise((resolve) => {
        const cancel = time.after(10, resolve);
        signal.addEventListener("abort", () => [cancel(), resolve()], { once: true });
      });
    },
  };
  const report = (message: string, error?: unknown) =>
    reports.push(error === undefined ? message : `${message} ${String(error)}`);
  const feed = createFeed({ store: overStore(memory), wakeUp, clock: time, timers: time, report, ...options });
  await feed.start(new AbortController().signal);
  return { time, memory, feed, reports };
}

/** The same object with some methods in front of its own. */
export function inFrontOf(store: FeedStore, methods: Partial<FeedStore>): FeedStore {
  return new Proxy(store, {
    get: (target, name) => {
      const value: unknown = Reflect.get(methods, name) ?? Reflect.get(target, name);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

/** A transaction of messages. */
export function emit(memory: MemoryStore, count = 1): void {
  const transaction = memory.begin();
  for (let i = 0; i < count; i++) {
    transaction.emit({ topic: "notes", key: undefined, operation: "MESSAGE", payload: "{}", headers: {} });
  }
  transaction.commit();
}

/** Takes frames into a list, in the background. */
export function follow(feed: Feed, signal: AbortSignal, request: Partial<typeof REQUEST> = {}) {
  const frames: Frame[] = [];
  const ended = (async () => {
    try {
      for await (const frame of feed.subscribe({ ...REQUEST, ...request }, signal)) {
        frames.push(frame);
      }
      return undefined;
    } catch (error) {
      return error;
    }
  })();
  return { frames, ended };
}

/** The memory store under the methods that stand in front of it. */
export function memoryOf(store: FeedStore): MemoryStore {
  if (!("outage" in store)) {
    throw new Error("not the memory store");
  }
  return store as MemoryStore;
}
