import { beforeEach, describe, expect, test } from "vitest";
import { encodeCursor } from "../../../../src/core/cursor.ts";
import { FeedError } from "../../../../src/core/errors.ts";
import type { Version } from "../../../../src/core/event.ts";
import { GroupWorld, type Replica, signal, TERMS, type TestMember } from "./group-setup.ts";

const KEYS = Array.from({ length: 40 }, (_, index) => `k${index}`);

let world: GroupWorld;
let replica: Replica;

beforeEach(async () => {
  world = new GroupWorld();
  replica = await world.replica();
  await world.create(replica);
});

const position = async (): Promise<Version> =>
  (await world.during(replica.subscriptions.get("g", signal))).position.version;

const keysOf = (member: TestMember): ReadonlySet<string | undefined> => new Set(member.events.map(({ key }) => key));

async function codeOf(work: Promise<unknown>): Promise<unknown> {
  try {
    await work;
    return undefined;
  } catch (error) {
    return error instanceof Error && "code" in error ? error.code : error;
  }
}

describe("members", () => {
  test("share a subscription by key, each key in order at one of them", async () => {
    const members = [await world.member(replica, "a"), await world.member(replica, "b")];
    await world.emit(...KEYS, ...KEYS, ...KEYS);
    const [a, b] = members.map(keysOf);
    expect((a?.size ?? 0) + (b?.size ?? 0)).toBe(KEYS.length);
    expect(Math.min(a?.size ?? 0, b?.size ?? 0)).toBeGreaterThan(8);
    for (const { events } of members) {
      for (const key of KEYS) {
        const versions = events.filter((event) => event.key === key).map(({ version }) => version);
        expect(versions).toEqual(versions.toSorted((x, y) => x - y));
      }
    }
  });

  test("are told their lease, and how far they have come", async () => {
    const a = await world.member(replica, "a", { request: { checkpointIntervalMs: 1_000 } });
    const [opened] = a.frames;
    expect(opened).toMatchObject({
      kind: "opened",
      streamId: "",
      version: 0,
      lease: { subscriptionId: "g", member: "a", maxInFlight: 1_000 },
    });
    await world.emit("k");
    await world.time.pass(1_100);
    expect(a.frames.filter(({ kind }) => kind === "checkpoint").at(-1)).toMatchObject({ version: 1, lagVersions: 0 });
    await a.acknowledge(a.frames.findLast(({ kind }) => kind === "checkpoint"));
    expect(await position()).toBe(1);
  });

  test("rise in generation, also when the group is taken up again", async () => {
    const a = await world.member(replica, "a");
    const b = await world.member(replica, "b");
    expect(b.generation).toBeGreaterThan(a.generation);
    a.leave();
    b.leave();
    await world.time.pass(10_000);
    expect(replica.groups.held()).toEqual([]);
    const c = await world.member(replica, "a");
    expect(c.generation).toBeGreaterThan(b.generation);
  });

  test("without a name are given one, and of one name the newer takes the place", async () => {
    const a = await world.member(replica, "a");
    await world.emit("k");
    const again = await world.member(replica, "a");
    expect(a.closing).toBe("TAKEN_OVER");
    expect(again.told).toEqual(["k:1×2"]);
    expect(await codeOf(a.acknowledge())).toBe("SUBSCRIPTION_FENCED");
    await again.acknowledge();
    expect(await position()).toBe(1);
  });

  test("are no more than the group may have", async () => {
    world.terms = { ...TERMS, maxMembers: 1 };
    await world.member(replica, "a");
    expect(await codeOf(world.member(replica, "b"))).toBe("SUBSCRIPTION_BUSY");
    await world.member(replica, "a");
  });

  test("that come take over keys once what is in flight of them is acknowledged", async () => {
    const a = await world.member(replica, "a");
    await world.emit(...KEYS);
    const b = await world.member(replica, "b");
    await world.emit(...KEYS);
    expect(b.events).toEqual([]);
    await a.acknowledge();
    await world.time.pass(100);
    expect(b.events.length).toBeGreaterThan(8);
    expect(a.events.length + b.events.length).toBe(2 * KEYS.length);
  });

  test("that take a checkpoint and then nothing are given nothing", async () => {
    const a = await world.member(replica, "a", { request: { checkpointIntervalMs: 1_000 } });
    a.takesOne = true;
    await world.time.pass(1_100);
    expect(a.frames.at(-1)?.kind).toBe("checkpoint");
    await world.emit("k");
    expect(replica.groups.stats().inFlight).toBe(0);
    a.resume();
    expect(a.told).toEqual(["k:1"]);
    expect(replica.groups.stats().inFlight).toBe(1);
  });

  test("that go leave what they had to the others at once", async () => {
    const a = await world.member(replica, "a");
    const b = await world.member(replica, "b");
    await world.emit(...KEYS);
    const left = a.told;
    a.leave();
    await world.time.pass(10);
    expect(b.told.filter((told) => told.endsWith("×2"))).toEqual(left.map((told) => `${told}×2`));
    await b.acknowledge();
    expect(await position()).toBe(KEYS.length);
  });

  test("that stall lose their keys to others, and get some back when they speak again", async () => {
    const a = await world.member(replica, "a");
    const b = await world.member(replica, "b");
    await world.emit(...KEYS);
    await b.acknowledge();
    await world.time.pass(2_300);
    expect(b.events.length).toBe(KEYS.length);
    await world.emit(...KEYS);
    expect(a.events.length + b.events.length).toBe(KEYS.length * 2 + a.events.length);
    const late = await a.acknowledge();
    expect(late.accepted).toBe(0);
    await b.acknowledge();
    const before = a.events.length;
    await world.emit(...KEYS);
    expect(a.events.length).toBeGreaterThan(before + 8);
  });

  test("that take nothing lose their keys too, even though they have nothing", async () => {
    const a = await world.member(replica, "a");
    const b = await world.member(replica, "b");
    a.ready = false;
    await world.emit(...KEYS);
    const mine = b.events.length;
    await b.acknowledge();
    await world.time.pass(5_000);
    expect(b.events.length).toBeGreaterThan(mine);
  });

  test("that come in pieces stay between them, until nothing is heard of them", async () => {
    const a = await world.member(replica, "a", { inPieces: true });
    await world.emit("k");
    a.leave();
    await world.time.pass(1_500);
    await a.acknowledge();
    expect(await position()).toBe(1);
    await a.comeAgain();
    await world.emit("k", "l");
    a.leave();
    await a.comeAgain();
    expect(a.told).toEqual(["k:1", "k:2", "l:3", "k:2×2", "l:3×2"]);
    a.leave();
    await world.time.pass(2_300);
    expect(await codeOf(a.comeAgain())).toBe("SUBSCRIPTION_FENCED");
    const b = await world.member(replica, "b");
    expect(b.told).toEqual(["k:2×3", "l:3×3"]);
  });
});

