import { describe, expect, test } from "vitest";
import { type Cursor, decodeCursor, encodeCursor } from "../../../src/core/cursor.ts";
import type { StreamRequest } from "../../../src/core/feed.ts";
import type { Frame } from "../../../src/core/frame.ts";
import { type ContractHarness, transact, type World, type Writer } from "../harness.ts";
import { HeldState } from "../held-state.ts";
import { objections } from "../judge.ts";
import { Reader, resumeAfter, select } from "../reader.ts";
import { runFeed } from "../running-feed.ts";

const ALL = [select(["orders", "parcels.>", "notes"])];
const START = { kind: "snapshot" } as const;

/** A snapshot that is cut anywhere goes on at a later version, and each version of each row counts once. */
export function resumedSnapshotContract(harness: ContractHarness): void {
  describe("snapshot that goes on", () => {
    test("G7 G8 cut at any frame, it goes on on another replica after everything was changed", async () => {
      await using world = await harness.open({ pageEvents: 3 });
      await using running = await runFeed(world);
      await using other = await runFeed(world);
      const writer = await world.writer();
      await fillTables(writer);
      await using first = new Reader(running.feed, { start: START, selectors: ALL, maxBatchBytes: 1 });
      await first.until((r) => r.frames.some(isComplete), "the end of its snapshot");
      await changeEverything(writer);
      const whole = await stateNow(world, other.feed);
      const until = first.frames.findIndex(isComplete);
      for (let at = 0; at < until; at++) {
        const cursor = cursorOf(first.frames[at]);
        if (cursor === undefined) {
          continue;
        }
        await using resumed = new Reader(other.feed, { start: resumeAfter(cursor), selectors: ALL });
        await resumed.passes(whole.version);
        expect(objections(resumed.frames)).toEqual([]);
        const held = new HeldState().take([...first.frames.slice(0, at + 1), ...resumed.frames]);
        expect({ at, objections: held.objections }).toEqual({ at, objections: [] });
        expect(held.starts).toEqual(at === 0 ? ["resumed"] : ["anew", "resumed"]);
        expect(sorted(held.rows)).toEqual(sorted(whole.rows));
        expect(held.messages).toEqual(await messagesAfter(world, other.feed, first.frames, whole.version));
      }
      expect(until).toBeGreaterThan(15);
    });

    test("G7 G8 cut after every few frames while writers write, from replica to replica, also as it catches up", async () => {
      await using world = await harness.open({ pageEvents: 2 });
      await using here = await runFeed(world);
      await using there = await runFeed(world);
      const writer = await world.writer();
      await fillTables(writer);
      const other = await world.writer();
      for (const frames of [1, 2, 3, 7]) {
        const held = new HeldState();
        let start: StreamRequest["start"] = START;
        let complete = false;
        for (let call = 0; !complete; call++) {
          const { feed } = call % 2 === 0 ? here : there;
          const writing = call < 12 ? changeSome(other, call) : undefined;
          await using reader = new Reader(feed, { start, selectors: ALL, maxBatchBytes: 1 });
          // Opened, started, and so many that move it.
          await reader.until((r) => r.frames.length >= frames + 2 || r.frames.some(isComplete), "some frames");
          const end = reader.frames.findIndex(isComplete);
          const taken = reader.frames.slice(0, end < 0 ? frames + 2 : end + 1);
          held.take(taken);
          complete = end >= 0;
          start = resumeAfter(cursorOf(taken.at(-1)) ?? never());
          await writing;
        }
        await using last = new Reader(here.feed, { start, selectors: ALL });
        const whole = await stateNow(world, here.feed);
        await last.passes(whole.version);
        held.take(last.frames);
        expect(held.objections).toEqual([]);
        expect(new Set(held.starts)).toEqual(new Set(["anew", "resumed"]));
        expect(sorted(held.rows)).toEqual(sorted(whole.rows));
      }
    });

    test("G7 with keys selected, only theirs come, before and after a cut", async () => {
      await using world = await harness.open({ pageEvents: 3 });
      await using running = await runFeed(world);
      const writer = await world.writer();
      await fillTables(writer);
      const keys = ["a1", "c1", "d0", "p0", "p3"];
      const selectors = [select(["orders"], keys), select(["parcels.eu", "parcels.us"], keys)];
      await using first = new Reader(running.feed, { start: START, selectors, maxBatchBytes: 1 });
      await first.until((r) => r.frames.some(isComplete), "the end of its snapshot");
      await changeEverything(writer);
      const whole = await stateNow(world, running.feed);
      const wanted = [...whole.rows].filter(([place]) => keys.includes(place.split("/")[1] ?? ""));
      const until = first.frames.findIndex(isComplete);
      expect(first.frames[until]).toMatchObject({ rows: until - 2 });
      for (let at = 2; at < until; at++) {
        const start = resumeAfter(cursorOf(first.frames[at]) ?? never());
        await using resumed = new Reader(running.feed, { start, selectors });
        await resumed.passes(whole.version);
        const held = new HeldState().take([...first.frames.slice(0, at + 1), ...resumed.frames]);
        expect(held.objections).toEqual([]);
        expect(sorted(held.rows)).toEqual(wanted.sort());
      }
      expect(until).toBeGreaterThan(4);
    });

    test("G7 the same selectors in another order go on; others begin again, and say so", async () => {
      await using world = await harness.open({ pageEvents: 3 });
      await using running = await runFeed(world);
      await fillTables(await world.writer());
      const selectors = [select(["orders", "notes"], ["a1", "b2"]), select(["parcels.>"])];
      const cursor = await cursorInTheMiddle(running.feed, selectors);
      const started = async (changed: StreamRequest["selectors"]) => {
        await using reader = new Reader(running.feed, { start: resumeAfter(cursor), selectors: changed });
        await reader.until((r) => r.frames.some(isComplete), "the end of its snapshot");
        return reader.frames[1];
      };
      const reordered = [select(["parcels.>"]), select(["notes", "orders"], ["b2", "a1"])];
      expect(await started(reordered)).toMatchObject({ resumed: true, restart: false });
      for (const changed of [[], [select(["orders", "notes"], ["a1"]), select(["parcels.>"])], [select(["orders"])]]) {
        expect(await started(changed)).toMatchObject({ resumed: false, restart: true });
      }
    });

    test("G7 a source that was added or removed since makes it begin again, and say so", async () => {
      await using world = await harness.open({ pageEvents: 3 });
      await using running = await runFeed(world);
      const writer = await world.writer();
      await fillTables(writer);
      for (const watched of [true, false]) {
        const cursor = await cursorInTheMiddle(running.feed, []);
        await world.watchReturns(watched);
        await transact(writer, (w) => w.put("orders", "b1", 7));
        await using reader = new Reader(running.feed, { start: resumeAfter(cursor) });
        await reader.until((r) => r.frames.some(isComplete), "the end of its snapshot");
        expect(reader.frames[1]).toMatchObject({ resumed: false, restart: true });
        expect(reader.frames[1]).toMatchObject({
          topics: expect.toSatisfy((topics) => topics.length === (watched ? 3 : 2)),
        });
      }
    });

    test("G7 a filtered one, cut behind any row, ends with the rows that match, whatever entered and left", async () => {
      await using world = await harness.open({ pageEvents: 3 });
      await using running = await runFeed(world);
      const writer = await world.writer();
      await fillTables(writer);
      const selectors = [{ ...select(["orders", "parcels.*"]), filter: "row.n in [0, 5, 100, 300, 500]" }];
      await using first = new Reader(running.feed, { start: START, selectors, maxBatchBytes: 1 });
      await first.until((r) => r.frames.some(isComplete), "the end of its snapshot");
      await changeEverything(writer);
      const whole = await stateNow(world, running.feed);
      const expected = [...whole.rows].filter(([, row]) => [0, 5, 100, 300, 500].includes(JSON.parse(row).n));
      const seen = new Set<string>();
      for (const [at, frame] of first.frames.slice(0, first.frames.findIndex(isComplete) + 1).entries()) {
        const cursor = frame.kind === "opened" ? undefined : cursorOf(frame);
        if (cursor === undefined) {
          continue;
        }
        await using resumed = new Reader(running.feed, { start: resumeAfter(cursor), selectors });
        await resumed.passes(whole.version);
        const frames = [...first.frames.slice(0, at + 1), ...resumed.frames];
        expect(sorted(followed(frames)), `cut behind frame ${at}`).toEqual(expected.toSorted());
        for (const { transition } of resumed.events) {
          seen.add(transition ?? "");
        }
      }
      expect(seen).toEqual(new Set(["", "ENTERED", "LEFT"]));
    });

    if (harness.capabilities.has("snapshot_cut")) {
      test("G7 one that may not copy all at once goes on by itself, with each row counted once", async () => {
        await using world = await harness.open({ pageEvents: 2, cutSnapshots: true });
        await using running = await runFeed(world);
        const writer = await world.writer();
        await fillTables(writer);
        const other = await world.writer();
        await using reader = new Reader(running.feed, { start: START, selectors: ALL, maxBatchBytes: 1 });
        for (let round = 0; round < 20 && !reader.frames.some(isComplete); round++) {
          const seen = reader.frames.length;
          reader.standStill();
          await changeSome(other, round);
          reader.goOn();
          await reader.until((r) => r.frames.length > seen, "another frame");
        }
        await reader.until((r) => r.frames.some(isComplete), "the end of its snapshot");
        const whole = await stateNow(world, running.feed);
        await reader.passes(whole.version);
        const held = new HeldState().take(reader.frames);
        expect(held.objections).toEqual([]);
        expect(objections(reader.frames)).toEqual([]);
        expect(held.starts.length).toBeGreaterThan(2);
        expect(new Set(held.starts.slice(1))).toEqual(new Set(["resumed"]));
        expect(sorted(held.rows)).toEqual(sorted(whole.rows));
      });
    }

    if (harness.capabilities.has("retention")) {
      test("G7 when history in between is gone it begins again, and says so: no error", async () => {
        await using world = await harness.open({ pageEvents: 3 });
        await using running = await runFeed(world, { limits: { logMaxBytes: 1 } });
        const writer = await world.writer();
        await fillTables(writer);
        const cursor = await cursorInTheMiddle(running.feed, ALL);
        await changeEverything(writer);
        const whole = await stateNow(world, running.feed);
        await world.retainFrom(whole.version);
        await using reader = new Reader(running.feed, { start: resumeAfter(cursor), selectors: ALL });
        await reader.until((r) => r.frames.some(isComplete), "the end of its snapshot");
        const held = new HeldState().take(reader.frames);
        expect([held.objections, held.starts]).toEqual([[], ["restart"]]);
        expect(sorted(held.rows)).toEqual(sorted(whole.rows));
      });
    }

    if (harness.capabilities.has("restore")) {
      test("G7 G8 cut in an epoch that has ended since, it goes on in the next when that took its version over", async () => {
        await using world = await harness.open({ pageEvents: 3 });
        const frames: Frame[] = [];
        await fillTables(await world.writer());
        {
          await using running = await runFeed(world);
          await using reader = new Reader(running.feed, { start: START, selectors: ALL, maxBatchBytes: 1 });
          await reader.until((r) => r.events.length >= 4, "four rows");
          frames.push(...reader.frames.slice(0, 6));
        }
        await changeEverything(await world.writer());
        const backup = await world.backup();
        await backup.restore();
        await using running = await runFeed(world);
        const start = resumeAfter(cursorOf(frames.at(-1)) ?? never());
        await using resumed = new Reader(running.feed, { start, selectors: ALL });
        const whole = await stateNow(world, running.feed);
        await resumed.passes(whole.version);
        const held = new HeldState().take([...frames, ...resumed.frames]);
        expect([held.objections, held.starts]).toEqual([[], ["anew", "resumed"]]);
        expect(sorted(held.rows)).toEqual(sorted(whole.rows));
      });
    }
  });
}

