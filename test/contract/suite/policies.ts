import { describe, expect, test } from "vitest";
import { decodeCursor } from "../../../src/core/cursor.ts";
import { FeedError } from "../../../src/core/errors.ts";
import type { Event } from "../../../src/core/event.ts";
import type { Feed } from "../../../src/core/feed.ts";
import type { Frame } from "../../../src/core/frame.ts";
import type { Tick } from "../../../src/core/page.ts";
import type { Policy, PolicyKind } from "../../../src/core/policy/policy.ts";
import { type Asked, objectionsTo } from "../../support/policy-judge.ts";
import { type ContractHarness, transact, type World } from "../harness.ts";
import { payloadValue, Reader, resumeAfter } from "../reader.ts";
import { runFeed } from "../running-feed.ts";

const LOSSY = ["DROP_OLDEST", "DROP_NEWEST", "LATEST", "SAMPLE"] as const;
const KEYS = ["1", "2", "3", "4", "5"];

/** What streams do that cannot keep up, each by its policy, judged by the plain meaning of that. */
export function policyContract(harness: ContractHarness): void {
  describe("policies", () => {
    for (const kind of LOSSY) {
      test(`G5 G8 G10 a slow reader of ${kind} is told of all that it does not get, wherever it is cut`, async () => {
        await using world = await harness.open({ pageEvents: 50 });
        await using running = await runFeed(world, { limits: { logMaxBytes: 20_000 } });
        const { feed } = running;
        await using witness = new Reader(feed, { checkpointEveryTick: true });
        const policy = policyOf(kind, 30);
        const terms = { policy, maxBatchEvents: 7 };
        await using slow = new Reader(feed, terms);
        await Promise.all([witness.opened(), slow.opened()]);
        await change(world, feed, 5);
        await slow.gets(1);
        slow.standStill();
        for (let n = 0; n < 5; n++) {
          await change(world, feed, 8);
        }
        slow.goOn();
        await slow.passes(await change(world, feed, 2));
        const frames = slow.frames.slice();
        await witness.passes(feed.status().head);
        const history = historyOf(witness.frames);
        const asked = { start: 0, wanted: ["orders", "notes"], policy, everyTick: false, maxBatchEvents: 7 };
        expect(judge(frames, history, asked)).toEqual([]);
        expect(frames.some((frame) => frame.kind === "gap")).toBe(true);
        for (const at of cutsOf(frames)) {
          const cut = frames.slice(0, at + 1);
          const cursor = cut.at(-1)?.cursor ?? never();
          await using resumed = new Reader(feed, { ...terms, start: resumeAfter(cursor) });
          await resumed.passes(feed.status().head);
          expect(judge([...cut, ...resumed.frames], history, asked)).toEqual([]);
        }
      });
    }

    test("G10 LATEST ends with the newest of every key, as the table has it", async () => {
      await using world = await harness.open({ pageEvents: 50 });
      await using running = await runFeed(world, { limits: { logMaxBytes: 20_000 } });
      await using slow = new Reader(running.feed, { policy: policyOf("LATEST", 10) });
      await using witness = new Reader(running.feed);
      await slow.opened();
      slow.standStill();
      const head = await change(world, running.feed, 60);
      slow.goOn();
      await Promise.all([slow.passes(head), witness.passes(head)]);
      expect(slow.events.length).toBeLessThan(witness.events.length / 2);
      expect(newest(slow.events)).toEqual(newest(witness.events));
    });

    test("G9 G10 BLOCK loses nothing, however slow its reader and however small the log", async () => {
      await using world = await harness.open({ pageEvents: 50 });
      await using running = await runFeed(world, { limits: { logMaxBytes: 1_000 } });
      await using slow = new Reader(running.feed, { maxBatchEvents: 7 });
      await slow.opened();
      slow.standStill();
      const head = await change(world, running.feed, 40);
      slow.goOn();
      await slow.passes(head);
      expect(slow.versions).toEqual(Array.from({ length: head }, (_, i) => i + 1));
    });

    test("G8 G9 DISCONNECT ends a reader that takes nothing, beside one that does, and it goes on where it was", async () => {
      await using world = await harness.open();
      await using running = await runFeed(world);
      const { feed } = running;
      const policy = policyOf("DISCONNECT", 30);
      await using slow = new Reader(feed, { policy });
      await using fast = new Reader(feed, { policy });
      await Promise.all([slow.opened(), fast.opened()]);
      await change(world, feed, 1);
      await slow.gets(1);
      slow.standStill();
      const head = await change(world, feed, 40);
      await fast.passes(head);
      await fast.until(() => feed.status().streams === 1, "the end of the other");
      slow.goOn();
      const error = await slow.end();
      expect(error).toMatchObject({ code: "SLOW_CONSUMER" });
      const cursor = decodeCursor((error instanceof FeedError && error.detail.cursor) || never());
      await using resumed = new Reader(feed, { policy, start: resumeAfter(cursor) });
      await resumed.passes(head);
      expect([...slow.versions, ...resumed.versions]).toEqual(fast.versions);
    });

    test("G10 a rate holds a stream back, and its policy acts on the lag", async () => {
      await using world = await harness.open();
      await using running = await runFeed(world);
      const policy = policyOf("DROP_OLDEST", 20);
      await using reader = new Reader(running.feed, { policy, maxEventsPerSecond: 20 });
      await reader.opened();
      let head = 0;
      for (let n = 0; n < 10; n++) {
        head = await change(world, running.feed, 6);
      }
      await reader.passes(head);
      const gaps = reader.frames.flatMap((frame) => (frame.kind === "gap" ? [frame.dropped ?? Number.NaN] : []));
      expect(gaps.length).toBeGreaterThan(0);
      expect(reader.events.length + gaps.reduce((sum, dropped) => sum + dropped, 0)).toBe(head);
    });

    test("G5 a stream that asks for it gets a checkpoint at the end of every tick, live and from the table", async () => {
      await using world = await harness.open({ pageEvents: 7 });
      await using running = await runFeed(world, { limits: { logMaxBytes: 2_000 } });
      await using live = new Reader(running.feed, { checkpointEveryTick: true });
      await live.opened();
      const head = await change(world, running.feed, 20);
      await live.passes(head);
      await using late = new Reader(running.feed, { checkpointEveryTick: true });
      await late.passes(head);
      const told = (reader: Reader) =>
        new Set(reader.frames.flatMap((frame) => (frame.kind === "checkpoint" ? [frame.version] : [])));
      const untold = [...told(live)].filter((version) => version > 0 && !told(late).has(version));
      expect(untold).toEqual([]);
      expect(late.versions).toEqual(live.versions);
      const ends = live.frames.flatMap((frame) => (frame.kind === "events" ? [frame.complete] : []));
      expect(ends.length).toBeGreaterThan(5);
    });

    test("G8 a stream that has reached its age says closing, also one that is idle, and goes on elsewhere", async () => {
      await using world = await harness.open();
      await using running = await runFeed(world, { maxStreamAgeMs: 300 });
      await using other = await runFeed(world);
      const head = await change(world, running.feed, 3);
      await using reader = new Reader(running.feed);
      expect(await reader.end()).toBeUndefined();
      const closing = reader.frames.at(-1);
      expect(closing).toMatchObject({ kind: "closing", reason: "MAX_AGE", cursor: { version: head } });
      await using resumed = new Reader(other.feed, { start: resumeAfter(closing?.cursor ?? never()) });
      expect((await resumed.opened()).version).toBe(head);
    });
  });
}