describe("acknowledgements", () => {
  test("cover what the member was given up to a frame, and of it alone", async () => {
    const a = await world.member(replica, "a", { request: { maxBatchEvents: 10 } });
    const b = await world.member(replica, "b", { request: { maxBatchEvents: 10 } });
    await world.emit(...KEYS);
    const [first] = a.batches;
    expect(await a.acknowledge(first)).toMatchObject({ accepted: first?.events.length });
    expect(await a.acknowledge(first)).toMatchObject({ accepted: 0 });
    await a.acknowledge();
    expect(await position()).toBeLessThan(KEYS.length);
    await b.acknowledge();
    expect(await position()).toBe(KEYS.length);
  });

  test("with a cursor that this member was not given cover nothing, and say so", async () => {
    const a = await world.member(replica, "a");
    await world.emit("k", "l", "m");
    const [before] = a.batches;
    a.leave();
    const again = await world.member(replica, "a");
    expect(again.told).toEqual(["k:1×2", "l:2×2", "m:3×2"]);
    expect(await codeOf(again.acknowledge(before))).toBe("CURSOR_INVALID");
    expect(await position()).toBe(0);
    expect(await again.acknowledge()).toMatchObject({ accepted: 3, version: 3 });
  });

  test("of single events move the position only with the lowest", async () => {
    const a = await world.member(replica, "a");
    await world.emit("k", "l", "m");
    expect(await a.say({ versions: [2, 3] })).toMatchObject({ accepted: 2, version: 0 });
    expect(await a.say({ versions: [1, 2] })).toMatchObject({ accepted: 1, version: 3 });
  });

  test("of a rejected event alone: it comes again, with the later ones of its key, and not with others", async () => {
    const a = await world.member(replica, "a");
    await world.emit("k", "l", "k", "l");
    await a.say({ rejections: [{ version: 1, reason: "busy", giveUp: false }] });
    expect(a.told).toEqual(["k:1", "l:2", "k:3", "l:4", "k:1×2", "k:3×2"]);
    expect(await a.acknowledge()).toMatchObject({ accepted: 4, version: 4 });
  });

  test("by a cursor do not cover what the same call rejects", async () => {
    const a = await world.member(replica, "a");
    await world.emit("k", "l", "k");
    const [frame] = a.batches;
    const cursor = frame === undefined ? undefined : encodeCursor(frame.cursor);
    const rejections = [{ version: 1, reason: "busy", giveUp: false }];
    expect(await a.say({ cursor, rejections })).toMatchObject({ accepted: 2, version: 0 });
    expect(a.told).toEqual(["k:1", "l:2", "k:3", "k:1×2", "k:3×2"]);
  });

  test("that nobody gave are told to be late, and no cursor is taken for another", async () => {
    const a = await world.member(replica, "a");
    await world.emit("k");
    expect(await codeOf(a.say({ versions: [1] }, a.generation + 1))).toBe("SUBSCRIPTION_FENCED");
    expect(await codeOf(a.say({ cursor: "nonsense" }))).toBe("CURSOR_INVALID");
    expect(replica.groups.stats()).toMatchObject({ fenced: 1, members: 1, inFlight: 1, groups: 1 });
  });

  test("of thousands of events are a few writes", async () => {
    const a = await world.member(replica, "a");
    const b = await world.member(replica, "b");
    const before = world.statements.advance ?? 0;
    for (let round = 0; round < 20; round++) {
      await world.emit(...KEYS);
    }
    const said = [...a.events, ...b.events].map(({ version }) => version);
    const acknowledged = said.map((version) =>
      Promise.allSettled([a.say({ versions: [version] }), b.say({ versions: [version] })]),
    );
    await world.during(Promise.all(acknowledged));
    expect(await position()).toBe(20 * KEYS.length);
    expect((world.statements.advance ?? 0) - before).toBeLessThan(25);
  });

  test("are answered when they are durable, and not before", async () => {
    const a = await world.member(replica, "a");
    await world.emit("k");
    const { advance } = world.memory.subscriptions;
    world.memory.subscriptions.advance = async () => {
      throw new FeedError("DATABASE_UNAVAILABLE", "Cut off.", "Wait.");
    };
    expect(await codeOf(a.acknowledge())).toBe("DATABASE_UNAVAILABLE");
    world.memory.subscriptions.advance = advance;
    await world.time.pass(3_000);
    expect(await a.acknowledge()).toMatchObject({ accepted: 0, version: 1 });
  });
});

