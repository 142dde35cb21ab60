import { describe, expect, test } from "vitest";
import { FeedError } from "../../../src/core/errors.ts";
import { createFeed } from "../../../src/core/feed/feed-service.ts";
import type { StreamRequest } from "../../../src/core/feed.ts";
import type { Frame } from "../../../src/core/frame.ts";
import { EpochOver } from "../../../src/core/lineage.ts";
import { eventBytes } from "../../../src/core/page.ts";
import type { FeedStore, SnapshotReader, SnapshotRequest, WakeUp } from "../../../src/core/ports.ts";
import { createMemoryStore, type MemoryStoreOptions } from "../../../src/memory/store.ts";
import { ManualTime } from "./manual-time.ts";

const REQUEST: StreamRequest = {
  start: { kind: "snapshot" },
  selectors: [],
  checkpointIntervalMs: 10_000,
  maxBatchBytes: 1,
  codec: { identity: "test", measure: eventBytes },
  afterTransaction: undefined,
  deadlineMs: undefined,
};

/** What the test does to each reader that the store opens, before the stream gets it. */
type Tamper = (reader: SnapshotReader, request: SnapshotRequest) => Promise<SnapshotReader> | SnapshotReader;

/** A feed over five orders and two parcels, in time that stands still. */
async function setUp(options: MemoryStoreOptions = {}, tamper: Tamper = (reader) => reader) {
  const time = new ManualTime();
  const memory = createMemoryStore({ clock: time, sources: ["orders", "parcels"], ...options });
  const wakeUp: WakeUp = {
    nudge: () => undefined,
    wait: (_found, signal) =>
      new Promise((resolve) => {
        const cancel = time.after(10, resolve);
        signal.addEventListener("abort", () => [cancel(), resolve()], { once: true });
      }),
  };
  const store = inFrontOf<FeedStore>(memory, {
    snapshot: async (request, signal) => tamper(await memory.snapshot(request, signal), request),
  });
  const writer = memory.begin();
  for (const key of ["a", "b", "c", "d", "e"]) {
    await writer.put("orders", key, "{}");
  }
  await writer.put("parcels", "a", "{}");
  await writer.put("parcels", "b", "{}");
  writer.commit();
  const feed = createFeed({ store, wakeUp, clock: time, timers: time });
  await feed.start(new AbortController().signal);
  return { time, memory, feed };
}