function policyOf(kind: PolicyKind, maxLagEvents: number): Policy {
  return { kind, maxLagEvents, sampleEvery: 3 };
}

/** So many transactions, small and large, over few keys; answers the head that they lead to. */
async function change(world: World, feed: Feed, transactions: number): Promise<number> {
  const writer = await world.writer();
  for (let n = 0; n < transactions; n++) {
    await transact(writer, async (w) => {
      const size = n % 9 === 8 ? 40 : 1 + (n % 4);
      for (let i = 0; i < size; i++) {
        await w.put("orders", KEYS[(n + i) % KEYS.length] ?? "1", n);
      }
      if (n % 13 === 12) {
        await w.truncate("orders");
      }
      await w.emit("notes", undefined, n);
    });
  }
  const event = { topic: "notes", key: undefined, operation: "MESSAGE" as const, payload: '{"n":0}', headers: {} };
  const request = { events: [event], idempotencyKey: "", principal: "" };
  const { version } = await feed.publish(request, new AbortController().signal);
  return version ?? never();
}

/** What happened, and how it was cut into ticks, as a stream tells that asks for every boundary. */
function historyOf(frames: readonly Frame[]): { readonly events: Event[]; readonly ticks: Tick[] } {
  const events = frames.flatMap((frame) => (frame.kind === "events" ? frame.events : []));
  const ends = frames.flatMap((frame) => (frame.kind === "checkpoint" && frame.version > 0 ? [frame.version] : []));
  const ticks: Tick[] = [];
  for (const end of new Set(ends)) {
    const before = ticks.at(-1);
    const firstVersion = before === undefined ? 1 : before.firstVersion + before.count;
    ticks.push({ tick: ticks.length + 1, firstVersion, count: end - firstVersion + 1, timeMicros: 0, fingerprint: 0 });
  }
  return { events, ticks };
}

function judge(frames: readonly Frame[], history: ReturnType<typeof historyOf>, asked: Asked): string[] {
  return objectionsTo(
    frames.map((frame) => ({ frame })),
    history,
    asked,
  );
}

/** Around every gap, and a few more. */
function cutsOf(frames: readonly Frame[]): readonly number[] {
  const gaps = frames.flatMap((frame, i) => (frame.kind === "gap" ? [i - 1, i, i + 1] : []));
  const others = frames.flatMap((_, i) => (i % 7 === 3 ? [i] : []));
  const all = new Set([...gaps, ...others].filter((i) => i >= 0 && i < frames.length));
  return [...all].sort((a, b) => a - b).slice(0, 15);
}

function newest(events: readonly Event[]): Record<string, unknown> {
  const byKey: Record<string, unknown> = {};
  for (const event of events) {
    if (event.operation === "TRUNCATE") {
      for (const key of KEYS) {
        delete byKey[key];
      }
    } else if (event.key !== undefined) {
      byKey[event.key] = payloadValue(event);
    }
  }
  return byKey;
}

function never(): never {
  throw new Error("no such thing");
}
