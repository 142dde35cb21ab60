import { beforeEach, describe, expect, test } from "vitest";
import { FeedError } from "../../../../src/core/errors.ts";
import type { Version } from "../../../../src/core/event.ts";
import { GroupWorld, type Replica, signal, TERMS, type TestMember } from "./group-setup.ts";

let world: GroupWorld;
let replica: Replica;

beforeEach(async () => {
  world = new GroupWorld();
  replica = await world.replica();
  await world.create(replica);
});

const position = async (): Promise<Version> =>
  (await world.during(replica.subscriptions.get("g", signal))).position.version;

async function codeOf(work: Promise<unknown>): Promise<unknown> {
  try {
    await work;
    return undefined;
  } catch (error) {
    return error instanceof Error && "code" in error ? error.code : error;
  }
}

describe("dead letters", () => {
  async function withDeadLetters(): Promise<TestMember> {
    const a = await world.member(replica, "a");
    await world.emit("k", "k", "l");
    await a.say({ versions: [3], rejections: [{ version: 1, reason: "poison", giveUp: true }] });
    await world.emit("k");
    await world.time.pass(50);
    return a;
  }
  const replay = (limit = 100) => world.during(replica.subscriptions.replayDeadLetters("g", {}, limit, signal));
  const left = async () =>
    (await world.during(replica.subscriptions.deadLetters("g", {}, { limit: 10, after: undefined }, signal))).items.map(
      ({ version, replaying }) => (replaying ? `${version}…` : `${version}`),
    );

  test("are delivered again in pages, in order, and never move the position", async () => {
    const a = await withDeadLetters();
    expect(await left()).toEqual(["1", "2", "4"]);
    expect(await position()).toBe(4);
    expect(await replay(2)).toEqual({ replaying: 2, remaining: 1 });
    expect(a.told.slice(3)).toEqual(["k:1×2", "k:2×2"]);
    expect(await left()).toEqual(["1…", "2…", "4"]);
    expect(await a.acknowledge()).toMatchObject({ accepted: 2, version: 4 });
    expect(await left()).toEqual(["4"]);
    expect(await replay()).toEqual({ replaying: 1, remaining: 0 });
    await a.acknowledge();
    expect(await left()).toEqual([]);
    expect(await position()).toBe(4);
    await world.emit("k");
    expect(a.told.at(-1)).toBe("k:5");
  });

  test("that fail again are dead letters again", async () => {
    const a = await withDeadLetters();
    await replay();
    await a.say({ rejections: [{ version: 1, reason: "still poison", giveUp: true }] });
    expect(await left()).toEqual(["1", "2", "4"]);
    const { items } = await world.during(
      replica.subscriptions.deadLetters("g", { versions: [1] }, { limit: 1, after: undefined }, signal),
    );
    expect(items[0]).toMatchObject({ attempts: 2, reason: "still poison" });
    await world.emit("k");
    await world.time.pass(100);
    expect(await left()).toEqual(["1", "2", "4", "5"]);
  });

  test("that are discarded let their key flow again", async () => {
    const a = await withDeadLetters();
    const discarded = await world.during(replica.subscriptions.discardDeadLetters("g", { key: "k" }, signal));
    expect(discarded).toEqual({ discarded: 3, remaining: 0 });
    await world.time.pass(50);
    await world.emit("k");
    expect(a.told.at(-1)).toBe("k:5");
    expect(await replay()).toEqual({ replaying: 0, remaining: 0 });
  });

  test("that are discarded at another replica are noticed, whether or not somebody tells", async () => {
    world.terms = { ...TERMS, ackDeadlineMs: 600_000 };
    const a = await withDeadLetters();
    const second = await world.replica();
    await world.during(second.subscriptions.discardDeadLetters("g", { versions: [1, 2] }, signal));
    await world.time.pass(50);
    await world.emit("k");
    expect(a.told).toEqual(["k:1", "k:2", "l:3"]);
    const { deadLetters } = world.memory.subscriptions;
    world.memory.subscriptions.deadLetters = async (...args) => ({
      ...(await deadLetters.apply(world.memory.subscriptions, args)),
      total: 99,
    });
    await world.during(second.subscriptions.discardDeadLetters("g", {}, signal));
    await world.emit("k");
    expect(a.told).toEqual(["k:1", "k:2", "l:3"]);
    world.memory.subscriptions.deadLetters = deadLetters;
    await world.during(second.subscriptions.discardDeadLetters("g", {}, signal));
    await world.time.pass(31_000);
    await world.emit("k");
    expect(a.told.at(-1)).toBe("k:7");
  });

  test("are known after a restart: their keys are parked", async () => {
    await withDeadLetters();
    await world.during(replica.subscriptions.stop());
    replica = await world.replica();
    const b = await world.member(replica, "b");
    await world.emit("k", "m");
    expect(b.told).toEqual(["m:6"]);
    expect(await left()).toEqual(["1", "2", "4", "5"]);
    await replay();
    expect(b.told).toEqual(["m:6", "k:1×2", "k:2×2", "k:4", "k:5"]);
  });

  test("come again by replay alone, also when the group is moved back to before them", async () => {
    await withDeadLetters();
    await world.during(replica.subscriptions.seek("g", { kind: "version", version: 0, epoch: undefined }, signal));
    await world.time.pass(100);
    const b = await world.member(replica, "b");
    expect(b.told).toEqual(["l:3"]);
    await b.acknowledge();
    expect(await left()).toEqual(["1", "2", "4"]);
    await replay();
    await b.acknowledge();
    expect(b.told).toEqual(["l:3", "k:1×2", "k:2×2", "k:4"]);
    expect(await left()).toEqual([]);
  });

  test("are delivered to members, and to nobody else", async () => {
    const a = await withDeadLetters();
    a.leave();
    await world.time.pass(10_000);
    expect(await codeOf(replay())).toBe("SUBSCRIPTION_BUSY");
  });

  test("that cannot be written yet are no more than memory may hold, and none is lost", async () => {
    world.limits = { maxUnwrittenBytes: 5_000 };
    replica = await world.replica();
    await world.create(replica, "small");
    const a = await world.member(replica, "a", { id: "small" });
    await world.emit("k", "l");
    await a.say({ versions: [2], rejections: [{ version: 1, reason: "poison", giveUp: true }] });
    const { subscriptions } = world.memory;
    const { advance } = subscriptions;
    subscriptions.advance = async () => {
      throw new FeedError("DATABASE_UNAVAILABLE", "Cut off.", "Wait.");
    };
    await world.emit(...Array.from({ length: 200 }, () => "k"));
    await world.time.pass(1_000);
    expect(replica.groups.stats().deadLetters).toBeLessThan(30);
    subscriptions.advance = advance;
    await world.time.pass(20_000);
    const { items } = await subscriptions.deadLetters("small", {}, { limit: 1_000, after: undefined }, signal);
    expect(items.length).toBe(201);
    expect((await subscriptions.get("small", signal)).position.version).toBe(202);
  });

  test("of which there are too many hold up what is new, until some are gone", async () => {
    world.limits = { maxDeadLetters: 2 };
    replica = await world.replica();
    await world.create(replica, "small");
    const a = await world.member(replica, "a", { id: "small" });
    await world.emit("k", "k");
    await a.say({ rejections: [{ version: 1, reason: "poison", giveUp: true }] });
    await world.emit("l");
    expect(a.told).toEqual(["k:1", "k:2"]);
    await world.during(replica.subscriptions.discardDeadLetters("small", {}, signal));
    await world.time.pass(100);
    expect(a.told).toEqual(["k:1", "k:2", "l:3"]);
  });
});
