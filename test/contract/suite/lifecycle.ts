import { describe, expect, test } from "vitest";
import { FeedError } from "../../../src/core/errors.ts";
import type { Publication } from "../../../src/core/ports.ts";
import { type ContractHarness, transact } from "../harness.ts";
import { objections } from "../judge.ts";
import { Reader, resumeAfter } from "../reader.ts";
import { runFeed } from "../running-feed.ts";
import { fill } from "./starts.ts";

/** Publishing, and the ends and interruptions of streams. */
export function lifecycleContract(harness: ContractHarness): void {
  describe("publish", () => {
    test("G1 answers the version of its last event, and the same again for the same key", async () => {
      await using world = await harness.open();
      await using running = await runFeed(world);
      await using reader = new Reader(running.feed);
      await reader.opened();
      const { signal } = new AbortController();
      const first = await running.feed.publish(publication([1, 2], "key"), signal);
      expect(first).toMatchObject({ duplicate: false, version: 2 });
      const again = await running.feed.publish(publication([1, 2], "key"), signal);
      expect(again).toEqual({ xid: first.xid, duplicate: true, version: 2 });
      await using restarted = await runFeed(world);
      expect(await restarted.feed.publish(publication([1, 2], "key"), signal)).toEqual(again);
      const other = running.feed.publish(publication([3], "key"), signal);
      await expect(other).rejects.toMatchObject({ code: "INVALID_REQUEST" });
      const third = await running.feed.publish(publication([3], ""), signal);
      expect(third).toMatchObject({ duplicate: false, version: 3 });
      await reader.gets(3);
      expect(reader.values).toEqual([1, 2, 3]);
      expect(reader.events[0]?.transaction).toBe(first.xid);
    });

    test("G2 a request that is refused appends nothing", async () => {
      await using world = await harness.open();
      await using running = await runFeed(world);
      const { signal } = new AbortController();
      const forbidden: Publication = {
        ...publication([1], ""),
        events: [...publication([1], "").events, { ...event(2), topic: "orders" }],
      };
      await expect(running.feed.publish(forbidden, signal)).rejects.toMatchObject({ code: "TOPIC_FORBIDDEN" });
      const malformed = { ...publication([1], ""), events: [event(1), { ...event(2), payload: "{" }] };
      const refused = running.feed.publish(malformed, signal);
      await expect(refused).rejects.toMatchObject({
        code: "INVALID_REQUEST",
        detail: { violations: [{ field: "events[1].payload.json" }] },
      });
      const { topic, payload, headers } = event(1);
      const keyless = { topic, payload, headers, key: undefined, operation: "UPDATE" as const };
      const nameless = running.feed.publish({ ...publication([1], ""), events: [event(1), keyless] }, signal);
      await expect(nameless).rejects.toMatchObject({
        code: "INVALID_REQUEST",
        detail: { violations: [{ field: "events[1].key" }] },
      });
      await running.feed.publish(publication([7], ""), signal);
      await using reader = new Reader(running.feed);
      await reader.passes(1);
      expect(reader.values).toEqual([7]);
    });
  });

  describe("life", () => {
    test("G8 draining says where to go on to open streams, and refuses new ones", async () => {
      await using world = await harness.open();
      await using running = await runFeed(world);
      await using next = await runFeed(world);
      await using reader = new Reader(running.feed);
      await fill(world, running.feed, 2);
      await reader.gets(2);
      await running.feed.drain(10_000);
      await reader.end();
      const closing = reader.frames.at(-1);
      expect(closing).toMatchObject({ kind: "closing", reason: "DRAINING", cursor: { version: 2 } });
      expect(reader.error).toBeUndefined();
      expect(running.feed.status()).toMatchObject({ state: "DRAINING", streams: 0 });
      await using refused = new Reader(running.feed);
      expect(await refused.end()).toMatchObject({ code: "DRAINING", detail: { retryAfterMs: expect.any(Number) } });
      await using resumed = new Reader(next.feed, {
        start: resumeAfter(closing?.kind === "closing" ? closing.cursor : never()),
      });
      await resumed.opened();
      await fill(world, next.feed, 1);
      await resumed.gets(1);
      expect(resumed.versions).toEqual([3]);
    });

    test("G8 a stream closes before its deadline", async () => {
      await using world = await harness.open();
      await using running = await runFeed(world);
      const deadlineMs = performance.now() + 300;
      await using reader = new Reader(running.feed, { deadlineMs });
      await reader.end();
      expect(reader.error).toBeUndefined();
      expect(reader.frames.at(-1)).toMatchObject({ kind: "closing", reason: "DEADLINE", retryAfterMs: 0 });
    });

    test("G9 streams over the limit are refused by name, and a place that is left can be taken", async () => {
      await using world = await harness.open();
      await using running = await runFeed(world, { limits: { maxStreams: 1 } });
      const first = new Reader(running.feed);
      await first.opened();
      await using second = new Reader(running.feed);
      const error = await second.end();
      expect(error).toBeInstanceOf(FeedError);
      expect(error).toMatchObject({ code: "LIMIT_EXCEEDED", detail: { retryAfterMs: expect.any(Number) } });
      expect((error as FeedError).message).toContain("maxStreams");
      await first[Symbol.asyncDispose]();
      await using third = new Reader(running.feed);
      await third.opened();
      expect(running.feed.status().streams).toBe(1);
    });

    if (harness.capabilities.has("outage")) {
      test("G10 streams live through an outage, are told of it, and lose nothing", async () => {
        await using world = await harness.open({ outage: true });
        await using running = await runFeed(world, { staleAfterMs: 100 });
        await using reader = new Reader(running.feed, { checkpointIntervalMs: 100 });
        await fill(world, running.feed, 2);
        await world.outage.begin();
        const stale = (r: Reader) => r.frames.some((frame) => frame.kind === "checkpoint" && frame.state === "STALE");
        await reader.until(stale, "a checkpoint that says STALE");
        const told = reader.frames.find((frame) => frame.kind === "checkpoint" && frame.state === "STALE");
        expect(told).toMatchObject({ lagVersions: undefined, lagMs: undefined });
        expect(running.feed.status()).toMatchObject({ state: "STALE", failure: { code: "DATABASE_UNAVAILABLE" } });
        await world.outage.end();
        const xid = await transact(await world.writer(), (w) => w.emit("notes", undefined, 3));
        await reader.gets(3);
        await reader.passes(3);
        expect(reader.versions).toEqual([1, 2, 3]);
        expect(reader.events[2]?.transaction).toBe(xid);
        expect(objections(reader.frames)).toEqual([]);
        expect(running.feed.status()).toMatchObject({ state: "LIVE", failure: undefined });
      });
    }
  });
}

function event(n: number): Publication["events"][number] {
  return {
    topic: "notes",
    key: "k",
    operation: "MESSAGE",
    payload: JSON.stringify({ n }),
    headers: { by: "contract" },
  };
}

function publication(values: readonly number[], idempotencyKey: string): Publication {
  return { events: values.map(event), idempotencyKey, principal: "" };
}

function never(): never {
  throw new Error("no such frame");
}
