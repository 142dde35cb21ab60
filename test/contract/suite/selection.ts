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

    test("G1 a filter on rows tells what comes into its set and goes out of it, with the columns asked for", async () => {
      await using world = await harness.open();
      await using running = await runFeed(world);
      const writer = await world.writer();
      await transact(writer, async (w) => {
        for (const n of [1, 2_000_000_000, 2, 5, 6]) {
          await w.put("orders", "1", n);
        }
        await w.remove("orders", "1");
        await w.emit("orders.own", "1", 5);
      });
      const selectors = [{ ...select([]), filter: "row.n >= 5", fields: ["n", "nothing"] }];
      await using reader = new Reader(running.feed, { selectors });
      await reader.passes(7);
      const decoder = new TextDecoder();
      const shown = reader.events.map(({ version, operation, transition, before, after }) => [
        version,
        operation,
        transition,
        ...[before, after].map((image) => image && JSON.parse(decoder.decode(image))),
      ]);
      expect(shown).toEqual([
        [2, "UPDATE", "ENTERED", { n: 1 }, { n: 2_000_000_000 }],
        [3, "UPDATE", "LEFT", undefined, undefined],
        [4, "UPDATE", "ENTERED", { n: 2 }, { n: 5 }],
        [5, "UPDATE", undefined, { n: 5 }, { n: 6 }],
        [6, "DELETE", undefined, { n: 6 }, undefined],
        [7, "MESSAGE", undefined, undefined, { n: 5 }],
      ]);
    });

    test("a wrong filter is refused with its place", async () => {
      await using world = await harness.open();
      await using running = await runFeed(world);
      await using reader = new Reader(running.feed, { selectors: [{ ...select([]), filter: "row.n >\n rwo.n" }] });
      await reader.until((r) => r.ended, "its end");
      expect(reader.error).toMatchObject({
        code: "FILTER_INVALID",
        detail: { filter: { selector: 0, line: 2, column: 2 } },
      });
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
