import { describe, expect, test } from "vitest";
import type { Feed } from "../../../src/core/feed.ts";
import type { Frame } from "../../../src/core/frame.ts";
import { type ContractHarness, transact, type World, type Writer } from "../harness.ts";
import { objections } from "../judge.ts";
import { payloadValue, Reader, resumeAfter, select } from "../reader.ts";
import { runFeed } from "../running-feed.ts";

/** The state first, then what happens to it. */
export function snapshotContract(harness: ContractHarness): void {
  describe("snapshot", () => {
    test("G7 rows at a version and events after it make the table, under concurrent writes", async () => {
      await using world = await harness.open({ pageEvents: 5 });
      await using running = await runFeed(world);
      const table = new Map<string, number>();
      await writeRounds(await world.writer(), table, 0, 20);
      const stop = new AbortController();
      const writing = writeUntil(await world.writer(), table, stop.signal);
      const readers: Reader[] = [];
      for (let i = 0; i < 8; i++) {
        const reader = new Reader(running.feed, { start: { kind: "snapshot" }, selectors: [select(["orders"])] });
        readers.push(reader);
        await reader.until((r) => r.frames.some(isComplete), "the end of its snapshot");
      }
      stop.abort();
      await writing;
      await settle(world, running.feed, readers);
      for (const reader of readers) {
        expect(stateOf(reader.frames)).toEqual(table);
        expect(objections(reader.frames)).toEqual([]);
        await reader[Symbol.asyncDispose]();
      }
    });

    test("G7 frames come in order, with the rows counted and the cursors saying where they stand", async () => {
      await using world = await harness.open({ pageEvents: 2 });
      await using running = await runFeed(world);
      await writeRounds(await world.writer(), new Map(), 0, 6);
      const { start, selectors } = { start: { kind: "snapshot" } as const, selectors: [select([], [], ["DELETE"])] };
      await using reader = new Reader(running.feed, { start, selectors, maxBatchBytes: 1 });
      await reader.until((r) => r.frames.some(isComplete), "the end of its snapshot");
      const kinds = reader.frames.map((frame) => frame.kind);
      const rows = reader.events.length;
      expect(rows).toBeGreaterThan(0);
      expect(kinds.slice(0, rows + 3)).toEqual([
        "opened",
        "snapshot_started",
        ...Array.from({ length: rows }, () => "events"),
        "snapshot_complete",
      ]);
      expect(reader.frames[1]).toMatchObject({ restart: false, topics: ["orders", "parcels.{region}"] });
      expect(reader.frames.find(isComplete)).toMatchObject({ rows, cursor: { snapshot: undefined } });
      expect(reader.events.every((event) => event.operation === "SNAPSHOT")).toBe(true);
    });

    test("G7 only the sources that are wanted are copied, and only the keys", async () => {
      await using world = await harness.open();
      await using running = await runFeed(world);
      await transact(await world.writer(), async (w) => {
        await w.put("orders", "1", 1);
        await w.put("parcels.eu", "1", 2);
        await w.put("parcels.eu", "2", 3);
        await w.put("parcels.us", "3", 4);
      });
      const selectors = [select(["parcels.eu"], ["2", "3"])];
      await using reader = new Reader(running.feed, { start: { kind: "snapshot" }, selectors });
      await reader.until((r) => r.frames.some(isComplete), "the end of its snapshot");
      expect(reader.frames[1]).toMatchObject({ topics: ["parcels.{region}"] });
      expect(reader.values).toEqual([3]);
    });

    test("G7 G8 a snapshot that is cut at any frame is taken again for other selectors, and says so", async () => {
      await using world = await harness.open({ pageEvents: 2 });
      await using running = await runFeed(world);
      const table = new Map<string, number>();
      const writer = await world.writer();
      await writeRounds(writer, table, 0, 5);
      await using first = new Reader(running.feed, { start: { kind: "snapshot" }, maxBatchBytes: 1 });
      await first.until((r) => r.frames.some(isComplete), "the end of its snapshot");
      await writeRounds(writer, table, 5, 9);
      for (const frame of first.frames.slice(0, first.frames.findIndex(isComplete) + 1)) {
        if (!("cursor" in frame)) {
          continue;
        }
        await using resumed = new Reader(running.feed, {
          start: resumeAfter(frame.cursor),
          selectors: [select(["orders"])],
        });
        await settle(world, running.feed, [resumed]);
        if (frame.kind === "snapshot_complete") {
          expect(resumed.frames.some((f) => f.kind === "snapshot_started")).toBe(false);
          expect(stateOf([...first.frames, ...resumed.frames])).toEqual(table);
        } else {
          expect(resumed.frames[1]).toMatchObject({ kind: "snapshot_started", restart: true });
          expect(stateOf(resumed.frames)).toEqual(table);
        }
      }
    });
  });
}

function isComplete(frame: Frame): boolean {
  return frame.kind === "snapshot_complete";
}

/** Rows as a client that applies every frame would hold them. */
function stateOf(frames: readonly Frame[]): Map<string, number> {
  const state = new Map<string, number>();
  for (const frame of frames) {
    if (frame.kind === "snapshot_started") {
      state.clear();
    }
    for (const event of frame.kind === "events" ? frame.events : []) {
      if (event.operation === "TRUNCATE") {
        state.clear();
      } else if (event.operation === "DELETE") {
        state.delete(event.key ?? "");
      } else if (event.topic === "orders") {
        state.set(event.key ?? "", Number(payloadValue(event)));
      }
    }
  }
  return state;
}

async function writeUntil(writer: Writer, table: Map<string, number>, signal: AbortSignal): Promise<void> {
  for (let round = 20; !signal.aborted; round++) {
    await writeRounds(writer, table, round, round + 1);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

/** Each round is a transaction that sets, changes and removes rows of `orders`; some roll back. `table` follows. */
async function writeRounds(writer: Writer, table: Map<string, number>, from: number, to: number): Promise<void> {
  for (let round = from; round < to; round++) {
    const next = new Map(table);
    await writer.begin();
    if (round % 17 === 16) {
      await writer.truncate("orders");
      next.clear();
    }
    for (const key of [`k${round % 7}`, `k${(round * 3) % 11}`]) {
      await writer.put("orders", key, round);
      next.set(key, round);
    }
    if (round % 3 === 0) {
      await writer.remove("orders", `k${(round + 1) % 7}`);
      next.delete(`k${(round + 1) % 7}`);
    }
    if (round % 5 === 4) {
      await writer.rollback();
      continue;
    }
    await writer.commit();
    table.clear();
    for (const [key, n] of next) {
      table.set(key, n);
    }
  }
}

/** Waits until the readers have passed everything that is committed now. */
async function settle(world: World, feed: Feed, readers: readonly Reader[]): Promise<void> {
  const xid = await transact(await world.writer(), (w) => w.emit("notes", "barrier", 0));
  const afterTransaction = `${world.store.epoch}:${xid}`;
  await using barrier = new Reader(feed, { start: { kind: "now" }, afterTransaction });
  const { version } = await barrier.opened();
  await Promise.all(readers.map((reader) => reader.passes(version)));
}
