import { beforeEach, describe, expect, test } from "vitest";
import { FeedError } from "../../../../src/core/errors.ts";
import { GroupWorld, type Replica, signal, TERMS } from "./group-setup.ts";

let world: GroupWorld;
let replica: Replica;

beforeEach(async () => {
  world = new GroupWorld();
  replica = await world.replica();
  await world.create(replica);
});

async function codeOf(work: Promise<unknown>): Promise<unknown> {
  try {
    await work;
    return undefined;
  } catch (error) {
    return error instanceof Error && "code" in error ? error.code : error;
  }
}

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
