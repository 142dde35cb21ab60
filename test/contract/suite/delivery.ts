import { describe, expect, test } from "vitest";
import { type ContractHarness, transact } from "../harness.ts";
import { objections } from "../judge.ts";
import { Reader, resumeAfter, select } from "../reader.ts";
import { runFeed } from "../running-feed.ts";
import { interleave } from "./order.ts";
import { fill } from "./starts.ts";

/** Batches, checkpoints, going on, and readers of different speed. */
export function deliveryContract(harness: ContractHarness): void {
  describe("delivery", () => {
    test("G5 no checkpoint and no complete batch splits a transaction, however small the batches", async () => {
      await using world = await harness.open({ pageEvents: 2 });
      await using running = await runFeed(world);
      const writers = await Promise.all([world.writer(), world.writer()]);
      await using reader = new Reader(running.feed, { maxBatchBytes: 1, checkpointIntervalMs: 1 });
      await reader.opened();
      const counts = await interleave(writers, 30);
      const total = [...counts.values()].reduce((sum, count) => sum + count, 0);
      await reader.passes(total);
      expect(reader.events.length).toBe(total);
      expect(objections(reader.frames, counts)).toEqual([]);
      const batches = reader.frames.filter((frame) => frame.kind === "events");
      expect(batches.every((frame) => frame.events.length === 1)).toBe(true);
      expect(batches.some((frame) => !frame.complete)).toBe(true);
    });

    test("G5 a batch that ends with the last wanted event of its tick is complete", async () => {
      await using world = await harness.open();
      await using running = await runFeed(world);
      await using reader = new Reader(running.feed, { selectors: [select(["wanted"])] });
      await reader.opened();
      await transact(await world.writer(), async (w) => {
        await w.emit("wanted", undefined, 1);
        await w.emit("other", undefined, 2);
        await w.emit("other", undefined, 3);
      });
      await reader.gets(1);
      const batch = reader.frames.find((frame) => frame.kind === "events");
      expect(batch).toMatchObject({ complete: true, cursor: { version: 3 } });
    });

    test("G10 a stream that nothing matches still tells how far it is", async () => {
      await using world = await harness.open();
      await using running = await runFeed(world);
      await using reader = new Reader(running.feed, { start: { kind: "now" }, selectors: [select(["nobody"])] });
      await reader.opened();
      await fill(world, running.feed, 3);
      await reader.passes(3);
      expect(reader.events).toEqual([]);
      const last = reader.frames.at(-1);
      expect(last).toMatchObject({ kind: "checkpoint", version: 3, state: "LIVE", lagVersions: 0, lagMs: 0 });
      await using resumed = new Reader(running.feed, {
        start: resumeAfter(last?.kind === "checkpoint" ? last.cursor : never()),
      });
      expect((await resumed.opened()).version).toBe(3);
    });

    test("G8 every cursor of a run goes on exactly after its frame", async () => {
      await using world = await harness.open({ pageEvents: 3 });
      await using running = await runFeed(world, { limits: { logMaxBytes: 4_000 } });
      const writers = await Promise.all([world.writer(), world.writer(), world.writer()]);
      const selectors = [select(["notes.w0", "notes.w2"])];
      await using run = new Reader(running.feed, { selectors, maxBatchBytes: 600, checkpointIntervalMs: 20 });
      await run.opened();
      await interleave(writers, 12);
      await fill(world, running.feed, 1);
      const { head } = running.feed.status();
      await run.passes(head);
      const frames = run.frames.slice();
      for (const [i, frame] of frames.entries()) {
        if (!("cursor" in frame)) {
          continue;
        }
        const rest = frames.slice(i + 1).flatMap((later) => (later.kind === "events" ? later.events : []));
        await using resumed = new Reader(running.feed, { selectors, start: resumeAfter(frame.cursor) });
        await resumed.passes(head);
        expect(resumed.versions).toEqual(rest.map((event) => event.version));
      }
      expect(run.frames.length).toBeGreaterThan(10);
    });

    test("G9 a reader that stands still holds up nobody, falls back to the table and meets the log again", async () => {
      await using world = await harness.open({ pageEvents: 10 });
      await using running = await runFeed(world, { limits: { logMaxBytes: 1 } });
      await using slow = new Reader(running.feed, { start: { kind: "now" }, maxBatchBytes: 1_000 });
      await using fast = new Reader(running.feed, { start: { kind: "now" } });
      await Promise.all([slow.opened(), fast.opened()]);
      const writer = await world.writer();
      await transact(writer, (w) => w.emit("notes", undefined, -1));
      await Promise.all([slow.gets(1), fast.gets(1)]);
      slow.standStill();
      for (let n = 0; n < 60; n++) {
        await transact(writer, async (w) => {
          for (let i = 0; i < 40; i++) {
            await w.emit("notes", undefined, n);
          }
        });
        await fast.gets(41 + n * 40);
      }
      const seen = slow.events.length;
      expect(seen).toBeLessThan(2_401);
      expect(running.feed.status().logOldest).toBeGreaterThan(seen + 1);
      slow.goOn();
      await slow.gets(2_401);
      await transact(writer, (w) => w.emit("notes", undefined, 99));
      await Promise.all([slow.passes(2_402), fast.gets(2_402)]);
      expect(slow.versions).toEqual(fast.versions);
      expect(objections(slow.frames)).toEqual([]);
      const states = slow.frames.flatMap((frame) => (frame.kind === "checkpoint" ? [frame.state] : []));
      expect(states).toContain("CATCHING_UP");
      expect(states.at(-1)).toBe("LIVE");
    });
  });
}

function never(): never {
  throw new Error("no such frame");
}
