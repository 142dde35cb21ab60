import { describe, expect, it } from "vitest";
import type { Feed } from "../../../src/core/feed.ts";
import type { Frame } from "../../../src/core/frame.ts";
import { type ContractHarness, transact } from "../harness.ts";
import { HeldState } from "../held-state.ts";
import { Reader, resumeAfter, select } from "../reader.ts";
import { runFeed } from "../running-feed.ts";

const signal = new AbortController().signal;
const is =
  (kind: Frame["kind"]) =>
  (frame: Frame): boolean =>
    frame.kind === kind;

async function streamIdOf(reader: Reader): Promise<string> {
  await reader.until(() => reader.frames.length > 0, "opened");
  const [opened] = reader.frames;
  return opened?.kind === "opened" ? opened.streamId : "";
}

/** Code and detail of what an update is refused with. */
async function refusal(feed: Feed, streamId: string, options: object = {}): Promise<unknown> {
  return await feed.update({ streamId, selectors: [], ...options }, signal).then(
    () => "accepted",
    (error: unknown) => error,
  );
}

/** Other selectors for an open stream, asked for on any replica. */
export function streamUpdateContract(harness: ContractHarness): void {
  describe("changes of selectors", () => {
    it("G1 G7 reach the stream on whichever replica it is, and add what was not selected, once", async () => {
      await using world = await harness.open();
      await using mine = await runFeed(world);
      await using other = await runFeed(world);
      const writer = await world.writer();
      await transact(writer, async (w) => {
        await w.put("orders", "o1", 1);
        await w.put("parcels.eu", "p1", 1);
        await w.put("parcels.us", "p2", 1);
      });
      const selectors = [select(["orders"])];
      // No checkpoint wakes it: what it waits for must.
      await using reader = new Reader(mine.feed, {
        start: { kind: "snapshot" },
        selectors,
        checkpointIntervalMs: 60_000,
      });
      await reader.until(() => reader.frames.some(is("snapshot_complete")), "the snapshot");
      const streamId = await streamIdOf(reader);
      const wider = [select(["orders"]), select(["parcels.eu"])];
      expect(await other.feed.update({ streamId, selectors: wider }, signal)).toBe(1);
      await reader.until(() => reader.frames.filter(is("snapshot_complete")).length === 2, "added rows");
      await transact(writer, async (w) => {
        await w.put("parcels.eu", "p1", 2);
        await w.put("parcels.us", "p2", 2);
        await w.put("orders", "o1", 2);
      });
      await reader.until(() => reader.events.length === 4, "events");
      const changed = reader.frames.find(is("selectors_changed"));
      expect(changed).toMatchObject({ version: 3, number: 1, addsRows: true });
      expect(reader.events.map(({ version, operation, key }) => [version, operation, key])).toEqual([
        [3, "SNAPSHOT", "o1"],
        [3, "SNAPSHOT", "p1"],
        [4, "UPDATE", "p1"],
        [6, "UPDATE", "o1"],
      ]);
      expect(await mine.feed.update({ streamId, selectors: [select(["parcels.us"])] }, signal)).toBe(2);
      await reader.until(() => reader.frames.filter(is("snapshot_complete")).length === 3, "rows added again");
      expect(reader.events.slice(4)).toMatchObject([{ version: 6, operation: "SNAPSHOT", key: "p2" }]);
      expect(reader.error).toBeUndefined();
    });

    it("G7 G8 are gone on with from every frame, on another replica", async () => {
      await using world = await harness.open();
      await using mine = await runFeed(world);
      await using other = await runFeed(world);
      const writer = await world.writer();
      await transact(writer, async (w) => {
        await w.put("orders", "o1", 1);
        await w.put("parcels.eu", "p1", 1);
        await w.put("parcels.eu", "p2", 1);
      });
      const [before, after] = [[select(["orders"])], [select(["orders"]), select(["parcels.*"])]];
      await using reader = new Reader(mine.feed, { start: { kind: "snapshot" }, selectors: before, maxBatchEvents: 1 });
      await reader.until(() => reader.frames.some(is("snapshot_complete")), "the snapshot");
      await other.feed.update({ streamId: await streamIdOf(reader), selectors: after }, signal);
      await reader.until(() => reader.frames.filter(is("snapshot_complete")).length === 2, "added rows");
      await transact(writer, (w) => w.put("parcels.eu", "p2", 2));
      await reader.until(() => reader.events.some(({ version }) => version === 4), "an event");
      const changedAt = reader.frames.findIndex(is("selectors_changed"));
      for (let at = changedAt; at < reader.frames.length; at++) {
        const seen = reader.frames.slice(0, at + 1);
        const cursor = seen.at(-1)?.cursor;
        if (cursor === undefined) continue;
        await using resumed = new Reader(other.feed, { start: resumeAfter(cursor), selectors: after });
        const whole = () => [...seen, ...resumed.frames.slice(1)];
        await resumed.until(
          () => new HeldState().take(whole()).rows.get("parcels.eu/p2")?.includes("2") === true,
          "the rest",
        );
        const held = new HeldState().take(whole());
        expect([...held.rows.keys()].sort(), `after frame ${at}`).toEqual([
          "orders/o1",
          "parcels.eu/p1",
          "parcels.eu/p2",
        ]);
        expect(held.objections, `after frame ${at}`).toEqual([]);
      }
    });

    it("are refused by the stream's replica as by one's own, and leave it as it is", async () => {
      await using world = await harness.open();
      await using mine = await runFeed(world);
      await using other = await runFeed(world);
      await using reader = new Reader(mine.feed, { selectors: [select(["orders"])], principal: "ann" });
      const streamId = await streamIdOf(reader);
      const ended = new Reader(mine.feed);
      const endedId = await streamIdOf(ended);
      await ended[Symbol.asyncDispose]();
      for (const { feed } of [mine, other]) {
        expect(await refusal(feed, streamId)).toMatchObject({ code: "STREAM_NOT_FOUND" });
        expect(await refusal(feed, streamId, { principal: "bob" })).toMatchObject({ code: "STREAM_NOT_FOUND" });
        expect(await refusal(feed, endedId)).toMatchObject({ code: "STREAM_NOT_FOUND" });
        expect(await refusal(feed, "A".repeat(34))).toMatchObject({ code: "STREAM_NOT_FOUND" });
        const selectors = [{ ...select(["orders"]), filter: "row." }];
        expect(await refusal(feed, streamId, { principal: "ann", selectors })).toMatchObject({
          code: "FILTER_INVALID",
          detail: { filter: { selector: 0, line: 1 } },
        });
      }
      const writer = await world.writer();
      await transact(writer, async (w) => {
        await w.put("parcels.eu", "p1", 1);
        await w.put("orders", "o1", 1);
      });
      await reader.until(() => reader.events.length > 0, "an event");
      expect(reader.frames.some(is("selectors_changed"))).toBe(false);
      expect(reader.versions).toEqual([2]);
      expect(await refusal(other.feed, streamId, { principal: "ann", selectors: [select(["parcels.eu"])] })).toBe(
        "accepted",
      );
      await reader.until(() => reader.frames.some(is("selectors_changed")), "the change");
    });
  });
}
