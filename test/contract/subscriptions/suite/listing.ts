import { describe, expect, it } from "vitest";
import { at, never, type SubscriptionWorld, subscription } from "../world.ts";

/** Create, get, list, delete. */
export function listing(open: () => Promise<SubscriptionWorld>): void {
  describe("a subscription", () => {
    it("is what it was created as, for every replica", async () => {
      await using world = await open();
      await world.settle(3);
      const asked = subscription("orders/eu", world, {
        definition: '{"a":"it\'s \\\\ $1 \\u0000"}',
        isGroup: true,
        topics: ["orders.*", "parcels.>"],
        owner: "team 'a'",
        labels: { env: "prod", 'q"': "\\" },
        expireAfterMs: 90_001,
        position: at(2, world),
      });
      const { record, existed } = await world.a.create(asked, never);
      expect(existed).toBe(false);
      expect(record).toEqual({
        ...asked,
        state: "ACTIVE",
        generation: 0,
        createdAtMs: expect.any(Number),
        lastUsedAtMs: expect.any(Number),
        expiresAtMs: record.lastUsedAtMs + 90_001,
        deadLetters: 0,
        oldestVersion: undefined,
      });
      expect(await world.b.get("orders/eu", never)).toEqual(record);
      const plain = await world.a.create(subscription("plain", world), never);
      expect(plain.record).toMatchObject({ expireAfterMs: undefined, expiresAtMs: undefined, labels: {}, topics: [] });
    });

    it("exists once, however many create it at the same moment", async () => {
      await using world = await open();
      const asked = subscription("s", world, { labels: { a: "1", b: "2" }, owner: "o", expireAfterMs: 60_000 });
      const again = { ...asked, labels: { b: "2", a: "1" }, position: at(0, world, "-other") };
      const answers = await Promise.all(
        Array.from({ length: 8 }, (_, n) => (n % 2 === 0 ? world.a : world.b).create(n < 4 ? asked : again, never)),
      );
      expect(answers.filter(({ existed }) => !existed).length).toBe(1);
      expect(new Set(answers.map(({ record }) => record.position.cursor)).size).toBe(1);
      const { generation: _generation, ...position } = { generation: 0, ...asked };
      for (const other of [
        { definition: "{}" },
        { isGroup: true },
        { owner: "" },
        { labels: { a: "1" } },
        { labels: { a: "1", b: "2", c: "3" } },
        { expireAfterMs: 60_001 },
        { expireAfterMs: undefined },
      ]) {
        await expect(world.b.create({ ...position, ...other }, never), JSON.stringify(other)).rejects.toMatchObject({
          code: "SUBSCRIPTION_EXISTS",
        });
      }
    });

    it("that is not there is not found, whatever is asked of it", async () => {
      await using world = await open();
      for (const id of ["ghost", "gh\0st", "gh\u{1F47B}st", "", "x".repeat(256)]) {
        for (const ask of [
          () => world.a.get(id, never),
          () => world.a.delete(id, never),
          () => world.a.pause(id, true, never),
          () => world.a.seek(id, at(0, world), never),
          () => world.a.claim(id, { replica: "a", url: undefined, leaseMs: 1_000 }, never),
          () => world.a.deadLetters(id, {}, { limit: 1, after: undefined }, never),
          () => world.a.discardDeadLetters(id, {}, never),
        ]) {
          await expect(ask()).rejects.toMatchObject({ code: "SUBSCRIPTION_NOT_FOUND" });
        }
        expect(await world.a.states([id], never)).toEqual([]);
        expect(await world.a.advance([{ id, generation: 0, position: at(1, world) }], never)).toEqual([
          { kind: "gone" },
        ]);
        expect(await world.a.renew([{ id, generation: 1 }], 1_000, never)).toEqual([id]);
        await world.a.release([{ id, generation: 1 }], never);
      }
      expect(await world.a.advance([], never)).toEqual([]);
      await expect(world.a.create(subscription("gh st", world), never)).rejects.toMatchObject({
        code: "INVALID_REQUEST",
      });
    });

    it("is gone once it is deleted, and does not bequeath its generations", async () => {
      await using world = await open();
      await world.a.create(subscription("s", world), never);
      const claim = await world.a.claim("s", { replica: "a", url: undefined, leaseMs: 1_000 }, never);
      expect(await world.b.delete("s", never)).toMatchObject({ id: "s", position: at(0, world), state: "ACTIVE" });
      await expect(world.a.get("s", never)).rejects.toMatchObject({ code: "SUBSCRIPTION_NOT_FOUND" });
      await world.a.create(subscription("s", world), never);
      const { generation } = claim.record;
      const other = await world.b.claim("s", { replica: "b", url: undefined, leaseMs: 1_000 }, never);
      expect(other.record.generation).toBeGreaterThan(generation);
      expect(await world.a.advance([{ id: "s", generation, progress: "mine" }], never)).toEqual([
        { kind: "fenced", generation: other.record.generation },
      ]);
    });

    it("is listed by code point, page by page, with how many there are", async () => {
      await using world = await open();
      const ids = ["B", "a", "a-b", "a.b", "a/b", "a0", "a:b", "aB", "a_b", "ab"];
      for (const id of ids.toReversed()) await world.a.create(subscription(id, world), never);
      const seen: string[] = [];
      for (let after: string | undefined; ; ) {
        const { items, total, more } = await world.b.list({}, { limit: 4, after }, never);
        expect(total).toBe(ids.length);
        seen.push(...items.map(({ id }) => id));
        after = seen.at(-1);
        if (!more) break;
      }
      expect(seen).toEqual(ids);
      expect(await world.a.list({}, { limit: 5, after: "ab" }, never)).toEqual({
        items: [],
        total: 10,
        more: false,
      });
      expect(await world.a.list({}, { limit: 10, after: undefined }, never)).toMatchObject({ total: 10, more: false });
    });

    it("is listed by a topic that its patterns could match, by owner and by labels", async () => {
      await using world = await open();
      const made = {
        all: { topics: [] },
        exact: { topics: ["orders.eu"], owner: "a" },
        star: { topics: ["nothing", "orders.*"], labels: { env: "prod", tier: "1" } },
        tail: { topics: ["orders.>"], owner: "a", labels: { env: "test" } },
        middle: { topics: ["orders.*.new"], labels: { env: "prod" } },
        everything: { topics: [">"], owner: "b" },
        odd: { topics: ["or%2Eders"] },
      };
      for (const [id, rest] of Object.entries(made)) await world.a.create(subscription(id, world, rest), never);
      const found = async (filter: Parameters<typeof world.a.list>[0]) =>
        (await world.b.list(filter, { limit: 100, after: undefined }, never)).items.map(({ id }) => id);
      expect(await found({ topic: "orders" })).toEqual(["all", "everything"]);
      expect(await found({ topic: "orders.eu" })).toEqual(["all", "everything", "exact", "star", "tail"]);
      expect(await found({ topic: "orders.eu.new" })).toEqual(["all", "everything", "middle", "tail"]);
      expect(await found({ topic: "ordersXeu" })).toEqual(["all", "everything"]);
      expect(await found({ topic: "or%2Eders" })).toEqual(["all", "everything", "odd"]);
      expect(await found({ topic: "a(.[$\0" })).toEqual(["all", "everything"]);
      expect(await found({ owner: "a" })).toEqual(["exact", "tail"]);
      expect(await found({ owner: "A" })).toEqual([]);
      expect(await found({ labels: { env: "prod" } })).toEqual(["middle", "star"]);
      expect(await found({ labels: { env: "prod", tier: "1" } })).toEqual(["star"]);
      expect(await found({ labels: { tier: "\0" } })).toEqual([]);
      expect((await found({ labels: {} })).length).toBe(7);
      expect(await found({ topic: "orders.eu", owner: "a", labels: { env: "test" } })).toEqual(["tail"]);
    });
  });
}