/** The same object with some members in front of its own. */
function inFrontOf<T extends object>(object: T, members: Partial<T>): T {
  return new Proxy(object, {
    get: (target, name) => {
      const value: unknown = Reflect.get(members, name) ?? Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

/** Takes frames into a list, in the background. */
function follow(frames: AsyncIterable<Frame>) {
  const taken: Frame[] = [];
  const ended = (async () => {
    try {
      for await (const frame of frames) {
        taken.push(frame);
      }
      return undefined;
    } catch (error) {
      return error;
    }
  })();
  return { frames: taken, ended };
}

/** A reader whose rows stand still after the first, until told. */
function stuck() {
  const gate = Promise.withResolvers<void>();
  const tamper: Tamper = (reader) =>
    inFrontOf(reader, {
      rows: async function* () {
        for await (const { part, events } of reader.rows()) {
          yield { part, events: events.slice(0, 1) };
          await gate.promise;
          yield { part, events: events.slice(1) };
        }
      },
    });
  return { tamper, goOn: () => gate.resolve(), fail: (error: unknown) => gate.reject(error) };
}

const { signal } = new AbortController();

describe("a stream in a snapshot", () => {
  test("G10 says how far it is at every interval, also while no rows come and when none match", async () => {
    const { tamper, goOn } = stuck();
    const { time, memory, feed } = await setUp({ snapshotRows: 5 }, tamper);
    const selectors = [{ topics: ["orders"], keys: [], operations: [] }];
    const { frames, ended } = follow(feed.subscribe({ ...REQUEST, selectors }, signal));
    await time.pass(100);
    expect(frames.map(({ kind }) => kind)).toEqual(["opened", "snapshot_started", "events"]);
    const late = memory.begin();
    await late.put("orders", "f", "{}");
    late.commit();
    await time.pass(23_000);
    const told = { kind: "checkpoint", state: "SNAPSHOT", version: 7, lagVersions: 1 };
    expect(frames.slice(3)).toMatchObject([
      { ...told, progress: { rows: 1, estimatedRows: 5 }, cursor: { version: 7, snapshot: { key: "a", rows: 1 } } },
      { ...told, progress: { rows: 1, estimatedRows: 5 } },
    ]);
    goOn();
    await time.pass(100);
    expect(frames.slice(5).map(({ kind }) => kind)).toEqual([
      ...["events", "events", "events", "events", "snapshot_complete", "events"],
    ]);
    expect(frames.at(-2)).toMatchObject({ kind: "snapshot_complete", rows: 5, cursor: { snapshot: undefined } });
    await feed.stop();
    expect(await ended).toBeUndefined();
  });

  test("G8 says where to go on when the server drains amid rows that do not come", async () => {
    const { tamper, goOn } = stuck();
    const { time, feed } = await setUp({}, tamper);
    const { frames, ended } = follow(feed.subscribe(REQUEST, signal));
    await time.pass(100);
    const drained = feed.drain(5_000);
    await time.pass(10);
    expect(frames.at(-1)).toMatchObject({ kind: "closing", cursor: { snapshot: { sources: 0, key: "a", rows: 1 } } });
    expect(await ended).toBeUndefined();
    await drained;
    goOn();
    await feed.stop();
    expect(time.pending).toBe(0);
  });

  test("G9 ends at once when its rows fail, and with the feed's own reason when an epoch is over", async () => {
    const broken = new FeedError("LIMIT_EXCEEDED", "The disk is full.", "Make room.");
    const over = new EpochOver("Another epoch is in force.");
    for (const error of [broken, over]) {
      const { tamper, fail } = stuck();
      const { time, feed } = await setUp({}, tamper);
      const { frames, ended } = follow(feed.subscribe(REQUEST, signal));
      await time.pass(100);
      fail(error);
      await time.pass(11_000);
      const reason = new FeedError("EPOCH_CHANGED", "Epoch x is in force.", "Start again.");
      if (error === over) {
        expect(frames.at(-1)).toMatchObject({ kind: "checkpoint", state: "SNAPSHOT" });
        feed.end(reason);
      }
      expect(await ended).toBe(error === over ? reason : broken);
      await feed.stop();
      expect(time.pending).toBe(0);
    }
  });

  test("G10 does not wait for ever for the end of an epoch that only the snapshot has seen", async () => {
    const over = new EpochOver("Another epoch is in force.");
    const { tamper, fail } = stuck();
    const { time, feed } = await setUp({}, tamper);
    const { ended } = follow(feed.subscribe(REQUEST, signal));
    await time.pass(100);
    fail(over);
    await time.pass(31_000);
    expect(await ended).toBe(over);
    await feed.stop();
    expect(time.pending).toBe(0);
  });

  test("G9 closes a reader that opens only after the client has gone, and each that was cut", async () => {
    const [opening, gate] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    let opened = 0;
    let closed = 0;
    const tamper: Tamper = async (reader, { after }) => {
      opened += 1;
      if (after !== undefined && opened === 3) {
        opening.resolve();
        await gate.promise;
      }
      return inFrontOf(reader, {
        close: async () => {
          closed += 1;
          await reader.close();
        },
      });
    };
    const { time, feed } = await setUp({ snapshotMaxRows: 2 }, tamper);
    const frames = feed.subscribe(REQUEST, signal)[Symbol.asyncIterator]();
    const taken = (async () => {
      for (let next = await frames.next(); next.done !== true; next = await frames.next()) {
        // Nothing is looked at.
      }
    })();
    await time.pass(100);
    await opening.promise;
    expect([opened, closed]).toEqual([3, 2]);
    await frames.return?.();
    await taken;
    gate.resolve();
    await time.pass(10);
    expect([opened, closed]).toEqual([3, 3]);
    await feed.stop();
  });

  test("G7 has no place amid a source without an order, and has one again behind it", async () => {
    const { time, memory, feed } = await setUp({ unordered: ["orders"], snapshotRows: 2 });
    const { frames } = follow(feed.subscribe(REQUEST, signal));
    await time.pass(100);
    const rows = frames.filter((frame) => frame.kind === "events");
    const places = rows.map(({ cursor }) =>
      typeof cursor.snapshot === "object" ? cursor.snapshot.key : cursor.snapshot,
    );
    expect(places).toEqual(["anew", "anew", "anew", "anew", "anew", "a", "b"]);
    expect(frames.find(({ kind }) => kind === "opened")).toMatchObject({
      cursor: { snapshot: { sources: 0, rows: 0 } },
    });
    expect(rows.at(-1)).toMatchObject({ cursor: { snapshot: { sources: 1, key: "b", rows: 7 } } });
    expect(memory.epoch).toBe(feed.status().epoch);
    await feed.stop();
  });

  test("G7 that cannot be finished in pieces ends with an error instead of trying for ever", async () => {
    const none: Tamper = (reader) => inFrontOf(reader, { cut: true, rows: async function* () {} });
    const unordered: Tamper = (reader) =>
      inFrontOf(reader, { cut: true, parts: reader.parts.map((part) => ({ ...part, ordered: false })) });
    for (const [tamper, message] of [
      [none, /Not a single row/],
      [unordered, /without an order/],
    ] as const) {
      const { time, feed } = await setUp({}, tamper);
      const { ended } = follow(feed.subscribe(REQUEST, signal));
      await time.pass(100);
      expect(await ended).toMatchObject({ code: "LIMIT_EXCEEDED", message: expect.stringMatching(message) });
      await feed.stop();
    }
  });

  test("G10 does not guess how many rows there are when one source's are unknown", async () => {
    const tamper: Tamper = (reader) =>
      inFrontOf(reader, {
        parts: reader.parts.map((part, at) => (at === 0 ? part : { ...part, estimatedRows: undefined })),
      });
    const { time, feed } = await setUp({}, tamper);
    const { frames } = follow(feed.subscribe(REQUEST, signal));
    await time.pass(100);
    expect(frames[1]).toMatchObject({ kind: "snapshot_started", estimatedRows: undefined });
    await feed.stop();
    const known = await setUp();
    const counted = follow(known.feed.subscribe(REQUEST, signal));
    await known.time.pass(100);
    expect(counted.frames[1]).toMatchObject({ kind: "snapshot_started", estimatedRows: 7 });
    await known.feed.stop();
  });
});
