import { describe, expect, test } from "vitest";
import type { Cursor } from "../../../src/core/cursor.ts";
import { FeedError } from "../../../src/core/errors.ts";
import type { Feed, Start, StreamRequest } from "../../../src/core/feed.ts";
import { type ContractHarness, transact, type World } from "../harness.ts";
import { Reader, resumeAfter } from "../reader.ts";
import { runFeed } from "../running-feed.ts";
import { fill } from "./starts.ts";

const UNKNOWN = "00000000-0000-4000-8000-000000000000";

/** What becomes of positions and streams when the database is put back to an earlier moment. */
export function epochContract(harness: ContractHarness): void {
  if (!harness.capabilities.has("restore")) {
    return;
  }
  describe("epochs", () => {
    test("G8 a cursor of an ancestor goes on at or below the fork, and above it is told the fork", async () => {
      await using world = await harness.open();
      const { epoch, cursors } = await restoredAt3(world);
      await using running = await runFeed(world);
      await fill(world, running.feed, 2);
      expect(world.store.lineage).toEqual([{ epoch, forkVersion: 3 }]);
      for (const version of [1, 3]) {
        await using reader = new Reader(running.feed, { start: resumeAfter(cursors.get(version) ?? never()) });
        expect(await reader.opened()).toMatchObject({ epoch: world.store.epoch, version });
        await reader.gets(5 - version);
        expect(reader.versions).toEqual([2, 3, 4, 5].filter((each) => each > version));
        expect(reader.frames.every((frame) => !("cursor" in frame) || frame.cursor.epoch === world.store.epoch)).toBe(
          true,
        );
      }
      for (const version of [4, 5]) {
        const error = await refusal(running.feed, { start: resumeAfter(cursors.get(version) ?? never()) });
        expect(error).toMatchObject({
          code: "EPOCH_CHANGED",
          detail: { epoch: world.store.epoch, headVersion: 5, forkVersion: 3 },
        });
        expect(error.action).toContain("after version 3");
      }
    });

    test("G8 a version with its epoch is held against the fork, one without means the epoch in force", async () => {
      await using world = await harness.open();
      const { epoch } = await restoredAt3(world);
      await using running = await runFeed(world);
      await fill(world, running.feed, 2);
      const at = (version: number, of: string | undefined): Start => ({ kind: "version", version, epoch: of });
      for (const start of [at(3, epoch), at(3, world.store.epoch), at(3, undefined)]) {
        await using reader = new Reader(running.feed, { start });
        await reader.gets(2);
        expect(reader.versions).toEqual([4, 5]);
      }
      await using later = new Reader(running.feed, { start: at(4, undefined) });
      expect((await later.gets(1)).versions).toEqual([5]);
      const forked = await refusal(running.feed, { start: at(4, epoch) });
      expect(forked).toMatchObject({ code: "EPOCH_CHANGED", detail: { forkVersion: 3 } });
    });

    test("G8 a fingerprint that differs and an epoch that nobody descends from are no ancestor's", async () => {
      await using world = await harness.open();
      const { cursors } = await restoredAt3(world);
      await using running = await runFeed(world);
      const cursor = cursors.get(3) ?? never();
      const forged = { ...cursor, fingerprint: (cursor.fingerprint ^ 1) >>> 0 || 7 };
      expect((await refusal(running.feed, { start: resumeAfter(forged) })).code).toBe("CURSOR_INVALID");
      const unknown = await refusal(running.feed, { start: resumeAfter({ ...cursor, epoch: UNKNOWN }) });
      expect(unknown.code).toBe("EPOCH_CHANGED");
      expect(unknown.detail).toEqual({ epoch: world.store.epoch, headVersion: 3 });
    });

    test("G8 what two epochs share is bounded by the lowest fork between them", async () => {
      await using world = await harness.open();
      const first = await restoredAt3(world);
      const second = await following(world, 2);
      const backup = await world.backup();
      await second.running.feed.stop();
      const third = await following(world, 1);
      await third.running.feed.stop();
      const middle = world.store.epoch;
      await backup.restore();
      await using running = await runFeed(world);
      expect(world.store.lineage).toEqual([
        { epoch: middle, forkVersion: 5 },
        { epoch: first.epoch, forkVersion: 3 },
      ]);
      await fill(world, running.feed, 1);
      const goesOn = async (cursor: Cursor | undefined) => {
        await using reader = new Reader(running.feed, { start: resumeAfter(cursor ?? never()) });
        await reader.until((r) => r.versions.includes(6), "version 6");
        return reader.versions;
      };
      expect(await goesOn(first.cursors.get(3))).toEqual([4, 5, 6]);
      expect(await goesOn(second.cursors.get(5))).toEqual([6]);
      const above = async (cursor: Cursor | undefined) => {
        const { code, detail } = await refusal(running.feed, { start: resumeAfter(cursor ?? never()) });
        return [code, detail.forkVersion];
      };
      expect(await above(first.cursors.get(4))).toEqual(["EPOCH_CHANGED", 3]);
      expect(await above(third.cursors.get(6))).toEqual(["EPOCH_CHANGED", 5]);
    });

    test("G8 a transaction of another epoch is not waited for: it may be lost", async () => {
      await using world = await harness.open();
      const { epoch } = await restoredAt3(world);
      await using running = await runFeed(world);
      const start = { kind: "now" } as const;
      const error = await refusal(running.feed, { start, afterTransaction: `${epoch}:3` });
      expect(error).toMatchObject({ code: "EPOCH_CHANGED", detail: { epoch: world.store.epoch, forkVersion: 3 } });
    });

    test("G6 a stream of an epoch that has ended gets nothing of the next one, and no store of it answers", async () => {
      await using world = await harness.open();
      await using before = await runFeed(world);
      await fill(world, before.feed, 3);
      const backup = await world.backup();
      await using reader = new Reader(before.feed);
      await reader.gets(3);
      await fill(world, before.feed, 1);
      const old = world.store;
      await backup.restore();
      await using after = await runFeed(world);
      await fill(world, after.feed, 3);
      const error = await reader.end();
      expect(error).toMatchObject({ code: "EPOCH_CHANGED" });
      expect(reader.versions).toEqual([1, 2, 3, 4]);
      const { signal } = new AbortController();
      const asked = [old.bounds(signal), old.readAfter(0, signal), old.advance(4, signal), old.tickOf(1, signal)];
      const over = { status: "rejected", reason: { name: "EpochOver", code: "EPOCH_CHANGED" } };
      expect(await Promise.allSettled<unknown>(asked)).toMatchObject(asked.map(() => over));
    });

    test("G7 a snapshot shows the tables of the epoch in force, also to whoever was cut in one below the fork", async () => {
      await using world = await harness.open();
      await using before = await runFeed(world);
      const put = async (key: string, n: number) => {
        await transact(await world.writer(), (writer) => writer.put("orders", key, n));
      };
      await put("kept", 1);
      await using seen = new Reader(before.feed);
      await seen.passes(1);
      const { cursor } = seen.frames.findLast((frame) => frame.kind === "checkpoint") ?? never();
      const backup = await world.backup();
      await put("lost", 1);
      await seen.gets(2);
      await backup.restore();
      await using running = await runFeed(world);
      await put("new", 2);
      for (const start of [{ kind: "snapshot" } as const, resumeAfter({ ...cursor, snapshot: "anew" })]) {
        await using reader = new Reader(running.feed, { start });
        await reader.until((r) => r.frames.some(({ kind }) => kind === "snapshot_complete"), "the end of the snapshot");
        const keys = reader.events.filter(({ operation }) => operation === "SNAPSHOT").map(({ key }) => key);
        expect(keys.map((key) => key?.replaceAll(/\W/g, ""))).toEqual(["kept", "new"]);
      }
    });
  });
}

