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

describe("a group that is", () => {
  test("paused tells its members, and goes on where it stood", async () => {
    const a = await world.member(replica, "a");
    await world.emit("k", "l");
    await a.say({ versions: [2] });
    await world.during(replica.subscriptions.pause("g", true, signal));
    await world.time.pass(100);
    expect(a.closing).toBe("PAUSED");
    expect(await codeOf(world.member(replica, "a"))).toBe("SUBSCRIPTION_PAUSED");
    expect(await codeOf(a.acknowledge())).toBe("SUBSCRIPTION_FENCED");
    await world.during(replica.subscriptions.pause("g", false, signal));
    const b = await world.member(replica, "a");
    expect(b.told).toEqual(["k:1×2"]);
  });

  test("moved begins there, with nothing of what it had come to", async () => {
    const a = await world.member(replica, "a");
    await world.emit("k", "l", "m");
    await a.say({ versions: [2, 3] });
    await world.during(replica.subscriptions.seek("g", { kind: "version", version: 1, epoch: undefined }, signal));
    await world.time.pass(100);
    expect(a.closing).toBe("MOVED");
    const b = await world.member(replica, "a");
    expect(b.told).toEqual(["l:2", "m:3"]);
  });

  test("deleted tells its members", async () => {
    const a = await world.member(replica, "a");
    await world.during(replica.subscriptions.delete("g", signal));
    await world.time.pass(100);
    expect(a.closing).toBe("DELETED");
    expect(await codeOf(a.say({ versions: [1] }))).toBe("SUBSCRIPTION_NOT_FOUND");
  });

  test("drained tells its members, hears what they still say, and leaves all of it to others", async () => {
    const a = await world.member(replica, "a");
    await world.emit("k", "l");
    const drained = replica.feed.drain(5_000);
    await world.during(drained);
    expect(a.closing).toBe("DRAINING");
    expect(await a.say({ versions: [1] })).toMatchObject({ accepted: 1, version: 1 });
    await world.during(replica.subscriptions.stop());
    replica = await world.replica();
    const b = await world.member(replica, "b");
    expect(b.told).toEqual(["l:2×2"]);
  });

  test("drained does not wait for the last of the server's streams before another replica has it", async () => {
    const a = await world.member(replica, "a");
    await world.emit("k", "l");
    await world.during(replica.feed.drain(60_000));
    await a.say({ versions: [1] });
    await world.time.pass(3_000);
    expect(replica.groups.held()).toEqual([]);
    expect(await codeOf(a.say({ versions: [2] }))).toBe("SUBSCRIPTION_FENCED");
    const second = await world.replica();
    const b = await world.member(second, "b");
    expect(b.told).toEqual(["l:2×2"]);
  });

  test("held by a process that slept for too long gives nothing out before the hold is known to go on", async () => {
    world.terms = { ...TERMS, ackDeadlineMs: 60_000 };
    const a = await world.member(replica, "a");
    a.takesOne = true;
    await world.emit("k");
    await world.emit("l");
    world.time.oversleep(9_000);
    a.resume();
    expect(a.told).toEqual(["k:1"]);
    await world.time.pass(500);
    expect(a.told).toEqual(["k:1", "l:2"]);
  });

  test("found to be another's gives nothing out while it is asked why", async () => {
    const a = await world.member(replica, "a");
    await world.emit("k");
    const { subscriptions } = world.memory;
    subscriptions.states = () => new Promise(() => undefined);
    await subscriptions.claim("g", { replica: "replica 1", url: undefined, leaseMs: 10_000 }, signal);
    expect(await codeOf(a.acknowledge())).toBe("SUBSCRIPTION_FENCED");
    await world.emit("l");
    expect(a.told).toEqual(["k:1"]);
  });

  test("ended while it is written keeps what was said since", async () => {
    const a = await world.member(replica, "a");
    await world.emit("k", "l");
    const { subscriptions } = world.memory;
    const { advance } = subscriptions;
    const answered = Promise.withResolvers<void>();
    subscriptions.advance = async (...said) => {
      await answered.promise;
      return await advance.apply(subscriptions, said);
    };
    const first = a.say({ versions: [1] });
    await world.time.pass(20);
    const second = a.say({ versions: [2] });
    await world.time.pass(20);
    const stopped = replica.subscriptions.stop();
    subscriptions.advance = advance;
    answered.resolve();
    await world.during(stopped);
    expect(await first).toMatchObject({ accepted: 1, version: 1 });
    expect(await second).toMatchObject({ accepted: 1, version: 2 });
  });

  test("older than streams may be goes on with another one, and its members do not notice", async () => {
    world.maxStreamAgeMs = 60_000;
    replica = await world.replica();
    const a = await world.member(replica, "a");
    await world.time.pass(30_000);
    const b = await world.member(replica, "b");
    await world.emit("k");
    await Promise.all([a.acknowledge(), b.acknowledge()]);
    await world.time.pass(28_000);
    expect([a.closing, b.closing]).toEqual(["MAX_AGE", undefined]);
    await world.emit("k");
    expect(b.told.at(-1)).toBe("k:2");
  });

  test("told to end by its deadline may still speak of what it has, and its keys then go to others", async () => {
    const a = await world.member(replica, "a", { request: { deadlineMs: world.time.monotonic() + 1_000 } });
    await world.emit("k", "l");
    await world.time.pass(1_000);
    expect(a.closing).toBe("DEADLINE");
    const b = await world.member(replica, "b");
    expect(b.events).toEqual([]);
    expect(await a.acknowledge()).toMatchObject({ accepted: 2, version: 2 });
    await world.emit("k");
    expect(b.told).toEqual(["k:3"]);
  });
});

