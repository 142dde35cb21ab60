import { describe, expect, test } from "vitest";
import { FeedError } from "../../../src/core/errors.ts";
import { type ContractHarness, transact } from "../harness.ts";
import { objections } from "../judge.ts";
import { Reader, select } from "../reader.ts";
import { runFeed } from "../running-feed.ts";

/** Who gets what. */
export function selectionContract(harness: ContractHarness): void {
  describe("selection", () => {
    test("G1 topics, keys and operations each let through exactly their own, and a union each event once", async () => {
      await using world = await harness.open();
      await using running = await runFeed(world);
      const writer = await world.writer();
      const xid = await transact(writer, async (w) => {
        await w.put("orders", "1", 10);
        await w.put("parcels.eu", "2", 20);
        await w.put("parcels.us", "3", 30);
        await w.emit("notes.deep.down", "1", 40);
        await w.put("orders", "1", 50);
        await w.remove("parcels.us", "3");
      });
      const wanted: [Parameters<typeof select>[], number[]][] = [
        [[], [1, 2, 3, 4, 5, 6]],
        [[[["orders"]]], [1, 5]],
        [[[["parcels.*"]]], [2, 3, 6]],
        [[[["notes.>"]]], [4]],
        [[[["*"]]], [1, 5]],
        [[[[">"], ["1"]]], [1, 4, 5]],
        [[[["parcels.>"], [], ["DELETE"]]], [6]],
        [
          [
            [["orders"], ["1"]],
            [[], ["1"], ["MESSAGE", "UPDATE"]],
          ],
          [1, 4, 5],
        ],
      ];
      for (const [selectors, versions] of wanted) {
        await using reader = new Reader(running.feed, { selectors: selectors.map((s) => select(...s)) });
        await reader.passes(6);
        expect(reader.versions, JSON.stringify(selectors)).toEqual(versions);
        expect(objections(reader.frames, new Map([[xid, versions.length]]))).toEqual([]);
      }
    });

    test("G1 a TRUNCATE of a template reaches every selector of its source, whatever the keys", async () => {
      await using world = await harness.open();
      await using running = await runFeed(world);
      const writer = await world.writer();
      await transact(writer, (w) => w.put("parcels.eu", "1", 1));
      await transact(writer, (w) => w.truncate("parcels.{region}"));
      await using eu = new Reader(running.feed, { selectors: [select(["parcels.eu"], ["9"])] });
      await using orders = new Reader(running.feed, { selectors: [select(["orders", "parcels.*.deep"])] });
      await Promise.all([eu.passes(2), orders.passes(2)]);
      expect(eu.events.map((event) => event.operation)).toEqual(["TRUNCATE"]);
      expect(orders.events).toEqual([]);
    });

    test("a wrong pattern is refused with its place", async () => {
      await using world = await harness.open();
      await using running = await runFeed(world);
      await using reader = new Reader(running.feed, { selectors: [select(["orders"]), select(["orders", "a..b"])] });
      const error = await reader.end();
      expect(error).toBeInstanceOf(FeedError);
      expect(error).toMatchObject({ code: "INVALID_REQUEST" });
      expect((error as FeedError).detail.violations?.[0]?.field).toBe("selectors[1].topics[1]");
    });
  });
}
