import { describe, expect, it } from "vitest";
import { at, claimant, never, type SubscriptionWorld, subscription } from "../world.ts";

/** Expiry, and what becomes of subscriptions that history outruns. */
export function keeping(open: () => Promise<SubscriptionWorld>): void {
  describe("a subscription that nobody uses", () => {
    it("is deleted when its time is over, and not while somebody waits for its events", async () => {
      await using world = await open();
      await world.settle(3);
      const expireAfterMs = 60_000;
      for (const id of ["unused", "claimed", "acknowledged", "waited-for", "moved"]) {
        await world.a.create(subscription(id, world, { expireAfterMs }), never);
      }
      await world.a.create(subscription("for-ever", world), never);
      const { record } = await world.a.claim("waited-for", claimant("a"), never);
      const held = [{ id: "waited-for", generation: record.generation }];
      await world.pass(40_000);
      await world.a.claim("claimed", claimant("a"), never);
      await world.a.advance([{ id: "acknowledged", generation: 0, position: at(1, world) }], never);
      await world.a.seek("moved", at(1, world), never);
      expect(await world.b.renew(held, 1_000, never)).toEqual([]);
      await world.pass(40_000);
      const { items } = await world.b.list({}, { limit: 9, after: undefined }, never);
      expect(items.map(({ id }) => id)).toEqual(["acknowledged", "claimed", "for-ever", "moved", "waited-for"]);
      await expect(world.b.get("unused", never)).rejects.toMatchObject({ code: "SUBSCRIPTION_NOT_FOUND" });
      await world.b.renew(held, 1_000, never);
      // An acknowledgement that moves nothing is use all the same.
      await world.a.advance([{ id: "acknowledged", generation: 0, position: at(1, world) }], never);
      await world.pass(40_000);
      const left = await world.b.list({}, { limit: 9, after: undefined }, never);
      expect(left.items.map(({ id }) => id)).toEqual(["acknowledged", "for-ever", "waited-for"]);
    });
  });

  describe("a subscription that history outruns", () => {
    it("is LOST from the moment that something is gone, and says what is left", async () => {
      await using world = await open();
      await world.settle(9);
      await world.a.create(subscription("behind", world, { position: at(3, world) }), never);
      await world.a.create(subscription("paused", world, { position: at(3, world) }), never);
      await world.a.pause("paused", true, never);
      await world.a.create(subscription("just", world, { position: at(4, world) }), never);
      await world.a.create(subscription("idle", world, { position: at(9, world) }), never);
      await world.a.pause("idle", true, never);
      await world.retainFrom(5);
      expect(await world.b.get("behind", never)).toMatchObject({
        state: "LOST",
        oldestVersion: 5,
        position: at(3, world),
      });
      expect(await world.b.get("just", never)).toMatchObject({ state: "ACTIVE", oldestVersion: undefined });
      expect(await world.b.summary(never)).toEqual({
        active: 1,
        paused: 1,
        lost: ["behind", "paused"],
        lostCount: 2,
        deadLetters: 0,
        oldestVersion: 4,
      });
      expect((await world.b.states(["behind", "idle"], never)).map(({ state }) => state).sort()).toEqual([
        "LOST",
        "PAUSED",
      ]);
      // Found out, and counted, once.
      await world.pass(0);
      expect((await world.b.summary(never)).lostCount).toBe(2);
    });

    it("goes on once it is moved, or once all that is gone is acknowledged after all", async () => {
      await using world = await open();
      await world.settle(9);
      for (const id of ["a", "b"]) await world.a.create(subscription(id, world, { position: at(3, world) }), never);
      const { record } = await world.a.claim("a", claimant("a"), never);
      await world.retainFrom(6);
      await world.pass(0);
      const advance = (version: number) =>
        world.a.advance([{ id: "a", generation: record.generation, position: at(version, world) }], never);
      await advance(4);
      expect(await world.b.get("a", never)).toMatchObject({ state: "LOST", position: at(4, world) });
      await advance(7);
      expect(await world.b.get("a", never)).toMatchObject({ state: "ACTIVE", position: at(7, world) });
      expect(await world.b.seek("b", at(5, world), never)).toMatchObject({ state: "ACTIVE", position: at(5, world) });
      expect(await world.b.claim("b", claimant("b"), never)).toMatchObject({ kind: "claimed" });
    });
  });

  it("are counted, with the least position", async () => {
    await using world = await open();
    const none = { active: 0, paused: 0, lost: [], lostCount: 0, deadLetters: 0, oldestVersion: undefined };
    expect(await world.a.summary(never)).toEqual(none);
    await world.settle(4);
    await world.a.create(subscription("a", world, { position: at(4, world) }), never);
    await world.a.create(subscription("b", world, { position: at(2, world) }), never);
    expect(await world.b.summary(never)).toEqual({ ...none, active: 2, oldestVersion: 2 });
  });
}
