import { describe, expect, it } from "vitest";
import { encodeCursor } from "../../../../src/core/cursor.ts";
import type { StoredPosition } from "../../../../src/core/subscription/subscription-store.ts";
import { at, claimant, never, type SubscriptionWorld, subscription } from "../world.ts";

/** Advances. */
export function acknowledging(open: () => Promise<SubscriptionWorld>): void {
  describe("an advance", () => {
    it("moves the position forward and never back, whoever says it", async () => {
      await using world = await open();
      await world.settle(9);
      await world.a.create(subscription("s", world), never);
      const advance = async (version: number, place = "", generation = 0) =>
        (await world.a.advance([{ id: "s", generation, position: at(version, world, place) }], never))[0];
      expect(await advance(4)).toEqual({ kind: "advanced", position: at(4, world) });
      expect(await advance(3)).toEqual({ kind: "advanced", position: at(4, world) });
      // The middle of a snapshot and its end have the same version.
      expect(await advance(4, "-end")).toEqual({ kind: "advanced", position: at(4, world, "-end") });
      const { record } = await world.b.claim("s", claimant("b"), never);
      expect(await advance(2, "", record.generation)).toEqual({ kind: "advanced", position: at(4, world, "-end") });
      expect(await advance(9)).toEqual({ kind: "advanced", position: at(9, world) });
      expect((await world.b.get("s", never)).position).toEqual(at(9, world));
    });

    it("moves on through the rows of a snapshot, which have one version, and not back", async () => {
      await using world = await open();
      await world.settle(2);
      const place = (rows: number | "anew" | undefined): StoredPosition => {
        const snapshot = rows === undefined || rows === "anew" ? rows : { shape: 1, sources: 0, key: `k${rows}`, rows };
        const cursor = encodeCursor({ epoch: world.epoch, version: 2, fingerprint: 7, snapshot });
        return { cursor, epoch: world.epoch, version: 2 };
      };
      await world.a.create(subscription("s", world, { position: place("anew") }), never);
      const stands = async (position: StoredPosition) =>
        (await world.b.advance([{ id: "s", generation: 0, position }], never))[0];
      expect(await stands(place(9))).toEqual({ kind: "advanced", position: place(9) });
      expect(await stands(place(8))).toEqual({ kind: "advanced", position: place(9) });
      expect(await stands(place("anew"))).toEqual({ kind: "advanced", position: place(9) });
      expect(await stands(place(10))).toEqual({ kind: "advanced", position: place(10) });
      expect(await stands(place(undefined))).toEqual({ kind: "advanced", position: place(undefined) });
      expect(await stands(place(10))).toEqual({ kind: "advanced", position: place(undefined) });
      await world.a.seek("s", place(3), never);
      expect(await stands(place(2))).toEqual({ kind: "advanced", position: place(3) });
      expect(await stands(place(4))).toEqual({ kind: "advanced", position: place(4) });
    });

    it("of many at once answers each in its place, and each of one subscription after the other", async () => {
      await using world = await open();
      await world.settle(9);
      for (const id of ["a", "b", "c"]) await world.a.create(subscription(id, world), never);
      const { record } = await world.b.claim("b", claimant("b"), never);
      const { generation } = record;
      const outcomes = await world.a.advance(
        [
          { id: "c", generation: 0, position: at(3, world) },
          { id: "nobody", generation: 0, position: at(3, world) },
          { id: "b", generation: generation + 1, position: at(3, world) },
          { id: "a", generation: 0, position: at(5, world) },
          { id: "b", generation, position: at(2, world) },
          { id: "a", generation: 0, position: at(4, world) },
          { id: "a", generation: 0, position: at(7, world) },
          { id: "b", generation: 0 },
        ],
        never,
      );
      expect(outcomes).toEqual([
        { kind: "advanced", position: at(3, world) },
        { kind: "gone" },
        { kind: "fenced", generation },
        { kind: "advanced", position: at(5, world) },
        { kind: "advanced", position: at(2, world) },
        { kind: "advanced", position: at(5, world) },
        { kind: "advanced", position: at(7, world) },
        { kind: "advanced", position: at(2, world) },
      ]);
    });

    it("of nobody in particular moves the position and nothing else", async () => {
      await using world = await open();
      await world.settle(9);
      await world.a.create(subscription("s", world, { isGroup: true }), never);
      const { record } = await world.a.claim("s", claimant("a"), never);
      const delivered = [{ version: 9, attempts: 1 }];
      await world.a.advance([{ id: "s", generation: record.generation, delivered, progress: "kept" }], never);
      await world.b.advance(
        [
          {
            id: "s",
            generation: 0,
            position: at(1, world),
            delivered: [{ version: 8, attempts: 7 }],
            progress: "forged",
            settledDeadLetters: [1],
          },
        ],
        never,
      );
      const claim = await world.a.claim("s", claimant("a"), never);
      expect(claim).toMatchObject({ delivered, progress: "kept", record: { position: at(1, world) } });
    });

    it("of what others say at the same time, in any order, ends at the last of it", async () => {
      await using world = await open();
      const head = await world.settle(20);
      const ids = Array.from({ length: 20 }, (_, n) => `s${n}`);
      for (const id of ids) await world.a.create(subscription(id, world), never);
      const batch = (version: number, order: readonly string[]) =>
        order.map((id) => ({ id, generation: 0, position: at(version, world) }));
      await Promise.all(
        Array.from({ length: head }, (_, n) =>
          (n % 2 === 0 ? world.a : world.b).advance(batch(head - n, n % 3 === 0 ? ids : ids.toReversed()), never),
        ),
      );
      const { items } = await world.a.list({}, { limit: 100, after: undefined }, never);
      expect(items.map(({ position }) => position.version)).toEqual(ids.map(() => head));
    });
  });
}
