import { describe, expect, test } from "vitest";
import { FeedError } from "../../../src/core/errors.ts";
import { EpochOver, epochChanged } from "../../../src/core/lineage.ts";
import { emit, follow, inFrontOf, memoryOf, setUp } from "./memory-feed.ts";

describe("feed over epochs and publications", () => {
  test("G6 a change of epoch ends streams with the error, and refuses new ones", async () => {
    const { time, feed, memory, reports } = await setUp();
    const { signal } = new AbortController();
    const open = follow(feed, signal);
    await time.pass(100);
    const changed = new FeedError("EPOCH_CHANGED", "The database was restored.", "Start again.", { epoch: "other" });
    memory.outage.failNext(changed);
    await time.pass(15);
    expect(await open.ended).toBe(changed);
    expect(await follow(feed, signal).ended).toBe(changed);
    expect(feed.status()).toMatchObject({
      state: "STALE",
      failure: {
        code: "EPOCH_CHANGED",
        message: "The database was restored.",
        action: expect.stringContaining("anew"),
      },
    });
    expect(reports).toEqual([expect.stringContaining("is over")]);
    await feed.stop();
    expect(time.pending).toBe(0);
  });

  test("G10 a feed that will be replaced keeps its streams, STALE, until it is told what they end with", async () => {
    const told: FeedError[] = [];
    const { time, feed, memory } = await setUp({ onOver: (reason) => told.push(reason) });
    const { signal } = new AbortController();
    emit(memory);
    await time.pass(20);
    emit(memory);
    const open = follow(feed, signal, { start: { kind: "oldest" } as never });
    await time.pass(100);
    const writer = memory.begin();
    const opening = follow(feed, signal, { afterTransaction: `${memory.epoch}:${writer.xid()}` as never });
    await time.pass(20);
    const successor = memory.fork(1);
    successor.begin().commit();
    await time.pass(100);
    expect(told).toMatchObject([{ code: "EPOCH_CHANGED" }]);
    expect(await opening.ended).toMatchObject({ code: "DATABASE_UNAVAILABLE", detail: { retryAfterMs: 1_000 } });
    expect(await follow(feed, signal).ended).toMatchObject({ code: "DATABASE_UNAVAILABLE" });
    expect(feed.status()).toMatchObject({ state: "STALE", streams: 1, failure: { code: "EPOCH_CHANGED" } });
    expect(open.frames.at(-1)).toMatchObject({ kind: "checkpoint", state: "STALE", version: 2 });
    const reason = epochChanged(memory.epoch, successor, 1);
    feed.end(reason);
    expect(await open.ended).toBe(reason);
    expect(feed.status()).toMatchObject({ head: 2, logEvents: 0, logBytes: 0 });
    expect(reason.detail).toEqual({ epoch: successor.epoch, headVersion: 1, forkVersion: 1 });
    await feed.stop();
    expect(time.pending).toBe(0);
  });

  test("G1 a tail that slept longer than history is kept says so instead of trying for ever", async () => {
    const told: FeedError[] = [];
    const { time, feed, memory } = await setUp({ onOver: (reason) => told.push(reason) });
    memory.outage.failNext(new FeedError("HISTORY_LOST", "Version 1 is not kept.", "Start anew."));
    await time.pass(20);
    expect(told).toMatchObject([{ code: "HISTORY_LOST" }]);
    await feed.stop();
  });

  test("G6 a call that meets another epoch before the tail does is told of it, where nobody opens another feed", async () => {
    const { time, feed, memory } = await setUp();
    const { signal } = new AbortController();
    const over = new EpochOver("Another epoch is in force.");
    const writer = memory.begin();
    const opening = follow(feed, signal, { afterTransaction: `${memory.epoch}:${writer.xid()}` as never });
    await time.pass(1);
    memory.outage.failNext(over);
    const events = [{ topic: "notes", key: undefined, operation: "MESSAGE" as const, payload: "1", headers: {} }];
    await expect(feed.publish({ events, idempotencyKey: "", principal: "" }, signal)).rejects.toBe(over);
    feed.end(over);
    expect(await opening.ended).toBe(over);
    await feed.stop();
  });

  test("an epoch that ends while the oldest version is asked for is reported once, by the tail", async () => {
    let asked = 0;
    const { time, feed, reports } = await setUp({}, (store) =>
      inFrontOf(store, {
        bounds: (signal) => {
          asked += 1;
          return asked === 1 ? store.bounds(signal) : Promise.reject(new EpochOver("Another epoch is in force."));
        },
      }),
    );
    await time.pass(10_100);
    expect(asked).toBe(2);
    expect(reports).toEqual([]);
    await feed.stop();
  });

  test("G6 a publication whose epoch ends before it is settled is told as neither done nor undone", async () => {
    const { time, feed, memory } = await setUp({ onOver: () => undefined }, (store) =>
      inFrontOf(store, {
        publish: async (request, signal) => {
          const published = await store.publish(request, signal);
          memoryOf(store).fork(0);
          return published;
        },
      }),
    );
    const events = [{ topic: "notes", key: undefined, operation: "MESSAGE" as const, payload: "1", headers: {} }];
    const { signal } = new AbortController();
    const answer = feed.publish({ events, idempotencyKey: "", principal: "" }, signal).catch((error: unknown) => error);
    await time.pass(1_000);
    expect(await answer).toMatchObject({ code: "EPOCH_CHANGED", message: expect.stringContaining("may have lost") });
    expect(memory.epoch).toBe(feed.status().epoch);
    await feed.stop();
  });

  test("a publication that is committed but not settled in time is answered without a version", async () => {
    const { time, feed, memory } = await setUp({ settleTimeoutMs: 5_000 }, (store) =>
      inFrontOf(store, {
        publish: async (request, signal) => {
          const published = await store.publish(request, signal);
          memoryOf(store).outage.hang();
          return published;
        },
      }),
    );
    const events = [{ topic: "notes", key: undefined, operation: "MESSAGE" as const, payload: "1", headers: {} }];
    const { signal } = new AbortController();
    const answer = feed.publish({ events, idempotencyKey: "", principal: "" }, signal);
    await time.pass(6_000);
    expect(await answer).toMatchObject({ duplicate: false, version: undefined });
    memory.outage.lift();
    await time.pass(1_000);
    expect(feed.status().head).toBe(1);
    await feed.stop();
  });
});