describe("another epoch", () => {
  test("ends members with what has become of theirs", async () => {
    const a = await world.member(replica, "a");
    await world.emit("k");
    replica.feed.end(new FeedError("EPOCH_CHANGED", "Another epoch is in force.", "Reconnect."));
    await world.time.pass(100);
    expect(a.error).toMatchObject({ code: "EPOCH_CHANGED" });
    expect(replica.groups.held()).toEqual([]);
  });
});

describe("replicas", () => {
  test("have a group one at a time; what nobody renews another one takes up", async () => {
    world.terms = { ...TERMS, ackDeadlineMs: 60_000 };
    const second = await world.replica();
    const a = await world.member(replica, "a");
    await world.emit("k", "l");
    await a.say({ versions: [1] });
    expect(await codeOf(world.member(second, "b"))).toBe("SUBSCRIPTION_BUSY");
    await world.time.pass(30_000);
    expect(await codeOf(world.member(second, "b"))).toBe("SUBSCRIPTION_BUSY");
    a.leave();
    await world.time.pass(10_000);
    const b = await world.member(second, "b");
    expect(b.told).toEqual(["l:2×2"]);
    expect(await codeOf(a.acknowledge())).toBe("SUBSCRIPTION_FENCED");
  });

  test("that cannot renew give nothing out, and hear that another one has it", async () => {
    world.terms = { ...TERMS, ackDeadlineMs: 60_000 };
    const second = await world.replica();
    const a = await world.member(replica, "a");
    await world.emit("k");
    const renew = world.memory.subscriptions.renew;
    world.memory.subscriptions.renew = () => Promise.reject(new Error("cut off"));
    await world.time.pass(9_000);
    await world.emit("l");
    expect(a.told).toEqual(["k:1"]);
    await world.time.pass(2_000);
    world.memory.subscriptions.renew = renew;
    const b = await world.member(second, "b");
    expect(b.told).toEqual(["k:1×2", "l:2"]);
    await world.time.pass(3_000);
    expect(a.closing).toBe("TAKEN_OVER");
  });
});
