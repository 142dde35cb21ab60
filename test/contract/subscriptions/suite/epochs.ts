import { describe, expect, it } from "vitest";
import { at, claimant, never, type SubscriptionWorld, subscription } from "../world.ts";

/** Subscriptions outlive the epoch that they were created in. */
export function epochs(open: () => Promise<SubscriptionWorld>): void {
  describe("in a new epoch a subscription", () => {
    it("stands where it stood, its generations go on, and the old epoch's store changes nothing any more", async () => {
      await using world = await open();
      await world.settle(9);
      const old = { epoch: world.epoch, a: world.a };
      await world.a.create(subscription("s", world, { position: at(3, world), expireAfterMs: 60_000 }), never);
      const { record } = await world.a.claim("s", claimant("a"), never);
      await world.a.advance([{ id: "s", generation: record.generation, progress: "p" }], never);
      await world.fork(6);
      expect(await world.b.get("s", never)).toMatchObject({ state: "ACTIVE", position: at(3, old) });
      const next = await world.b.claim("s", claimant("b"), never);
      expect(next).toMatchObject({ kind: "claimed", progress: "p" });
      // Others than those that were given out after the backup: their holders may still speak.
      expect(next.record.generation).toBeGreaterThan(record.generation + 1_000_000);
      for (const ask of [
        () => old.a.claim("s", claimant("a"), never),
        () => old.a.advance([{ id: "s", generation: 0, position: at(5, old) }], never),
        () => old.a.get("s", never),
        () => old.a.create(subscription("t", old), never),
        () => old.a.summary(never),
      ]) {
        await expect(ask()).rejects.toMatchObject({ code: "EPOCH_CHANGED" });
      }
      expect((await world.a.get("s", never)).position).toEqual(at(3, old));
    });

    it("takes positions of both epochs, by what they mean now", async () => {
      await using world = await open();
      await world.settle(9);
      const old = { epoch: world.epoch };
      await world.a.create(subscription("s", world, { position: at(3, world) }), never);
      await world.a.create(subscription("beyond", world, { position: at(8, world) }), never);
      await world.fork(6);
      const head = await world.settle(6);
      const stands = async (id: string, position: ReturnType<typeof at>) =>
        (await world.b.advance([{ id, generation: 0, position }], never))[0];
      // Below the fork an old cursor is as good as a new one.
      expect(await stands("s", at(4, old))).toEqual({ kind: "advanced", position: at(4, old) });
      expect(await stands("s", at(4, world))).toEqual({ kind: "advanced", position: at(4, world) });
      expect(await stands("s", at(4, old))).toEqual({ kind: "advanced", position: at(4, world) });
      expect(await stands("s", at(3, old))).toEqual({ kind: "advanced", position: at(4, world) });
      // Above it, it says nothing about this history.
      expect(await stands("s", at(8, old))).toEqual({ kind: "advanced", position: at(4, world) });
      expect(await stands("s", at(5, old))).toEqual({ kind: "advanced", position: at(5, old) });
      expect(await stands("s", at(head, world))).toEqual({ kind: "advanced", position: at(head, world) });
      const stranger = { epoch: "00000000-0000-4000-8000-000000000000" };
      expect(await stands("s", at(head + 1, stranger))).toEqual({ kind: "advanced", position: at(head, world) });
      // One that stood above the fork has what both share, and no more.
      expect((await world.b.get("beyond", never)).position).toEqual(at(8, old));
      expect(await stands("beyond", at(5, world))).toEqual({ kind: "advanced", position: at(8, old) });
      expect(await stands("beyond", at(6, world))).toEqual({ kind: "advanced", position: at(6, world) });
      for (const ask of [
        () => world.a.seek("s", at(1, stranger), never),
        () => world.a.create(subscription("t", stranger), never),
      ]) {
        await expect(ask()).rejects.toMatchObject({ code: "EPOCH_CHANGED" });
      }
    });

    it("that stood above the fork needs history from the fork on", async () => {
      await using world = await open();
      await world.settle(9);
      await world.a.create(subscription("beyond", world, { position: at(8, world) }), never);
      await world.fork(6);
      const head = await world.settle(6);
      expect((await world.a.summary(never)).oldestVersion).toBe(6);
      await world.retainFrom(7);
      expect(await world.a.get("beyond", never)).toMatchObject({ state: "ACTIVE" });
      await world.retainFrom(head);
      expect(await world.a.get("beyond", never)).toMatchObject({ state: "LOST", oldestVersion: head });
    });
  });
}