const letters = ["a", "b", "c", "d"];

/** Twelve orders, eight parcels in two regions, and messages. */
async function fillTables(writer: Writer): Promise<void> {
  for (const letter of letters) {
    await transact(writer, async (w) => {
      for (const n of [0, 1, 2]) {
        await w.put("orders", `${letter}${n}`, n);
      }
      await w.emit("notes", undefined, 1);
    });
  }
  for (let n = 0; n < 8; n++) {
    await transact(writer, (w) => w.put(n % 2 === 0 ? "parcels.eu" : "parcels.us", `p${n}`, n));
  }
}

/** Deletes, updates, new keys before, between and behind the old ones, a TRUNCATE, moves between topics, messages. */
async function changeEverything(writer: Writer): Promise<void> {
  await transact(writer, async (w) => {
    await w.put("orders", "a1", 100);
    await w.put("orders", "c1", 100);
    await w.remove("orders", "a2");
    await w.emit("notes", "n", 2);
    await w.remove("orders", "d0");
  });
  await transact(writer, async (w) => {
    for (const key of ["a", "b1x", "c1", "d0", "zz"]) {
      await w.put("orders", key, 200);
    }
    await w.put("parcels.us", "p0", 300);
    await w.put("parcels.eu", "p3", 300);
    await w.put("parcels.us", "p6", 300);
    await w.remove("parcels.us", "p7");
  });
  await transact(writer, async (w) => {
    await w.truncate("parcels.{region}");
    await w.put("parcels.eu", "p2", 400);
    await w.put("parcels.us", "p9", 400);
  });
  await transact(writer, async (w) => {
    await w.emit("notes", "n", 3);
    await w.put("parcels.us", "p2", 500);
    await w.put("orders", "a1", 500);
    await w.put("orders", "b2", 500);
  });
}

