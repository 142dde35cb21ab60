import { describe, expect, it, vi } from "vitest";
import { at, claimant, never, type SubscriptionWorld, subscription } from "../world.ts";

/** Claims, fencing, leases, pause, seek, and being told. */
export function claiming(open: () => Promise<SubscriptionWorld>): void {
  describe("a claim", () => {
    it("takes the subscription from whoever had it, and nobody shares a generation", async () => {
      await using world = await open();
      await world.a.create(subscription("s", world), never);
      const claims = await Promise.all(
        Array.from({ length: 10 }, (_, n) => (n % 2 === 0 ? world.a : world.b).claim("s", claimant(`r${n}`), never)),
      );
      const generations = claims.map(({ record }) => record.generation);
      expect(claims.every(({ kind }) => kind === "claimed")).toBe(true);
      expect(new Set(generations).size).toBe(10);
      expect(Math.min(...generations)).toBeGreaterThan(0);
      const newest = Math.max(...generations);
      expect((await world.a.get("s", never)).generation).toBe(newest);
      await world.settle(10);
      const outcomes = await world.b.advance(
        generations.map((generation, n) => ({ id: "s", generation, position: at(n + 1, world) })),
        never,
      );
      expect(outcomes).toEqual(
        generations.map((generation, n) =>
          generation === newest
            ? { kind: "advanced", position: at(n + 1, world) }
            : { kind: "fenced", generation: newest },
        ),
      );
    });

    it("hands on what the one before had come to", async () => {
      await using world = await open();
      await world.settle(9);
      await world.a.create(subscription("s", world), never);
      const first = await world.a.claim("s", claimant("a"), never);
      expect(first).toMatchObject({ kind: "claimed", delivered: [], progress: undefined });
      const delivered = [
        { version: 3, attempts: 2 },
        { version: 9, attempts: 1 },
      ];
      const { generation } = first.record;
      await world.a.advance(
        [{ id: "s", generation, position: at(2, world), delivered, progress: '{"p":"\\u0000"}' }],
        never,
      );
      const second = await world.b.claim("s", claimant("b"), never);
      expect(second).toMatchObject({ kind: "claimed", delivered, progress: '{"p":"\\u0000"}' });
      expect(second.record.position).toEqual(at(2, world));
      // What the position has passed is no matter any more.
      await world.b.advance([{ id: "s", generation: 0, position: at(3, world) }], never);
      expect(await world.b.claim("s", claimant("b"), never)).toMatchObject({
        delivered: [{ version: 9, attempts: 1 }],
      });
      const { record } = await world.b.claim("s", claimant("b"), never);
      await world.b.advance([{ id: "s", generation: record.generation, delivered: [] }], never);
      expect(await world.a.claim("s", claimant("a"), never)).toMatchObject({ delivered: [] });
    });

    it("of a group is refused while another replica holds it, until it is given up or not renewed", async () => {
      await using world = await open();
      await world.a.create(subscription("g", world, { isGroup: true }), never);
      const mine = await world.a.claim("g", claimant("a", "http://a"), never);
      expect(mine.kind).toBe("claimed");
      const { generation } = mine.record;
      const refused = await world.b.claim("g", claimant("b", "http://b"), never);
      expect(refused).toMatchObject({
        kind: "held",
        holder: { replica: "a", url: "http://a", untilMs: expect.any(Number) },
      });
      expect(refused.record.generation).toBe(generation);
      expect(await world.b.claim("g", claimant("b"), never)).toMatchObject({ kind: "held" });
      await world.pass(20_000);
      expect(await world.a.renew([{ id: "g", generation }], 30_000, never)).toEqual([]);
      await world.pass(20_000);
      expect(await world.b.claim("g", claimant("b"), never)).toMatchObject({ kind: "held" });
      await world.a.release([{ id: "g", generation: generation + 1_000 }], never);
      expect(await world.b.claim("g", claimant("b"), never)).toMatchObject({ kind: "held" });
      await world.a.release([{ id: "g", generation }], never);
      const theirs = await world.b.claim("g", claimant("b"), never);
      expect(theirs.kind).toBe("claimed");
      expect(await world.a.renew([{ id: "g", generation }], 30_000, never)).toEqual(["g"]);
      expect(await world.a.claim("g", claimant("a"), never)).toMatchObject({
        kind: "held",
        holder: { replica: "b", url: undefined },
      });
      await world.pass(30_001);
      expect(await world.a.claim("g", claimant("a"), never)).toMatchObject({ kind: "claimed" });
    });

    it("of a group is the same replica's again, or that of its successor at the same address", async () => {
      await using world = await open();
      await world.a.create(subscription("g", world, { isGroup: true }), never);
      const first = await world.a.claim("g", claimant("a", "http://here"), never);
      const again = await world.a.claim("g", claimant("a", "http://here"), never);
      expect(again.kind).toBe("claimed");
      expect(again.record.generation).toBeGreaterThan(first.record.generation);
      expect(await world.b.claim("g", claimant("b", "http://there"), never)).toMatchObject({ kind: "held" });
      expect(await world.b.claim("g", claimant("c", "http://here"), never)).toMatchObject({ kind: "claimed" });
      expect(await world.a.claim("g", claimant("a"), never)).toMatchObject({ kind: "held", holder: { replica: "c" } });
    });

    it("of a group is one replica's of many that want it at once", async () => {
      await using world = await open();
      await world.a.create(subscription("g", world, { isGroup: true }), never);
      const claims = await Promise.all(
        Array.from({ length: 10 }, (_, n) => (n % 2 === 0 ? world.a : world.b).claim("g", claimant(`r${n}`), never)),
      );
      expect(claims.filter(({ kind }) => kind === "claimed").length).toBe(1);
    });

    it("is refused of what is paused, and of what has lost history", async () => {
      await using world = await open();
      await world.settle(5);
      await world.a.create(subscription("s", world), never);
      const { record } = await world.a.claim("s", claimant("a"), never);
      expect(await world.b.pause("s", true, never)).toMatchObject({ state: "PAUSED", generation: record.generation });
      await expect(world.a.claim("s", claimant("a"), never)).rejects.toMatchObject({ code: "SUBSCRIPTION_PAUSED" });
      // What was delivered before may be acknowledged still.
      const { generation } = record;
      const [outcome] = await world.a.advance([{ id: "s", generation, position: at(2, world) }], never);
      expect(outcome).toEqual({ kind: "advanced", position: at(2, world) });
      expect(await world.b.pause("s", false, never)).toMatchObject({ state: "ACTIVE", position: at(2, world) });
      await world.retainFrom(5);
      await expect(world.a.claim("s", claimant("a"), never)).rejects.toMatchObject({
        code: "HISTORY_LOST",
        detail: { oldestVersion: 5, headVersion: 5, epoch: world.epoch },
      });
    });
  });

  describe("a seek", () => {
    it("moves the subscription, also back, and fences whoever has it", async () => {
      await using world = await open();
      await world.settle(9);
      await world.a.create(subscription("s", world, { position: at(5, world) }), never);
      const { record } = await world.a.claim("s", claimant("a"), never);
      const { generation } = record;
      await world.a.advance([{ id: "s", generation, delivered: [{ version: 9, attempts: 3 }], progress: "p" }], never);
      expect(await world.a.states(["s", "other"], never)).toEqual([
        { id: "s", state: "ACTIVE", generation, movedGeneration: 0 },
      ]);
      const moved = await world.b.seek("s", at(2, world), never);
      expect(moved.position).toEqual(at(2, world));
      expect(moved.generation).toBeGreaterThan(generation);
      expect(await world.a.states(["s"], never)).toEqual([
        { id: "s", state: "ACTIVE", generation: moved.generation, movedGeneration: moved.generation },
      ]);
      const late = await world.a.advance([{ id: "s", generation, position: at(7, world) }], never);
      expect(late).toEqual([{ kind: "fenced", generation: moved.generation }]);
      const next = await world.a.claim("s", claimant("a"), never);
      expect(next).toMatchObject({ delivered: [], progress: undefined });
      expect((await world.b.states(["s"], never))[0]).toMatchObject({ movedGeneration: moved.generation });
    });

    it("leaves a paused one paused, and refuses a position that is not kept", async () => {
      await using world = await open();
      await world.settle(9);
      await world.a.create(subscription("s", world, { position: at(8, world) }), never);
      await world.a.pause("s", true, never);
      await world.retainFrom(5);
      for (const ask of [
        () => world.a.seek("s", at(3, world), never),
        () => world.a.create(subscription("late", world, { position: at(3, world) }), never),
      ]) {
        await expect(ask()).rejects.toMatchObject({
          code: "HISTORY_LOST",
          detail: { oldestVersion: 5, headVersion: 9, epoch: world.epoch },
        });
      }
      expect(await world.a.seek("s", at(4, world), never)).toMatchObject({ state: "PAUSED", position: at(4, world) });
    });
  });

  describe("whoever listens", () => {
    it("is told what became of a subscription, on every replica", async () => {
      await using world = await open();
      const heard: string[][] = [[], []];
      const [ofA = [], ofB = []] = heard;
      const endA = world.a.onChange((id) => ofA.push(id ?? "*"));
      world.b.onChange((id) => ofB.push(id ?? "*"));
      const told = async (id: string, change: () => Promise<unknown>) => {
        const before = heard.map(({ length }) => length);
        await change();
        await vi.waitFor(() =>
          expect(heard.map((list, n) => list.slice(before[n]).includes(id))).toEqual([true, true]),
        );
      };
      for (const id of ["s", "t", "u"]) await world.a.create(subscription(id, world, { isGroup: id === "t" }), never);
      await world.a.create(subscription("brief", world, { expireAfterMs: 60_000 }), never);
      await told("s", () => world.a.claim("s", claimant("a"), never));
      await told("t", async () => {
        const { record } = await world.a.claim("t", claimant("a"), never);
        await world.a.release([record], never);
      });
      await told("s", () => world.b.pause("s", true, never));
      await told("s", () => world.a.seek("s", at(0, world), never));
      await told("u", () => world.b.delete("u", never));
      await told("brief", async () => {
        await world.pass(70_000);
        await world.a.states([], never);
      });
      endA();
      const before = ofA.length;
      await world.b.pause("s", false, never);
      await vi.waitFor(() => expect(ofB.at(-1)).toBe("s"));
      expect(ofA.length).toBe(before);
    });
  });
}
