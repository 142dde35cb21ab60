import { describe, expect, it } from "vitest";
import type { NewDeadLetter } from "../../../../src/core/subscription/subscription-store.ts";
import { at, claimant, never, type SubscriptionWorld, subscription } from "../world.ts";

const bytes = (text: string) => new TextEncoder().encode(text);

function letter(version: number, rest: Partial<NewDeadLetter> = {}): NewDeadLetter {
  return {
    version,
    topic: "orders",
    key: `k${version % 2}`,
    operation: "UPDATE",
    before: bytes('{"n": 1}'),
    after: bytes('{"n": 2}'),
    transaction: "4711",
    occurredAtMicros: 1_700_000_000_123_456,
    headers: undefined,
    transition: undefined,
    attempts: 5,
    reason: "it failed",
    ...rest,
  };
}

async function group(world: SubscriptionWorld): Promise<number> {
  await world.settle(9);
  await world.a.create(subscription("g", world, { isGroup: true }), never);
  return (await world.a.claim("g", claimant("a"), never)).record.generation;
}

/** What groups gave up. */
export function deadLetters(open: () => Promise<SubscriptionWorld>): void {
  describe("dead letters", () => {
    it("are kept byte by byte as they were delivered", async () => {
      await using world = await open();
      const generation = await group(world);
      const letters = [
        letter(3, { before: undefined, after: bytes('{"n":1e400000,"t":"a\\u0000b \\ud83d\\ude00","d":1.10}') }),
        letter(4, { operation: "MESSAGE", key: undefined, before: undefined, after: bytes('"just \\u0000 text"') }),
        letter(5, {
          headers: bytes('{"trace":"1"}'),
          transition: "ENTERED",
          attempts: 0,
          reason: "behind 'version' 3 $1 \\",
        }),
        letter(6, { operation: "TRUNCATE", key: undefined, before: undefined, after: undefined }),
      ];
      await world.a.advance([{ id: "g", generation, deadLetters: letters }], never);
      const { items, total, more } = await world.b.deadLetters("g", {}, { limit: 10, after: undefined }, never);
      expect(items).toEqual(letters.map((one) => ({ ...one, deadAtMs: expect.any(Number) })));
      expect({ total, more }).toEqual({ total: 4, more: false });
      expect((await world.b.get("g", never)).deadLetters).toBe(4);
    });

    it("come and go with what their generation says, and with nothing else", async () => {
      await using world = await open();
      const generation = await group(world);
      const dead = async () =>
        (await world.b.deadLetters("g", {}, { limit: 100, after: undefined }, never)).items.map(
          ({ version, reason }) => `${version} ${reason}`,
        );
      await world.a.advance([{ id: "g", generation, deadLetters: [letter(3), letter(5), letter(7)] }], never);
      await world.a.advance(
        [
          {
            id: "g",
            generation,
            position: at(8, world),
            deadLetters: [letter(5, { reason: "again" }), letter(8)],
            settledDeadLetters: [3, 4],
          },
        ],
        never,
      );
      expect(await dead()).toEqual(["5 again", "7 it failed", "8 it failed"]);
      for (const other of [0, generation + 1]) {
        const change = { deadLetters: [letter(9)], settledDeadLetters: [5] };
        await world.a.advance([{ id: "g", generation: other, ...change }], never);
      }
      expect(await dead()).toEqual(["5 again", "7 it failed", "8 it failed"]);
      await world.a.seek("g", at(0, world), never);
      expect((await dead()).length).toBe(3);
      await world.a.delete("g", never);
      await world.a.create(subscription("g", world), never);
      expect(await dead()).toEqual([]);
    });

    it("are listed in pages, and discarded, by version and key", async () => {
      await using world = await open();
      const generation = await group(world);
      const letters = [1, 2, 3, 4, 5, 6].map((version) => letter(version, version === 6 ? { key: undefined } : {}));
      await world.a.advance([{ id: "g", generation, deadLetters: letters }], never);
      const page = async (filter: Parameters<typeof world.a.deadLetters>[1], limit: number, after?: number) => {
        const { items, total, more } = await world.b.deadLetters("g", filter, { limit, after }, never);
        return { versions: items.map(({ version }) => version), total, more };
      };
      expect(await page({}, 4)).toEqual({ versions: [1, 2, 3, 4], total: 6, more: true });
      expect(await page({}, 4, 4)).toEqual({ versions: [5, 6], total: 6, more: false });
      expect(await page({ key: "k1" }, 2)).toEqual({ versions: [1, 3], total: 3, more: true });
      expect(await page({ versions: [2, 3, 99] }, 9)).toEqual({ versions: [2, 3], total: 2, more: false });
      expect(await page({ versions: [2, 3], key: "k0" }, 9)).toEqual({ versions: [2], total: 1, more: false });
      expect(await page({ versions: [] }, 9)).toEqual({ versions: [], total: 0, more: false });
      expect(await page({ key: "k\0" }, 9)).toEqual({ versions: [], total: 0, more: false });
      expect(await world.b.discardDeadLetters("g", { versions: [2, 99] }, never)).toEqual({
        discarded: 1,
        remaining: 5,
      });
      expect(await world.b.discardDeadLetters("g", { key: "k1" }, never)).toEqual({ discarded: 3, remaining: 2 });
      expect(await world.b.discardDeadLetters("g", {}, never)).toEqual({ discarded: 2, remaining: 0 });
      expect((await world.a.summary(never)).deadLetters).toBe(0);
    });
  });
}
