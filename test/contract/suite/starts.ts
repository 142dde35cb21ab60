import { describe, expect, test } from "vitest";
import { decodeCursor, encodeCursor } from "../../../src/core/cursor.ts";
import { FeedError } from "../../../src/core/errors.ts";
import type { Feed, Start } from "../../../src/core/feed.ts";
import type { WakeUp } from "../../../src/core/ports.ts";
import { type ContractHarness, transact, type World } from "../harness.ts";
import { Reader, resumeAfter } from "../reader.ts";
import { runFeed } from "../running-feed.ts";

/** Where a stream begins, and what is said to those who ask for a place that is not there. */
export function startContract(harness: ContractHarness): void {
  describe("start", () => {
    test("`now` begins after what was settled, `oldest` and version 0 with the first event", async () => {
      await using world = await harness.open();
      await using running = await runFeed(world);
      await fill(world, running.feed, 3);
      await using now = new Reader(running.feed, { start: { kind: "now" } });
      await using oldest = new Reader(running.feed, { start: { kind: "oldest" } });
      await using zero = new Reader(running.feed, { start: { kind: "version", version: 0, epoch: world.store.epoch } });
      expect(await now.opened()).toMatchObject({ version: 3, head: 3, oldest: 1, epoch: world.store.epoch });
      await Promise.all([oldest.gets(3), zero.gets(3)]);
      await fill(world, running.feed, 1);
      await Promise.all([now.gets(1), oldest.gets(4), zero.gets(4)]);
      expect(now.versions).toEqual([4]);
      expect(oldest.versions).toEqual([1, 2, 3, 4]);
      expect(zero.versions).toEqual([1, 2, 3, 4]);
    });

    test("G1 a feed that starts later reads from the table what its log never held", async () => {
      await using world = await harness.open({ pageEvents: 2 });
      await using first = await runFeed(world);
      await fill(world, first.feed, 7);
      await using second = await runFeed(world);
      await using reader = new Reader(second.feed, { start: { kind: "version", version: 2, epoch: undefined } });
      await reader.gets(5);
      await fill(world, second.feed, 2);
      await reader.gets(7);
      expect(reader.versions).toEqual([3, 4, 5, 6, 7, 8, 9]);
    });

    test("a time begins after the last tick at or before it", async () => {
      await using world = await harness.open();
      await using running = await runFeed(world);
      await fill(world, running.feed, 2);
      const tick = await world.store.tickOf(1, new AbortController().signal);
      const at = (timeMicros: number): Start => ({ kind: "time", timeMicros });
      await using before = new Reader(running.feed, { start: at((tick?.timeMicros ?? 0) - 3_600e6) });
      await using exact = new Reader(running.feed, { start: at(tick?.timeMicros ?? 0) });
      await using later = new Reader(running.feed, { start: at((tick?.timeMicros ?? 0) + 3_600e6) });
      expect((await before.opened()).version).toBe(0);
      expect((await exact.opened()).version).toBeGreaterThanOrEqual(1);
      expect((await later.opened()).version).toBe(2);
    });

    test("G8 a cursor begins exactly after its frame, however it was written down", async () => {
      await using world = await harness.open();
      await using running = await runFeed(world);
      await fill(world, running.feed, 4);
      await using reader = new Reader(running.feed, { maxBatchBytes: 1 });
      await reader.gets(4);
      const second = reader.frames.filter((frame) => frame.kind === "events")[1];
      await using resumed = new Reader(running.feed, { start: resumeAfter(second?.cursor ?? never()) });
      await resumed.gets(2);
      expect(resumed.versions).toEqual([3, 4]);
    });

    test("G8 a version that another replica settled is awaited, one that nobody settled is refused with the head", async () => {
      await using world = await harness.open();
      await using ahead = await runFeed(world);
      const { wakeUp, asleep, awake } = sleepyWakeUp();
      await using behind = await runFeed(world, { wakeUp });
      await asleep;
      await fill(world, ahead.feed, 3);
      expect(behind.feed.status().head).toBe(0);
      await using reader = new Reader(behind.feed, { start: { kind: "version", version: 2, epoch: undefined } });
      awake();
      await reader.gets(1);
      expect(reader.versions).toEqual([3]);
      const error = await refusal(behind.feed, { kind: "version", version: 4, epoch: undefined });
      expect(error).toMatchObject({ code: "CURSOR_INVALID", detail: { headVersion: 3, epoch: world.store.epoch } });
    });

    test("G8 a malformed cursor, another epoch and a history that was rolled back are told apart", async () => {
      await using world = await harness.open();
      await using running = await runFeed(world);
      await fill(world, running.feed, 2);
      await using reader = new Reader(running.feed);
      await reader.gets(2);
      const cursor = reader.frames.findLast((frame) => frame.kind === "events")?.cursor ?? never();
      const refused = async (start: Start) => await refusal(running.feed, start);
      const there = { epoch: world.store.epoch, oldestVersion: 1, headVersion: 2 };
      const nonsense = await refused({ kind: "cursor", cursor: "nonsense" });
      expect(nonsense).toMatchObject({ code: "CURSOR_INVALID", detail: there });
      const other = "00000000-0000-4000-8000-000000000000";
      const changed = { code: "EPOCH_CHANGED", detail: { epoch: world.store.epoch, headVersion: 2 } };
      expect(await refused(resumeAfter({ ...cursor, epoch: other }))).toMatchObject(changed);
      expect(await refused({ kind: "version", version: 1, epoch: other })).toMatchObject(changed);
      const rolledBack = await refused(resumeAfter({ ...cursor, fingerprint: (cursor.fingerprint ^ 1) >>> 0 || 7 }));
      expect(rolledBack).toMatchObject({ code: "CURSOR_INVALID", detail: there });
      expect(rolledBack.message).toContain("rolled back");
      expect(decodeCursor(encodeCursor(cursor))).toEqual(cursor);
    });

    if (harness.capabilities.has("retention")) {
      test("G8 a position older than what is kept is refused with the oldest, the next one goes on", async () => {
        await using world = await harness.open();
        await using first = await runFeed(world);
        await fill(world, first.feed, 6);
        await world.retainFrom(4);
        await using running = await runFeed(world);
        const lost = await refusal(running.feed, { kind: "version", version: 2, epoch: undefined });
        const detail = { oldestVersion: 4, headVersion: 6, epoch: world.store.epoch };
        expect(lost).toMatchObject({ code: "HISTORY_LOST", detail });
        expect(await refusal(running.feed, { kind: "time", timeMicros: 1 })).toMatchObject({ code: "HISTORY_LOST" });
        const cut = { epoch: world.store.epoch, version: 2, fingerprint: 0, snapshot: "anew" } as const;
        await using again = new Reader(running.feed, { start: resumeAfter(cut) });
        await again.until((r) => r.frames.length > 1, "the snapshot that begins anew");
        expect(again.frames[1]).toMatchObject({ kind: "snapshot_started", restart: true, version: 6 });
        await using reader = new Reader(running.feed, { start: { kind: "version", version: 3, epoch: undefined } });
        await using oldest = new Reader(running.feed, { start: { kind: "oldest" } });
        await Promise.all([reader.gets(3), oldest.gets(3)]);
        expect(reader.versions).toEqual([4, 5, 6]);
        expect(oldest.versions).toEqual([4, 5, 6]);
      });
    }

    test("a barrier holds the start back until its transaction is settled", async () => {
      await using world = await harness.open();
      await using running = await runFeed(world);
      const writer = await world.writer();
      await writer.begin();
      const token = `${world.store.epoch}:${await writer.xid()}`;
      await writer.emit("notes", undefined, 1);
      await using reader = new Reader(running.feed, { start: { kind: "now" }, afterTransaction: token });
      await fill(world, running.feed, 1);
      expect(reader.frames).toEqual([]);
      await writer.commit();
      expect((await reader.opened()).version).toBe(2);
      await writer.begin();
      const rolledBack = `${world.store.epoch}:${await writer.xid()}`;
      await writer.rollback();
      await using second = new Reader(running.feed, { start: { kind: "now" }, afterTransaction: rolledBack });
      expect((await second.opened()).version).toBe(2);
      const future = `${world.store.epoch}:999999999999`;
      const now: Start = { kind: "now" };
      expect((await refusal(running.feed, now, future)).code).toBe("INVALID_REQUEST");
      expect((await refusal(running.feed, now, `00000000-0000-4000-8000-000000000000:3`)).code).toBe("EPOCH_CHANGED");
      expect((await refusal(running.feed, now, "3")).detail.violations?.[0]?.field).toBe("after_transaction");
    });
  });
}