/** A database put back to version 3 after 5 had been seen: with the cursors that were given out in the old epoch. */
async function restoredAt3(world: World): Promise<{ readonly epoch: string; readonly cursors: Cursors }> {
  const { epoch } = world.store;
  const before = await following(world, 3);
  const backup = await world.backup();
  await before.running.feed.stop();
  const after = await following(world, 2);
  await after.running.feed.stop();
  await backup.restore();
  return { epoch, cursors: after.cursors };
}

type Cursors = ReadonlyMap<number, Cursor>;

/** A feed after so many more events, and the cursors of all versions so far. */
async function following(world: World, count: number) {
  const running = await runFeed(world);
  await fill(world, running.feed, count);
  const { head } = running.feed.status();
  await using reader = new Reader(running.feed, { maxBatchBytes: 1 });
  await reader.gets(head);
  const frames = reader.frames.flatMap((frame) => (frame.kind === "events" ? [frame] : []));
  return { running, cursors: new Map(frames.map(({ cursor }) => [cursor.version, cursor])) };
}

async function refusal(feed: Feed, options: Partial<StreamRequest>): Promise<FeedError> {
  await using reader = new Reader(feed, options);
  const error = await reader.end();
  if (!(error instanceof FeedError)) {
    throw new Error(`expected a refusal, got ${String(error)} after ${reader.frames.length} frames`);
  }
  return error;
}

function never(): never {
  throw new Error("no such thing");
}