async function changeSome(writer: Writer, round: number): Promise<void> {
  const letter = letters[round % letters.length] ?? "a";
  await transact(writer, async (w) => {
    await w.put("orders", `${letter}${round % 4}`, 1_000 + round);
    if (round % 3 === 0) {
      await w.remove("orders", `${letter}1`);
    }
    if (round % 7 === 6) {
      await w.truncate(round % 2 === 0 ? "orders" : "parcels.{region}");
    }
    await w.put(round % 2 === 0 ? "parcels.eu" : "parcels.us", `p${round % 9}`, 1_000 + round);
    await w.emit("notes", undefined, round);
  });
}

function isComplete(frame: Frame): boolean {
  return frame.kind === "snapshot_complete";
}

/** As a client gives it back: through its text. */
function cursorOf(frame: Frame | undefined): Cursor | undefined {
  return frame !== undefined && "cursor" in frame ? decodeCursor(encodeCursor(frame.cursor)) : undefined;
}

async function cursorInTheMiddle(feed: Parameters<typeof stateNow>[1], selectors: StreamRequest["selectors"]) {
  await using reader = new Reader(feed, { start: START, selectors, maxBatchBytes: 1 });
  await reader.until((r) => r.events.length >= 2, "two rows");
  return cursorOf(reader.frames.filter(({ kind }) => kind === "events")[1]) ?? never();
}

