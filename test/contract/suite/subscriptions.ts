import { describe, expect, test } from "vitest";
import { encodeCursor } from "../../../src/core/cursor.ts";
import type { Start } from "../../../src/core/feed.ts";
import { type ContractHarness, transact, type World } from "../harness.ts";
import { Reader } from "../reader.ts";
import { type RunningSubscriptions, runSubscriptions } from "../running-feed.ts";

const signal = new AbortController().signal;

/** Subscriptions that several replicas share. */
export function subscriptionContract(harness: ContractHarness): void {
  describe("subscriptions", () => {
    test("G8 a subscription goes on after its acknowledgement on another replica, and says what has come before", async () => {
      await using world = await harness.open();
      await using here = await runSubscriptions(world);
      await using there = await runSubscriptions(world);
      await subscribe(here);
      await fill(world, 5);
      const first = new Reader(here.consumer("s"));
      await first.gets(5);
      // Acknowledged elsewhere, and only then said to be.
      await acknowledge(there, cursorAt(first, 3), generationOf(first));
      expect((await here.subscriptions.get("s", signal)).position.version).toBe(3);
      await first[Symbol.asyncDispose]();
      await fill(world, 2);
      await using second = new Reader(there.consumer("s"));
      await second.gets(4);
      expect(second.versions).toEqual([4, 5, 6, 7]);
      // What the other replica delivered it has told, as its stream ended, if the database was not slower than this.
      const attempts = second.events.map(({ attempt }) => attempt);
      expect([undefined, 2]).toContain(attempts[0]);
      expect(attempts.slice(2)).toEqual([undefined, undefined]);
    });

    test("a newer stream takes a subscription over from another replica, whose word counts no more", async () => {
      await using world = await harness.open();
      await using here = await runSubscriptions(world);
      await using there = await runSubscriptions(world);
      await subscribe(here);
      await fill(world, 2);
      await using old = new Reader(here.consumer("s"));
      await old.gets(2);
      await using young = new Reader(there.consumer("s"));
      await young.gets(2);
      expect(await old.end()).toBeUndefined();
      expect(old.frames.at(-1)).toMatchObject({ kind: "closing", reason: "TAKEN_OVER" });
      const late = acknowledge(here, cursorAt(old, 2), generationOf(old));
      await expect(late).rejects.toMatchObject({ code: "SUBSCRIPTION_FENCED" });
      expect((await there.subscriptions.get("s", signal)).position.version).toBe(0);
      await acknowledge(here, cursorAt(young, 2), generationOf(young));
      expect((await there.subscriptions.get("s", signal)).position.version).toBe(2);
    });

    test("whoever pauses, moves or deletes a subscription ends its stream on every replica, with the reason", async () => {
      await using world = await harness.open();
      await using here = await runSubscriptions(world);
      await using there = await runSubscriptions(world);
      await subscribe(here);
      await fill(world, 1);
      const outcomes = [
        ["PAUSED", () => there.subscriptions.pause("s", true, signal)],
        ["MOVED", () => there.subscriptions.seek("s", { kind: "oldest" }, signal)],
        ["DELETED", () => there.subscriptions.delete("s", signal)],
      ] as const;
      for (const [reason, act] of outcomes) {
        await using reader = new Reader(here.consumer("s"));
        await reader.gets(1);
        await act();
        expect(await reader.end()).toBeUndefined();
        expect(reader.frames.at(-1)).toMatchObject({ kind: "closing", reason });
        await there.subscriptions.pause("s", false, signal).catch(() => undefined);
      }
      await using gone = new Reader(here.consumer("s"));
      expect(await gone.end()).toMatchObject({ code: "SUBSCRIPTION_NOT_FOUND" });
    });

    test("G1 consumers that come, fall and take over in turn get every event, and after the last acknowledgement none", async () => {
      await using world = await harness.open();
      await using here = await runSubscriptions(world);
      await using there = await runSubscriptions(world);
      await subscribe(here);
      const seen = new Set<number>();
      let acknowledged = 0;
      for (let round = 0; round < 8; round++) {
        await fill(world, 3);
        await using reader = new Reader((round % 2 === 0 ? here : there).consumer("s"));
        await reader.until(({ versions }) => versions.includes(3 * (round + 1)), "the newest event");
        expect(reader.versions[0]).toBe(acknowledged + 1);
        for (const version of reader.versions) seen.add(version);
        if (round % 3 === 1) {
          acknowledged = 3 * round;
          await acknowledge(round % 2 === 0 ? there : here, cursorAt(reader, acknowledged), generationOf(reader));
        }
      }
      expect([...seen].sort((a, b) => a - b)).toEqual(Array.from({ length: 24 }, (_, index) => index + 1));
    });

    if (harness.capabilities.has("restore")) {
      test("G8 a subscription goes on below the fork of another epoch, and is told when it is asked to pass it", async () => {
        await using world = await harness.open();
        const before = await runSubscriptions(world);
        await subscribe(before);
        await fill(world, 3);
        const first = new Reader(before.consumer("s"));
        await first.gets(3);
        await acknowledge(before, cursorAt(first, 2), generationOf(first));
        await first[Symbol.asyncDispose]();
        await before[Symbol.asyncDispose]();
        const backup = await world.backup();
        const lost = await runSubscriptions(world);
        await fill(world, 2);
        const second = new Reader(lost.consumer("s"));
        await second.gets(3);
        expect(second.versions).toEqual([3, 4, 5]);
        const beyond = cursorAt(second, 5);
        await second[Symbol.asyncDispose]();
        await lost[Symbol.asyncDispose]();
        await backup.restore();

        await using after = await runSubscriptions(world);
        await fill(world, 1);
        const refused = acknowledge(after, beyond, 0);
        await expect(refused).rejects.toMatchObject({ code: "EPOCH_CHANGED", detail: { forkVersion: 3 } });
        await using third = new Reader(after.consumer("s"));
        await third.gets(2);
        expect(third.versions).toEqual([3, 4]);
        await acknowledge(after, cursorAt(third, 4), generationOf(third));
        const { position } = await after.subscriptions.get("s", signal);
        expect(position).toMatchObject({ version: 4, epoch: world.store.epoch });
      });
    }

    test("G7 a subscription that begins with a snapshot has its rows once, and then what follows", async () => {
      await using world = await harness.open();
      await using here = await runSubscriptions(world);
      await transact(await world.writer(), async (w) => {
        for (let n = 0; n < 5; n++) await w.put("orders", `o${n}`, n);
      });
      await subscribe(here, { kind: "snapshot" });
      const first = new Reader(here.consumer("s"));
      await first.until(({ frames }) => frames.some(({ kind }) => kind === "snapshot_complete"), "the rows");
      expect(first.values).toEqual([0, 1, 2, 3, 4]);
      const complete = first.frames.find(({ kind }) => kind === "snapshot_complete");
      await acknowledge(here, complete?.cursor, generationOf(first));
      await first[Symbol.asyncDispose]();
      await transact(await world.writer(), (w) => w.put("orders", "o9", 9));
      await using second = new Reader(here.consumer("s"));
      await second.gets(1);
      expect(second.frames.some(({ kind }) => kind === "snapshot_started")).toBe(false);
      expect(second.values).toEqual([9]);
    });
  });
}