/** Commits so many single events and waits until this feed holds them. */
export async function fill(world: World, feed: Feed, count: number): Promise<void> {
  const writer = await world.writer();
  await using reader = new Reader(feed, { start: { kind: "now" } });
  await reader.opened();
  for (let n = 0; n < count; n++) {
    await transact(writer, (w) => w.emit("notes", `k${n}`, n));
    await reader.gets(n + 1);
  }
}

async function refusal(feed: Feed, start: Start, afterTransaction?: string): Promise<FeedError> {
  await using reader = new Reader(feed, { start, afterTransaction });
  const error = await reader.end();
  if (!(error instanceof FeedError)) {
    throw new Error(`expected a refusal, got ${String(error)} after ${reader.frames.length} frames`);
  }
  return error;
}

/** A wake-up of a replica that sleeps through everything until `awake`. */
function sleepyWakeUp(): { readonly wakeUp: WakeUp; readonly asleep: Promise<void>; readonly awake: () => void } {
  const [evening, morning] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const wakeUp: WakeUp = {
    nudge: () => undefined,
    wait: async (_found, signal) => {
      evening.resolve();
      const aborted = Promise.withResolvers<void>();
      signal.addEventListener("abort", () => aborted.resolve(), { once: true });
      await Promise.race([morning.promise, aborted.promise]);
      await new Promise((resolve) => setImmediate(resolve));
    },
  };
  return { wakeUp, asleep: evening.promise, awake: () => morning.resolve() };
}

function never(): never {
  throw new Error("no such frame");
}
