import { describe, expect, it } from "vitest";
import type { Builder } from "../../../../src/core/builder/builder.ts";
import { type BuilderFailure, type BuiltStore, withBuilders } from "../../../../src/core/builder/built-store.ts";
import { systemClock, systemTimers } from "../../../../src/core/clock.ts";
import { createFeed, type FeedOptions } from "../../../../src/core/feed/feed-service.ts";
import type { Feed, StreamRequest } from "../../../../src/core/feed.ts";
import { createMemoryStore, type MemoryStore, type MemoryStoreOptions } from "../../../../src/memory/store.ts";
import { Reader, resumeAfter, select } from "../../../contract/reader.ts";

interface Setup extends AsyncDisposable {
  readonly memory: MemoryStore;
  readonly store: BuiltStore;
  readonly feed: Feed;
  readonly failures: BuilderFailure[];
  readonly impure: object[];
  /** Tables and topics as the database would tell. */
  watched: { table: string; topic: string }[];
  asked: number;
}

async function setUp(
  build: Builder,
  {
    memory: memoryOptions = {},
    feed: feedOptions = {},
    topics = undefined as readonly string[] | undefined,
  }: {
    readonly memory?: MemoryStoreOptions;
    readonly feed?: Partial<FeedOptions>;
    readonly topics?: readonly string[] | undefined;
  } = {},
): Promise<Setup> {
  const memory = createMemoryStore({ sources: ["orders", "plain"], pageEvents: 10, snapshotRows: 3, ...memoryOptions });
  const failures: BuilderFailure[] = [];
  const impure: object[] = [];
  const setup = {
    watched: [
      { table: "public.orders", topic: "orders" },
      { table: "public.plain", topic: "plain" },
    ],
    asked: 0,
  };
  const store = withBuilders({
    store: memory,
    sources: [{ source: { table: "public.orders", build, topics }, topic: undefined }],
    watched: async () => {
      setup.asked += 1;
      return setup.watched;
    },
    clock: systemClock,
    timers: systemTimers,
    onFailure: (failure) => failures.push(failure),
    onImpure: (seen) => impure.push(seen),
  });
  const feed = createFeed({ store, wakeUp: memory.wakeUp, ...feedOptions });
  await feed.start(new AbortController().signal);
  return Object.assign(setup, { memory, store, feed, failures, impure, [Symbol.asyncDispose]: () => feed.stop() });
}

async function put(memory: MemoryStore, topic: string, ids: readonly number[], n = 0): Promise<void> {
  const transaction = memory.begin();
  for (const id of ids) await transaction.put(topic, String(id), JSON.stringify({ id, n }));
  transaction.commit();
}

const decoder = new TextDecoder();
const textOf = (image: Uint8Array | undefined): string => (image === undefined ? "" : decoder.decode(image));
const upTo = (count: number) => Array.from({ length: count }, (_, at) => at + 1);
/** Hides every third row, whatever it holds. */
const twoOfThree: Builder = ({ key, after, before }) =>
  Number(key) % 3 === 0 ? undefined : { key: `k${key}`, payload: after, before };