async function subscribe({ subscriptions }: RunningSubscriptions, start: Start = { kind: "now" }): Promise<void> {
  const plain = { definition: "{}", isGroup: false, topics: [], owner: "", labels: {}, expireAfterMs: undefined };
  await subscriptions.create({ id: "s", ...plain }, start, signal);
}

/** So many events, each in a transaction of its own. */
async function fill(world: World, count: number): Promise<void> {
  const writer = await world.writer();
  for (let n = 0; n < count; n++) {
    await transact(writer, (w) => w.emit("notes", undefined, n));
  }
}

function generationOf(reader: Reader): number {
  const [opened] = reader.frames;
  return opened?.kind === "opened" ? (opened.lease?.generation ?? 0) : 0;
}

function cursorAt(reader: Reader, version: number) {
  const frame = reader.frames.find(({ cursor }) => cursor.version >= version);
  return frame === undefined ? undefined : { ...frame.cursor, version, fingerprint: 0 };
}

async function acknowledge(
  { subscriptions }: RunningSubscriptions,
  cursor: Parameters<typeof encodeCursor>[0] | undefined,
  generation: number,
): Promise<void> {
  const text = cursor === undefined ? undefined : encodeCursor(cursor);
  const said = { id: "s", generation, member: undefined, cursor: text, versions: [], rejections: [] };
  await subscriptions.acknowledge(said, signal);
}
