import { describe, expect, test } from "vitest";
import { type ContractHarness, transact, type Writer } from "../harness.ts";
import { objections } from "../judge.ts";
import { Reader } from "../reader.ts";
import { runFeed } from "../running-feed.ts";

/** What becomes an event, and in which order. */
export function orderContract(harness: ContractHarness): void {
  describe("order", () => {
    test("G1 G3 a transaction that wrote first and commits last is delivered, after what was settled before it", async () => {
      await using world = await harness.open();
      await using running = await runFeed(world);
      await using reader = new Reader(running.feed);
      await reader.opened();
      const [early, late] = [await world.writer(), await world.writer()];
      await early.begin();
      await early.emit("notes", "a", 1);
      await transact(late, (writer) => writer.emit("notes", "b", 2));
      await reader.gets(1);
      await early.emit("notes", "a", 3);
      await early.commit();
      await reader.gets(3);
      expect(reader.values).toEqual([2, 1, 3]);
      expect(reader.versions).toEqual([1, 2, 3]);
    });

    test("G1 an early xid that writes late is not lost", async () => {
      await using world = await harness.open();
      await using running = await runFeed(world);
      await using reader = new Reader(running.feed);
      await reader.opened();
      const [early, late] = [await world.writer(), await world.writer()];
      await early.begin();
      await early.xid();
      for (let n = 1; n <= 3; n++) {
        await transact(late, (writer) => writer.emit("notes", undefined, n));
        await reader.gets(n);
      }
      await early.emit("notes", undefined, 4);
      await early.commit();
      await reader.gets(4);
      expect(reader.values).toEqual([1, 2, 3, 4]);
    });

    test("G2 what is rolled back never appears and leaves no hole", async () => {
      await using world = await harness.open();
      await using running = await runFeed(world);
      await using reader = new Reader(running.feed);
      await reader.opened();
      const writer = await world.writer();
      for (let n = 0; n < 6; n++) {
        await writer.begin();
        await writer.emit("notes", "a", n);
        await writer.put("orders", `o${n}`, n);
        await (n % 2 === 0 ? writer.commit() : writer.rollback());
      }
      await reader.gets(6);
      expect(reader.values).toEqual([0, 0, 2, 2, 4, 4]);
      expect(reader.versions).toEqual([1, 2, 3, 4, 5, 6]);
    });

    if (harness.capabilities.has("two_phase")) {
      test("G1 G2 a prepared transaction appears when it is committed, and not before", async () => {
        await using world = await harness.open();
        await using running = await runFeed(world);
        await using reader = new Reader(running.feed);
        await reader.opened();
        const [two, other] = [await world.writer(), await world.writer()];
        await two.begin();
        await two.emit("notes", "p", 1);
        await two.prepare("contract-1");
        await transact(other, (writer) => writer.emit("notes", "q", 2));
        await reader.gets(1);
        expect(reader.values).toEqual([2]);
        await world.commitPrepared("contract-1");
        await reader.gets(2);
        expect(reader.values).toEqual([2, 1]);
      });
    }

    test("G4 a row's images arrive in the order in which its writers held it", async () => {
      await using world = await harness.open();
      await using running = await runFeed(world);
      await using reader = new Reader(running.feed);
      await reader.opened();
      const [first, second] = [await world.writer(), await world.writer()];
      await first.begin();
      await second.begin();
      await second.xid();
      await first.put("orders", "hot", 1);
      const waiting = second.put("orders", "hot", 2);
      await first.put("orders", "hot", 3);
      await first.commit();
      await waiting;
      await second.commit();
      await transact(first, (writer) => writer.remove("orders", "hot"));
      await reader.gets(4);
      expect(reader.values).toEqual([1, 3, 2, 2]);
      expect(reader.events.map((event) => event.operation)).toEqual(["INSERT", "UPDATE", "UPDATE", "DELETE"]);
    });

    test("G3 G6 two replicas, live and replaying in pages of one event, tell the same history", async () => {
      await using world = await harness.open({ pageEvents: 1 });
      await using one = await runFeed(world);
      await using two = await runFeed(world, { limits: { logMaxBytes: 1 } });
      await using live = new Reader(one.feed);
      await using other = new Reader(two.feed);
      await Promise.all([live.opened(), other.opened()]);
      const counts = await interleave(await Promise.all([world.writer(), world.writer(), world.writer()]), 20);
      const total = [...counts.values()].reduce((sum, count) => sum + count, 0);
      await Promise.all([live.gets(total), other.gets(total)]);
      await using replay = new Reader(two.feed);
      await replay.gets(total);
      await Promise.all([live, other, replay].map((reader) => reader.passes(total)));
      const identity = (reader: Reader) => reader.events.map((e) => [e.version, e.transaction, e.key, e.operation]);
      expect(identity(other)).toEqual(identity(live));
      expect(identity(replay)).toEqual(identity(live));
      expect(live.versions).toEqual(Array.from({ length: total }, (_, i) => i + 1));
      for (const reader of [live, other, replay]) {
        expect(objections(reader.frames, counts)).toEqual([]);
      }
    });
  });
}

/** Transactions of several writers, open at the same time and ended in another order; answers events per committed one. */
export async function interleave(writers: readonly Writer[], rounds: number): Promise<Map<string, number>> {
  const counts = new Map<string, number>();
  for (let round = 0; round < rounds; round++) {
    const xids: string[] = [];
    for (const writer of writers) {
      await writer.begin();
      xids.push(await writer.xid());
    }
    const sizes = writers.map((_, i) => 1 + ((round + i) % 3));
    for (let step = 0; step < 3; step++) {
      for (const [i, writer] of writers.entries()) {
        if (step < (sizes[i] ?? 0)) {
          await writer.emit(`notes.w${i}`, `k${round}`, round * 100 + step);
        }
      }
    }
    for (let turn = 0; turn < writers.length; turn++) {
      const i = (turn + round) % writers.length;
      if ((round + i) % 5 === 0) {
        await writers[i]?.rollback();
      } else {
        await writers[i]?.commit();
        counts.set(xids[i] ?? "", sizes[i] ?? 0);
      }
    }
  }
  return counts;
}
