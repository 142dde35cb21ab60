import { getEventListeners } from "node:events";
import { describe, expect, test } from "vitest";
import { createFeed } from "../../../src/core/feed/feed-service.ts";
import { createMemoryStore } from "../../../src/memory/store.ts";
import { ManualTime } from "./manual-time.ts";
import { emit, follow, inFrontOf, REQUEST, setUp } from "./memory-feed.ts";

describe("feed", () => {
  test("G10 an idle stream says a checkpoint per interval and holds one timer", async () => {
    const { time, feed, memory } = await setUp();
    const abort = new AbortController();
    const timersBefore = time.pending;
    const streams = Array.from({ length: 100 }, () => follow(feed, abort.signal));
    await time.pass(1_000);
    emit(memory);
    await time.pass(100);
    expect(streams.map(({ frames }) => frames.length)).toEqual(streams.map(() => 2));
    expect(time.pending - timersBefore).toBeLessThanOrEqual(101);
    await time.pass(14_000);
    expect(streams.every(({ frames }) => frames.length === 2)).toBe(true);
    await time.pass(1_000);
    const checkpoint = { kind: "checkpoint", version: 1, state: "LIVE", lagVersions: 0, lagMs: 0 };
    expect(streams.every(({ frames }) => frames.length === 3)).toBe(true);
    expect(streams[0]?.frames[2]).toMatchObject(checkpoint);
    abort.abort();
    await feed.stop();
  });

  test("G9 an aborted stream ends with the reason and leaves neither listener, waiter nor timer", async () => {
    const { time, feed } = await setUp();
    const timersBefore = time.pending;
    const abort = new AbortController();
    const stream = follow(feed, abort.signal);
    await time.pass(20);
    expect(feed.status().streams).toBe(1);
    expect(getEventListeners(abort.signal, "abort").length).toBe(1);
    abort.abort("enough");
    expect(await stream.ended).toBe("enough");
    expect(feed.status().streams).toBe(0);
    expect(getEventListeners(abort.signal, "abort").length).toBe(0);
    expect(time.pending).toBe(timersBefore);
    await feed.stop();
    expect(time.pending).toBe(0);
  });

  test("G9 returning an iterator ends the frame that it waits for", async () => {
    const { feed } = await setUp();
    const frames = feed.subscribe(REQUEST, new AbortController().signal)[Symbol.asyncIterator]();
    await frames.next();
    const waiting = frames.next();
    await expect(frames.next()).rejects.toMatchObject({ code: "INTERNAL" });
    await frames.return?.();
    expect((await waiting).done).toBe(true);
    expect((await frames.next()).done).toBe(true);
    expect(feed.status().streams).toBe(0);
    await feed.stop();
  });

  test("G10 a database that gives no answer makes the feed STALE after a while, and LIVE when it does", async () => {
    const { time, feed, memory } = await setUp({ staleAfterMs: 2_000 });
    const abort = new AbortController();
    const { frames } = follow(feed, abort.signal);
    await time.pass(100);
    memory.outage.hang();
    await time.pass(1_500);
    expect(feed.status().state).toBe("LIVE");
    await time.pass(1_500);
    expect(feed.status()).toMatchObject({
      state: "STALE",
      failure: { message: expect.stringContaining("not answered") },
    });
    expect(frames.at(-1)).toMatchObject({
      kind: "checkpoint",
      state: "STALE",
      lagVersions: undefined,
      lagMs: undefined,
    });
    const told = frames.length;
    await time.pass(17_000);
    expect(frames.length).toBe(told + 1);
    memory.outage.lift();
    await time.pass(100);
    expect(feed.status()).toMatchObject({ state: "LIVE", failure: undefined });
    expect(frames.at(-1)).toMatchObject({ kind: "checkpoint", state: "LIVE", lagVersions: 0 });
    abort.abort();
    await feed.stop();
  });

  test("G10 a fault of our own does not end the tail: it is said, reported once, and tried again", async () => {
    const { time, feed, memory, reports } = await setUp();
    emit(memory);
    for (const nextTryMs of [20, 50, 100]) {
      memory.outage.failNext(new TypeError("cannot read properties of undefined"));
      await time.pass(nextTryMs);
      expect(feed.status()).toMatchObject({
        state: "STALE",
        failure: { message: expect.stringContaining("cannot read") },
      });
    }
    await time.pass(10_000);
    expect(feed.status()).toMatchObject({ state: "LIVE", head: 1 });
    expect(reports).toEqual([expect.stringContaining("TypeError: cannot read"), "The feed moves again."]);
    await feed.stop();
  });

  test("G3 a page that does not fit is never delivered, and the feed goes on when the right one comes", async () => {
    let spoil = true;
    const { time, feed, memory } = await setUp({}, (store) =>
      inFrontOf(store, {
        advance: async (after, signal) => {
          const page = await store.advance(after, signal);
          return page === undefined || !spoil ? page : { ...page, firstVersion: page.firstVersion + 1 };
        },
      }),
    );
    const abort = new AbortController();
    const { frames } = follow(feed, abort.signal);
    emit(memory, 3);
    await time.pass(1_000);
    expect(feed.status()).toMatchObject({
      state: "STALE",
      head: 0,
      failure: { message: expect.stringContaining("does not follow") },
    });
    spoil = false;
    await time.pass(5_000);
    expect(feed.status()).toMatchObject({ state: "LIVE", head: 3 });
    expect(frames.flatMap((f) => (f.kind === "events" ? f.events.map((e) => e.version) : []))).toEqual([1, 2, 3]);
    abort.abort();
    await feed.stop();
  });

  test("G9 draining ends what waits at once and gives up on who does not take its frame", async () => {
    const { time, feed, memory } = await setUp();
    const { signal } = new AbortController();
    const waits = follow(feed, signal);
    const writer = memory.begin();
    const opening = follow(feed, signal, { afterTransaction: `${memory.epoch}:${writer.xid()}` as never });
    const stuck = feed.subscribe(REQUEST, signal)[Symbol.asyncIterator]();
    await stuck.next();
    await time.pass(20);
    let drained = false;
    const draining = feed.drain(5_000).then(() => {
      drained = true;
    });
    await time.pass(4_900);
    expect(waits.frames.at(-1)).toMatchObject({ kind: "closing", reason: "DRAINING", retryAfterMs: 500 });
    expect(await opening.ended).toMatchObject({ code: "DRAINING" });
    expect([drained, feed.status().streams]).toEqual([false, 1]);
    await time.pass(200);
    await draining;
    expect((await stuck.next()).value).toMatchObject({ kind: "closing" });
    expect((await stuck.next()).done).toBe(true);
    await feed.stop();
  });

  test("start leaves nothing behind when the database is away, and stop is safe before it and twice", async () => {
    const time = new ManualTime();
    const store = createMemoryStore({ clock: time });
    const feed = createFeed({ store, wakeUp: store.wakeUp, clock: time, timers: time });
    store.outage.refuse();
    const { signal } = new AbortController();
    await expect(feed.start(signal)).rejects.toMatchObject({ code: "DATABASE_UNAVAILABLE" });
    expect(time.pending).toBe(0);
    expect(feed.status()).toMatchObject({ state: "STARTING", head: 0, settledAgeMs: undefined });
    expect(await follow(feed, signal).ended).toMatchObject({ code: "DATABASE_UNAVAILABLE" });
    store.outage.lift();
    await feed.start(signal);
    await feed.stop();
    await feed.stop();
    await createFeed({ store, wakeUp: store.wakeUp }).stop();
    expect(time.pending).toBe(0);
  });

  test("G9 a snapshot is closed once its rows are delivered, and when it is cut", async () => {
    let open = 0;
    const { time, feed, memory } = await setUp({}, (store) =>
      inFrontOf(store, {
        snapshot: async (request, signal) => {
          const reader = await store.snapshot(request, signal);
          open += 1;
          const close = reader.close.bind(reader);
          reader.close = async () => {
            open -= 1;
            await close();
          };
          return reader;
        },
      }),
    );
    const writer = memory.begin();
    await writer.put("orders", "1", "{}");
    await writer.put("orders", "2", "{}");
    writer.commit();
    await time.pass(20);
    const start = { kind: "snapshot" } as const;
    const abort = new AbortController();
    const whole = follow(feed, abort.signal, { start: start as never });
    await time.pass(20);
    expect(whole.frames.map((frame) => frame.kind)).toEqual([
      "opened",
      "snapshot_started",
      "events",
      "snapshot_complete",
    ]);
    expect(open).toBe(0);
    const cut = feed.subscribe({ ...REQUEST, start, maxBatchBytes: 1 }, abort.signal)[Symbol.asyncIterator]();
    for (const kind of ["opened", "snapshot_started", "events"]) {
      expect((await cut.next()).value).toMatchObject({ kind });
    }
    expect(open).toBe(1);
    await cut.return?.();
    expect([open, feed.status().streams]).toEqual([0, 1]);
    abort.abort();
    await whole.ended;
    await feed.stop();
  });

  test("G9 history read ahead for a client that stands still is given back", async () => {
    let reads = 0;
    const { time, feed, memory } = await setUp({ limits: { logMaxBytes: 1 } }, (store) =>
      inFrontOf(store, {
        readAfter: (after, signal) => {
          reads += 1;
          return store.readAfter(after, signal);
        },
      }),
    );
    emit(memory, 10);
    await time.pass(20);
    emit(memory);
    await time.pass(20);
    const abort = new AbortController();
    const request = { ...REQUEST, start: { kind: "oldest" as const }, maxBatchBytes: 1 };
    const slow = feed.subscribe(request, abort.signal)[Symbol.asyncIterator]();
    const next = async () => {
      const result = slow.next();
      await time.pass(1);
      return (await result).value;
    };
    await next();
    expect(await next()).toMatchObject({ kind: "events" });
    expect(await next()).toMatchObject({ kind: "events" });
    expect(reads).toBe(1);
    // Longer than the pages that all streams share are kept, too.
    await time.pass(7_000);
    expect(await next()).toMatchObject({ kind: "events", cursor: { version: 3 } });
    expect(reads).toBe(2);
    abort.abort();
    await slow.next().catch(() => undefined);
    await feed.stop();
  });

  test("a page is read once, also when its last events wait for a batch of their own", async () => {
    const reads: number[] = [];
    const { time, feed, memory } = await setUp({ limits: { logMaxBytes: 1 } }, (store) =>
      inFrontOf(store, {
        readAfter: (after, signal) => {
          reads.push(after);
          return store.readAfter(after, signal);
        },
      }),
    );
    for (const count of [700, 700, 1]) {
      emit(memory, count);
      await time.pass(30);
    }
    const abort = new AbortController();
    const start = { kind: "oldest" as const };
    const client = feed.subscribe({ ...REQUEST, start }, abort.signal)[Symbol.asyncIterator]();
    const next = async () => {
      const result = client.next();
      await time.pass(1);
      return (await result).value;
    };
    await next();
    expect(await next()).toMatchObject({ events: { length: 700 }, complete: true });
    expect(await next()).toMatchObject({ events: { length: 300 }, complete: false });
    expect(reads).toEqual([0]);
    abort.abort();
    await client.next().catch(() => undefined);
    await feed.stop();
  });

  test("G9 history that comes while its client stands still is given back", async () => {
    let answer: (() => void) | undefined;
    let reads = 0;
    const { time, feed, memory } = await setUp({ limits: { logMaxBytes: 1 } }, (store) =>
      inFrontOf(store, {
        readAfter: async (after, signal) => {
          reads += 1;
          if (reads === 1) {
            await new Promise<void>((resolve) => {
              answer = resolve;
            });
          }
          return store.readAfter(after, signal);
        },
      }),
    );
    for (const count of [10, 1]) {
      emit(memory, count);
      await time.pass(30);
    }
    const abort = new AbortController();
    const start = { kind: "oldest" as const };
    const request = { ...REQUEST, start, checkpointIntervalMs: 100 };
    const client = feed.subscribe(request, abort.signal)[Symbol.asyncIterator]();
    const next = async () => {
      const result = client.next();
      await time.pass(200);
      return (await result).value;
    };
    await next();
    expect(await next()).toMatchObject({ kind: "checkpoint", state: "CATCHING_UP" });
    await time.pass(1_500);
    answer?.();
    await time.pass(7_000);
    expect(await next()).toMatchObject({ kind: "checkpoint" });
    expect(await next()).toMatchObject({ kind: "events", events: { length: 11 } });
    expect(reads).toBe(2);
    abort.abort();
    await client.next().catch(() => undefined);
    await feed.stop();
  });
});