describe("a feed with a builder", () => {
  it("G1 G3 shows everybody the same: live, from the log, from history, and to whoever comes back", async () => {
    await using on = await setUp(twoOfThree, { feed: { limits: { logMaxBytes: 3_000 } } });
    await using live = new Reader(on.feed);
    await live.opened();
    for (const round of upTo(6)) await put(on.memory, "orders", upTo(9), round);
    await live.passes(54);
    const expected = live.events.map(({ version, key, after }) => [version, key, textOf(after)]);
    expect(live.versions).toEqual(upTo(54).filter((version) => ((version - 1) % 9) % 3 !== 2));
    await using history = new Reader(on.feed);
    await history.passes(54);
    expect(history.events.map(({ version, key, after }) => [version, key, textOf(after)])).toEqual(expected);
    for (const frame of live.frames.filter(({ kind }) => kind === "events")) {
      await using resumed = new Reader(on.feed, { start: resumeAfter(frame.cursor) });
      await resumed.passes(54);
      expect([...live.versions.filter((version) => version <= frame.cursor.version), ...resumed.versions]).toEqual(
        live.versions,
      );
    }
  });

  it("G10 says of what a policy leaves out only what would have been shown", async () => {
    for (const kind of ["DROP_OLDEST", "DROP_NEWEST", "LATEST", "SAMPLE"] as const) {
      await using on = await setUp(twoOfThree);
      const policy = { kind, maxLagEvents: 5, sampleEvery: 2 } as StreamRequest["policy"];
      await using slow = new Reader(on.feed, { policy, maxBatchEvents: 2 });
      await slow.opened();
      slow.standStill();
      for (const round of upTo(6)) await put(on.memory, "orders", upTo(9), round);
      await using witness = new Reader(on.feed);
      await witness.passes(54);
      slow.goOn();
      await slow.passes(54);
      const dropped = slow.frames.reduce(
        (sum, frame) => sum + (frame.kind === "gap" ? (frame.dropped ?? Number.NaN) : 0),
        0,
      );
      expect({ kind, total: slow.events.length + dropped }).toEqual({ kind, total: witness.events.length });
      expect(dropped).toBeGreaterThan(0);
    }
  });

  it("G7 takes a snapshot and goes on with it wherever it is cut, by the rows' own keys", async () => {
    // The order of what it shows is not that of the rows.
    const build: Builder = ({ key, after, before }) =>
      Number(key) % 4 === 0
        ? null
        : { topic: `moved.${Number(key) % 2}`, key: `x${99 - Number(key)}`, payload: after, before };
    await using on = await setUp(build, { memory: { snapshotMaxRows: 4 } });
    await put(on.memory, "orders", upTo(30));
    const wanted = [select(["moved.*"])];
    const request = { start: { kind: "snapshot" } as const, selectors: wanted, maxBatchBytes: 1 };
    await using whole = new Reader(on.feed, request);
    await whole.until(
      (reader) => reader.frames.some(({ kind }) => kind === "snapshot_complete"),
      "the end of its snapshot",
    );
    expect(whole.events).toHaveLength(upTo(30).filter((id) => id % 4 !== 0).length);
    await put(on.memory, "orders", upTo(30), 1);
    const end = whole.frames.findIndex(({ kind }) => kind === "snapshot_complete");
    for (const [at, frame] of whole.frames.slice(0, end).entries()) {
      if (!("cursor" in frame)) continue;
      await using resumed = new Reader(on.feed, { ...request, start: resumeAfter(frame.cursor) });
      await resumed.until((reader) => reader.frames.some(({ kind }) => kind === "snapshot_complete"), "its end");
      const rows = new Map<string, string>();
      let restarted = false;
      for (const one of [...whole.frames.slice(0, at + 1), ...resumed.frames]) {
        restarted ||= one.kind === "snapshot_started" && one.restart;
        for (const event of one.kind === "events" ? one.events : [])
          rows.set(`${event.topic}/${event.key}`, textOf(event.after));
      }
      expect(restarted).toBe(false);
      const expected = upTo(30).filter((id) => id % 4 !== 0);
      expect([...rows.keys()].sort()).toEqual(expected.map((id) => `moved.${id % 2}/x${99 - id}`).sort());
      expect(new Set([...rows.values()].map((text) => JSON.parse(text).n))).toEqual(new Set([1]));
    }
  });

  it("reads a source for a snapshot only where its builder may yield what is wanted", async () => {
    const build: Builder = ({ after }) => ({ topic: "moved.away", payload: after });
    const topicsOf = async (topics: readonly string[] | undefined, wanted: string) => {
      await using on = await setUp(build, { topics });
      await put(on.memory, "orders", [1]);
      await using reader = new Reader(on.feed, { start: { kind: "snapshot" }, selectors: [select([wanted])] });
      await reader.until((one) => one.frames.some(({ kind }) => kind === "snapshot_complete"), "its end");
      const started = reader.frames.find((frame) => frame.kind === "snapshot_started");
      return [started?.kind === "snapshot_started" ? started.topics : [], reader.events.length];
    };
    expect(await topicsOf(undefined, "moved.away")).toEqual([["orders"], 1]);
    expect(await topicsOf(undefined, "elsewhere")).toEqual([["orders"], 0]);
    expect(await topicsOf(["moved.*"], "moved.away")).toEqual([["orders"], 1]);
    expect(await topicsOf(["moved.*"], "elsewhere")).toEqual([[], 0]);
    expect(await topicsOf(["moved.>"], "moved.away")).toEqual([["orders"], 1]);
  });

  it("that fails stops nothing: the others come, and its own as dead letters at their versions", async () => {
    const build: Builder = ({ key, after }) => {
      if (key === "2") throw new Error("two is too many");
      return { payload: after };
    };
    await using on = await setUp(build);
    await using reader = new Reader(on.feed);
    await reader.opened();
    await put(on.memory, "orders", [1, 2, 3]);
    await put(on.memory, "plain", [2]);
    await reader.gets(4);
    expect(reader.events.map(({ version, topic }) => `${version} ${topic}`)).toEqual([
      "1 orders",
      "2 millrace.dead_letter.orders",
      "3 orders",
      "4 plain",
    ]);
    expect(on.failures).toContainEqual({ table: "public.orders", version: 2, reason: "two is too many" });
    expect(on.store.builderStats).toMatchObject({ failed: 1, built: 2 });
  });

  it("is found out when it makes two events of one change", async () => {
    let count = 0;
    for (const [build, found] of [
      [() => ({ payload: { count: count++ } }), true],
      [() => (count++ % 2 === 0 ? undefined : {}), true],
      [({ row }) => ({ payload: { ...row } }), false],
      [() => undefined, false],
    ] as readonly (readonly [Builder, boolean])[]) {
      await using on = await setUp(build);
      await put(on.memory, "orders", upTo(3));
      await put(on.memory, "plain", [1]);
      await using reader = new Reader(on.feed, { selectors: [select(["plain"])] });
      await reader.gets(1);
      expect(on.impure.length > 0).toBe(found);
    }
  });

  it("leaves pages alone in which there is nothing to build", async () => {
    await using on = await setUp(twoOfThree);
    await put(on.memory, "plain", upTo(3));
    await using reader = new Reader(on.feed);
    await reader.gets(3);
    const signal = new AbortController().signal;
    expect((await on.store.readAfter(0, signal))?.events).toEqual((await on.memory.readAfter(0, signal))?.events);
    expect(on.store.builderStats).toMatchObject({ built: 0, hidden: 0, failed: 0 });
  });

  it("finds out before it shows an event what a topic is that it has not met", async () => {
    await using on = await setUp(() => undefined, { memory: { sources: ["orders", "renamed", "plain"] } });
    await using reader = new Reader(on.feed);
    await reader.opened();
    await put(on.memory, "plain", [1]);
    await reader.gets(1);
    const { asked } = on;
    on.watched = [{ table: "public.orders", topic: "renamed" }];
    await put(on.memory, "renamed", [1]);
    await put(on.memory, "plain", [2]);
    await reader.gets(2);
    expect(reader.events.map(({ topic }) => topic)).toEqual(["plain", "plain"]);
    expect(on.asked).toBe(asked + 1);
  });

  it("finds out that a topic of the application's is a table's by now", async () => {
    await using on = await setUp(() => undefined);
    await using reader = new Reader(on.feed);
    await reader.opened();
    const message = { topic: "taken", key: undefined, operation: "MESSAGE", payload: "1", headers: {} } as const;
    for (const round of upTo(2)) {
      const transaction = on.memory.begin();
      transaction.emit(message);
      transaction.commit();
      await reader.gets(round);
    }
    const { asked } = on;
    on.memory.watch("taken");
    on.watched = [
      { table: "public.orders", topic: "taken" },
      { table: "public.plain", topic: "plain" },
    ];
    await put(on.memory, "taken", [1]);
    await put(on.memory, "plain", [2]);
    await reader.gets(3);
    expect(reader.events.map(({ topic }) => topic)).toEqual(["taken", "taken", "plain"]);
    expect(on.asked).toBe(asked + 1);
  });

  it("builds what a source had written before it was unwatched, by the topic that is declared or its table's name", async () => {
    await using on = await setUp(() => undefined);
    on.watched = [];
    await put(on.memory, "orders", [1]);
    await put(on.memory, "plain", [1]);
    await using reader = new Reader(on.feed);
    await reader.gets(1);
    expect(reader.events.map(({ topic }) => topic)).toEqual(["plain"]);
  });

  it("G9 lets others have their turn while many events are built by a slow builder", async () => {
    const busy: Builder = ({ after }) => {
      const until = performance.now() + 2;
      while (performance.now() < until);
      return { payload: after };
    };
    await using on = await setUp(busy, { memory: { pageEvents: 1_000 } });
    let turns = 0;
    let counting = true;
    const count = (): void => {
      turns += 1;
      if (counting) setImmediate(count);
    };
    count();
    await put(on.memory, "orders", upTo(60));
    await using reader = new Reader(on.feed);
    await reader.gets(60);
    counting = false;
    expect(turns).toBeGreaterThan(10);
  });
});