/** The tables as an uninterrupted stream has them once everything that is committed now is settled, and its version. */
async function stateNow(world: World, feed: ConstructorParameters<typeof Reader>[0]) {
  const xid = await transact(await world.writer(), (w) => w.emit("barrier", undefined, 0));
  const afterTransaction = `${world.store.epoch}:${xid}`;
  await using reader = new Reader(feed, { start: START, selectors: ALL, afterTransaction });
  await reader.until((r) => r.frames.some(isComplete), "the end of its snapshot");
  const { version } = await reader.opened();
  const held = new HeldState().take(reader.frames);
  expect(held.objections).toEqual([]);
  return { version, rows: held.rows };
}

/** Versions of the messages that an uninterrupted stream delivers after the snapshot that these frames begin with. */
async function messagesAfter(
  world: World,
  feed: ConstructorParameters<typeof Reader>[0],
  frames: readonly Frame[],
  until: number,
): Promise<number[]> {
  const [opened] = frames;
  const version = opened?.kind === "opened" ? opened.version : never();
  const start = { kind: "version", version, epoch: world.store.epoch } as const;
  await using reader = new Reader(feed, { start, selectors: [select(["notes"])] });
  await reader.passes(until);
  return reader.versions.filter((message) => message <= until);
}

/** What a client holds that does what docs/filters.md says: put, take away on DELETE and LEFT, empty on TRUNCATE. */
function followed(frames: readonly Frame[]): ReadonlyMap<string, string> {
  const rows = new Map<string, string>();
  for (const frame of frames) {
    if (frame.kind === "snapshot_started" && !frame.resumed) {
      rows.clear();
    }
    for (const { operation, transition, topic, key, after } of frame.kind === "events" ? frame.events : []) {
      const place = `${topic}/${key}`;
      if (operation === "TRUNCATE") {
        [...rows.keys()]
          .filter((held) => held.startsWith(topic.replace("{region}", "")))
          .map((held) => rows.delete(held));
      } else if (operation === "DELETE" || transition === "LEFT") {
        rows.delete(place);
      } else {
        rows.set(place, new TextDecoder().decode(after));
      }
    }
  }
  return rows;
}

function sorted(rows: ReadonlyMap<string, string>): [string, string][] {
  return [...rows].sort();
}

function never(): never {
  throw new Error("no such frame");
}