describe("what is not acknowledged", () => {
  test("comes again after the deadline, and is a dead letter after so many times; its key is parked", async () => {
    world.terms = { ...TERMS, maxAttempts: 2 };
    const a = await world.member(replica, "a");
    await world.emit("k", "l");
    await a.say({ versions: [2] });
    await world.time.pass(2_300);
    expect(a.told).toEqual(["k:1", "l:2", "k:1×2"]);
    await world.time.pass(2_300);
    await world.emit("k", "l");
    expect(a.told).toEqual(["k:1", "l:2", "k:1×2", "l:4"]);
    await a.acknowledge();
    expect(await position()).toBe(4);
    const { items } = await world.during(
      replica.subscriptions.deadLetters("g", {}, { limit: 10, after: undefined }, signal),
    );
    expect(items).toMatchObject([
      { version: 1, key: "k", attempts: 2, replaying: false, reason: expect.stringContaining("within 2 s") },
      { version: 3, key: "k", attempts: 0, reason: expect.stringContaining("earlier event of its key") },
    ]);
  });

  test("with SKIP does not keep its key from going on", async () => {
    world.terms = { ...TERMS, deadLetterPolicy: "SKIP" };
    const a = await world.member(replica, "a");
    await world.emit("k", "k");
    await a.say({ rejections: [{ version: 1, reason: "poison", giveUp: true }] });
    await world.emit("k");
    expect(a.told).toEqual(["k:1", "k:2", "k:3"]);
    expect(await a.acknowledge()).toMatchObject({ accepted: 2, version: 3 });
  });

  test("holds back what a barrier has behind it, and what is before the barrier holds that back", async () => {
    const a = await world.member(replica, "a");
    const b = await world.member(replica, "b");
    await world.emit("k", undefined, "k", "l");
    const all = () => [...a.told, ...b.told].toSorted();
    expect(all()).toEqual(["k:1"]);
    await Promise.all([a.acknowledge(), b.acknowledge()]);
    expect(all()).toEqual(["-:2", "k:1"]);
    await Promise.all([a.acknowledge(), b.acknowledge()]);
    expect(all()).toEqual(["-:2", "k:1", "k:3", "l:4"]);
  });

  test("is known after a restart: what was acknowledged beyond it does not come again", async () => {
    const a = await world.member(replica, "a");
    await world.emit("k", "l", "m", "k");
    await a.say({ versions: [2, 3] });
    await world.time.pass(1_500);
    await world.during(replica.subscriptions.stop());
    const second = await world.replica();
    const b = await world.member(second, "b");
    expect(b.told).toEqual(["k:1×2", "k:4×2"]);
    await b.acknowledge();
    replica = second;
    expect(await position()).toBe(4);
  });
});
