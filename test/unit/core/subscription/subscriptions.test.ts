import { describe, expect, it } from "vitest";
import { encodeCursor } from "../../../../src/core/cursor.ts";
import { acknowledgement, consumerOf, SubscribedWorld, signal, TestConsumer } from "./setup.ts";

describe("a subscription", () => {
  it("goes on after what was acknowledged, and says how often the rest has come", async () => {
    const world = new SubscribedWorld();
    const replica = await world.replica();
    await world.create(replica);
    await world.emit(3);
    const first = await TestConsumer.open(replica);
    await world.time.pass(50);
    expect(first.told).toEqual(["1", "2", "3"]);
    expect(
      await first.acknowledge({ ...last(first), cursor: { ...last(first).cursor, version: 1, fingerprint: 0 } }),
    ).toMatchObject({ version: 1 });
    first.leave();
    await world.emit(2);

    const second = await TestConsumer.open(replica);
    await world.time.pass(50);
    expect(second.frames[0]).toMatchObject({
      kind: "opened",
      version: 1,
      streamId: "",
      lease: { subscriptionId: "s", generation: 2 },
    });
    expect(second.told).toEqual(["2×2", "3×2", "4", "5"]);
    second.leave();
    const third = await TestConsumer.open(replica);
    await world.time.pass(50);
    expect(third.told).toEqual(["2×3", "3×3", "4×2", "5×2"]);
    await third.acknowledgeAll();
    await world.emit();
    expect(third.told.slice(4)).toEqual(["6"]);
  });

  it("is refused where there are as many as there may be, unless it is there; until others go", async () => {
    const world = new SubscribedWorld();
    const replica = await world.replica(false, undefined, 2);
    await world.time.pass(50);
    await world.create(replica, "a");
    await world.create(replica, "b");
    await expect(world.create(replica, "c")).rejects.toMatchObject({ code: "LIMIT_EXCEEDED" });
    await world.time.pass(10_100);
    await expect(world.create(replica, "c")).rejects.toMatchObject({ code: "LIMIT_EXCEEDED" });
    expect(await world.create(replica, "a")).toMatchObject({ existed: true });
    await replica.subscriptions.delete("b", signal);
    await world.time.pass(10_100);
    expect(await world.create(replica, "c")).toMatchObject({ existed: false });
  });

  it("costs nothing for each event once what comes again is over: frames are the lane's own", async () => {
    const world = new SubscribedWorld();
    const replica = await world.replica();
    await world.create(replica);
    await world.emit(2);
    const first = await TestConsumer.open(replica);
    await world.time.pass(50);
    first.leave();
    await world.emit(2);
    const second = await TestConsumer.open(replica, "s", { maxBatchBytes: 500 });
    await world.time.pass(50);
    await world.emit(2);
    const batches = second.frames.filter((frame) => frame.kind === "events");
    expect(second.told).toEqual(["1×2", "2×2", "3", "4", "5", "6"]);
    expect(batches.map(({ shared }) => shared === undefined)).toEqual([true, false, false].slice(0, batches.length));
  });

  it("splits what would be too large with its marks, and each part can be gone on after", async () => {
    const world = new SubscribedWorld();
    const replica = await world.replica();
    await world.create(replica);
    await world.emit(4);
    const small = {
      maxBatchBytes: 1_000,
      codec: { identity: "marks", measure: (event: { attempt?: number }) => (event.attempt === undefined ? 250 : 260) },
    };
    const first = await TestConsumer.open(replica, "s", small);
    await world.time.pass(50);
    expect(first.frames.filter(({ kind }) => kind === "events").length).toBe(1);
    first.leave();
    const second = await TestConsumer.open(replica, "s", small);
    await world.time.pass(50);
    const batches = second.frames.filter((frame) => frame.kind === "events");
    expect(batches.map(({ events, complete }) => [events.length, complete])).toEqual([
      [3, false],
      [1, true],
    ]);
    await second.acknowledge(batches[0]);
    const third = await TestConsumer.open(replica, "s", small);
    await world.time.pass(50);
    expect(third.told).toEqual(["4×3"]);
  });

  it("belongs to its newest stream: the older ends, and what it says is fenced", async () => {
    const world = new SubscribedWorld();
    const [here, there] = [await world.replica(), await world.replica()];
    await world.create(here);
    await world.emit(2);
    const old = await TestConsumer.open(here);
    await world.time.pass(50);
    const young = await TestConsumer.open(there);
    await world.time.pass(50);
    expect(old.closing).toBe("TAKEN_OVER");
    expect(old.ended).toBe(true);
    expect(old.error).toBeUndefined();
    await expect(old.acknowledgeAll()).rejects.toMatchObject({ code: "SUBSCRIPTION_FENCED" });
    expect(await young.acknowledgeAll()).toMatchObject({ version: 2 });
    expect(here.subscriptions.stats()).toMatchObject({ streams: 0, fenced: 2 });
    const again = await TestConsumer.open(there);
    expect(young.closing).toBe("TAKEN_OVER");
    await world.time.pass(50);
    expect(again.told).toEqual([]);
  });

  it("is told by its next stream on the same replica what the one before has delivered, to the last event", async () => {
    const world = new SubscribedWorld();
    const replica = await world.replica();
    await world.create(replica);
    await world.create(replica, "other");
    await (await TestConsumer.open(replica, "other")).control?.cancel(undefined);
    const old = await TestConsumer.open(replica);
    await world.emit(3);
    expect(old.told).toEqual(["1", "2", "3"]);
    const young = await TestConsumer.open(replica);
    await world.time.pass(50);
    expect(young.told).toEqual(["1×2", "2×2", "3×2"]);
  });

  it("is created once, also when where it began is not there any more", async () => {
    const world = new SubscribedWorld();
    const replica = await world.replica();
    await world.emit(5);
    const start = { kind: "version", version: 1, epoch: undefined } as const;
    expect((await world.create(replica, "s", start)).existed).toBe(false);
    const consumer = await TestConsumer.open(replica);
    await world.time.pass(50);
    await consumer.acknowledgeAll();
    world.memory.retainFrom(4);
    expect(await world.create(replica, "s", start)).toMatchObject({
      existed: true,
      record: { position: { version: 5 } },
    });
    await expect(world.create(replica, "t", start)).rejects.toMatchObject({ code: "HISTORY_LOST" });
    await expect(world.create(replica, "s", start, { owner: "x" })).rejects.toMatchObject({
      code: "SUBSCRIPTION_EXISTS",
    });
  });

  it("is looked after where no hint comes: within two seconds everybody knows", async () => {
    const world = new SubscribedWorld();
    const [deaf, there] = [await world.replica(true), await world.replica()];
    await world.create(there);
    const outcomes = [
      ["TAKEN_OVER", () => TestConsumer.open(there)],
      ["PAUSED", () => there.subscriptions.pause("s", true, signal)],
      ["MOVED", () => there.subscriptions.seek("s", { kind: "oldest" }, signal)],
      ["DELETED", () => there.subscriptions.delete("s", signal)],
    ] as const;
    for (const [reason, act] of outcomes) {
      const consumer = await TestConsumer.open(deaf);
      await act();
      await world.time.pass(1_000);
      await world.time.pass(1_100);
      expect(consumer.closing).toBe(reason);
      if (reason === "PAUSED") await there.subscriptions.pause("s", false, signal);
    }
  });

  it("pauses, moves and ends its stream at once where that is asked for", async () => {
    const world = new SubscribedWorld();
    const replica = await world.replica();
    await world.create(replica);
    await world.emit(3);
    const first = await TestConsumer.open(replica);
    await replica.subscriptions.pause("s", true, signal);
    expect(first.closing).toBe("PAUSED");
    await expect(TestConsumer.open(replica)).rejects.toMatchObject({ code: "SUBSCRIPTION_PAUSED" });
    await replica.subscriptions.pause("s", false, signal);
    const second = await TestConsumer.open(replica);
    await world.time.pass(50);
    await second.acknowledgeAll();
    await replica.subscriptions.seek("s", { kind: "version", version: 1, epoch: undefined }, signal);
    expect(second.closing).toBe("MOVED");
    const third = await TestConsumer.open(replica);
    await world.time.pass(50);
    // What was tried before it was moved is forgotten.
    expect(third.told).toEqual(["2", "3"]);
    expect(await replica.subscriptions.delete("s", signal)).toMatchObject({ position: { version: 1 } });
    expect(third.closing).toBe("DELETED");
    await expect(TestConsumer.open(replica)).rejects.toMatchObject({ code: "SUBSCRIPTION_NOT_FOUND" });
    await expect(third.acknowledgeAll()).rejects.toMatchObject({ code: "SUBSCRIPTION_NOT_FOUND" });
  });

  it("says its last word to a consumer that takes nothing only when that comes, and not for ever", async () => {
    const world = new SubscribedWorld();
    const replica = await world.replica();
    await world.create(replica);
    const patient = await TestConsumer.open(replica);
    patient.ready = false;
    await replica.subscriptions.pause("s", true, signal);
    expect([patient.closing, patient.ended]).toEqual([undefined, false]);
    patient.ready = true;
    patient.control?.resume();
    expect([patient.closing, patient.ended, patient.error]).toEqual(["PAUSED", true, undefined]);
    await replica.subscriptions.pause("s", false, signal);
    const stuck = await TestConsumer.open(replica);
    stuck.ready = false;
    await replica.subscriptions.pause("s", true, signal);
    await world.time.pass(6_000);
    expect(stuck.ended).toBe(true);
    expect(stuck.error).toMatchObject({ code: "SLOW_CONSUMER" });
  });

  it("only moves forward, whoever acknowledges and in whatever order", async () => {
    const world = new SubscribedWorld();
    const replica = await world.replica();
    await world.create(replica);
    const consumer = await TestConsumer.open(replica);
    for (let i = 0; i < 3; i++) await world.emit();
    const [one, two, three] = consumer.frames.filter(({ kind }) => kind === "events");
    const { subscriptions } = replica;
    expect(await consumer.acknowledge(two)).toMatchObject({ version: 2 });
    expect(await consumer.acknowledge(one)).toMatchObject({ version: 2 });
    expect(await subscriptions.acknowledge(acknowledgement("s", three, 0), signal)).toMatchObject({ version: 3 });
    expect(await subscriptions.acknowledge(acknowledgement("s", two, 0), signal)).toMatchObject({ version: 3 });
    expect((await subscriptions.get("s", signal)).position.version).toBe(3);
  });

  it("refuses what was never delivered, what cannot be read, and what a group alone can say", async () => {
    const world = new SubscribedWorld();
    const replica = await world.replica();
    await world.create(replica);
    await world.emit();
    const consumer = await TestConsumer.open(replica);
    const { subscriptions } = replica;
    const say = (more: object) =>
      subscriptions.acknowledge({ ...acknowledgement("s", consumer.frames[0], 0), ...more }, signal);
    const ahead = encodeCursor({ epoch: world.memory.epoch, version: 9, fingerprint: 0, snapshot: undefined });
    const stranger = encodeCursor({ epoch: crypto.randomUUID(), version: 1, fingerprint: 0, snapshot: undefined });
    const rolledBack = encodeCursor({ epoch: world.memory.epoch, version: 1, fingerprint: 77, snapshot: undefined });
    await expect(say({ cursor: ahead })).rejects.toMatchObject({ code: "CURSOR_INVALID" });
    await expect(say({ cursor: stranger })).rejects.toMatchObject({ code: "EPOCH_CHANGED" });
    await expect(say({ cursor: rolledBack })).rejects.toMatchObject({ code: "CURSOR_INVALID" });
    await expect(say({ cursor: "nonsense" })).rejects.toMatchObject({ code: "CURSOR_INVALID" });
    await expect(say({ cursor: undefined })).rejects.toMatchObject({ code: "INVALID_REQUEST" });
    await expect(say({ versions: [1] })).rejects.toMatchObject({ code: "INVALID_REQUEST" });
    await expect(say({ member: "m" })).rejects.toMatchObject({ code: "INVALID_REQUEST" });
    await expect(say({ id: "other" })).rejects.toMatchObject({ code: "SUBSCRIPTION_NOT_FOUND" });
  });

  it("writes deliveries and acknowledgements of many in a few statements", async () => {
    const world = new SubscribedWorld();
    const replica = await world.replica();
    const ids = Array.from({ length: 50 }, (_, index) => `s${index}`);
    for (const id of ids) await world.create(replica, id);
    const consumers = await Promise.all(ids.map((id) => TestConsumer.open(replica, id)));
    const before = { ...world.statements };
    for (let round = 0; round < 20; round++) {
      await world.emit(10);
      await Promise.all(consumers.map((consumer) => consumer.acknowledgeAll()));
    }
    expect(consumers.every(({ events }) => events.length === 200)).toBe(true);
    // 1,000 acknowledgements of 10,000 deliveries, within a second: one write for each round, one for the rest.
    expect((world.statements.advance ?? 0) - (before.advance ?? 0)).toBeLessThanOrEqual(2 * 20 + 1);
    expect(replica.subscriptions.stats().acknowledgements).toBe(1_000);
    expect(world.statements.get ?? 0).toBe(before.get ?? 0);
  });

  it("tells the database of what was delivered every second, and as its stream ends", async () => {
    const world = new SubscribedWorld();
    const [here, there] = [await world.replica(), await world.replica()];
    await world.create(here);
    const first = await TestConsumer.open(here);
    await world.emit(2);
    await world.time.pass(1_000);
    await world.emit(2);
    // A process that is killed says nothing more: what it delivered within the last second is forgotten.
    const second = await TestConsumer.open(there);
    await world.time.pass(50);
    expect(second.told).toEqual(["1×2", "2×2", "3", "4"]);
    second.leave();
    await world.time.pass(10);
    const third = await TestConsumer.open(here);
    await world.time.pass(50);
    expect(third.told).toEqual(["1×3", "2×3", "3×2", "4×2"]);
    expect(first.closing).toBe("TAKEN_OVER");
  });

  it("moves past what its selectors do not want without anybody having to say so", async () => {
    const world = new SubscribedWorld();
    const replica = await world.replica();
    await world.create(replica);
    const wanted = { topics: ["wanted"], keys: [], operations: [] };
    const request = { selectors: [wanted], checkpointIntervalMs: 1_000 };
    const consumer = await TestConsumer.open(replica, "s", request);
    await world.emit(5);
    await world.time.pass(70_000);
    expect(consumer.events).toEqual([]);
    expect((await replica.subscriptions.get("s", signal)).position.version).toBe(5);
  });

  it("does not move past what was delivered and not acknowledged, however many checkpoints follow", async () => {
    const world = new SubscribedWorld();
    const replica = await world.replica();
    await world.create(replica);
    const consumer = await TestConsumer.open(replica, "s", { checkpointIntervalMs: 1_000 });
    await world.emit(5);
    await world.time.pass(70_000);
    expect(consumer.frames.some(({ kind }) => kind === "checkpoint")).toBe(true);
    expect((await replica.subscriptions.get("s", signal)).position.version).toBe(0);
  });

  it("does not expire while it is read, though nothing comes", async () => {
    const world = new SubscribedWorld();
    const replica = await world.replica();
    await world.create(replica, "s", { kind: "now" }, { expireAfterMs: 8_000 });
    const consumer = await TestConsumer.open(replica);
    await world.time.pass(20_000);
    expect(consumer.ended).toBe(false);
    consumer.leave();
    await world.time.pass(9_000);
    await expect(replica.subscriptions.get("s", signal)).rejects.toMatchObject({ code: "SUBSCRIPTION_NOT_FOUND" });
  });

  it("goes on in pieces as the same generation, until another consumer comes", async () => {
    const world = new SubscribedWorld();
    const [here, there] = [await world.replica(), await world.replica()];
    await world.create(here);
    await world.emit(3);
    const first = await TestConsumer.open(here);
    await world.time.pass(50);
    first.leave();
    const second = await TestConsumer.reopen(here, first.generation);
    await world.time.pass(50);
    expect(second.generation).toBe(first.generation);
    expect(second.told).toEqual(["1×2", "2×2", "3×2"]);
    await second.acknowledgeAll();
    second.leave();
    const elsewhere = await TestConsumer.reopen(there, first.generation);
    await world.emit();
    expect(elsewhere.told).toEqual(["4"]);
    await TestConsumer.open(here);
    await world.time.pass(50);
    expect(elsewhere.closing).toBe("TAKEN_OVER");
    await expect(TestConsumer.reopen(there, first.generation)).rejects.toMatchObject({ code: "SUBSCRIPTION_FENCED" });
  });

  it("begins with the rows of a snapshot, goes on in the middle of it, and never leads back into it", async () => {
    const world = new SubscribedWorld();
    const replica = await world.replica();
    const transaction = world.memory.begin();
    for (let i = 0; i < 6; i++) await transaction.put("orders", `${i}`, "{}");
    transaction.commit();
    await world.time.pass(50);
    await world.create(replica, "s", { kind: "snapshot" });
    const small = { maxBatchBytes: 500 };
    const first = await TestConsumer.open(replica, "s", small);
    await world.time.pass(50);
    const batches = first.frames.filter(({ kind }) => kind === "events");
    const complete = first.frames.find(({ kind }) => kind === "snapshot_complete");
    expect(first.events.map(({ operation }) => operation)).toEqual(Array.from({ length: 6 }, () => "SNAPSHOT"));
    await first.acknowledge(batches[1]);
    await first.acknowledge(batches[0]);
    const second = await TestConsumer.open(replica, "s", small);
    await world.time.pass(50);
    expect(second.frames.find(({ kind }) => kind === "snapshot_started")).toMatchObject({ resumed: true });
    expect(batches.length).toBe(3);
    expect(second.events.length).toBe(2);
    await second.acknowledge(second.frames.find(({ kind }) => kind === "snapshot_complete"));
    await replica.subscriptions.acknowledge(acknowledgement("s", batches[2], 0), signal);
    expect(complete).toBeDefined();
    const third = await TestConsumer.open(replica, "s", small);
    await world.emit();
    expect(third.frames.map(({ kind }) => kind)).toEqual(["opened", "events"]);
  });

  it("is told where another epoch has left it, and goes on below the fork", async () => {
    const world = new SubscribedWorld();
    const before = await world.replica();
    await world.create(before, "below");
    await world.create(before, "beyond");
    await world.emit(2);
    await TestConsumer.open(before, "below");
    const { version: fork } = await before.feed.locate({ kind: "now" }, signal);
    await world.emit(2);
    const beyond = await TestConsumer.open(before, "beyond");
    await world.time.pass(50);
    await beyond.acknowledgeAll();
    world.memory = world.memory.fork(fork);
    const after = await world.replica();
    await expect(TestConsumer.open(after, "beyond")).rejects.toMatchObject({
      code: "EPOCH_CHANGED",
      action: expect.stringContaining(`after_version\` ${fork}`),
    });
    const below = await TestConsumer.open(after, "below");
    await world.time.pass(50);
    expect(below.events.map(({ version }) => version)).toEqual([1, 2]);
    expect(await below.acknowledgeAll()).toMatchObject({ version: 2 });
    const { position } = await after.subscriptions.get("below", signal);
    expect(position.epoch).toBe(world.memory.epoch);
    await after.subscriptions.seek("beyond", { kind: "version", version: fork, epoch: undefined }, signal);
    expect((await TestConsumer.open(after, "beyond")).frames[0]).toMatchObject({ version: fork });
  });

  it("keeps history from a consumer only as far as that is kept: LOST until it is moved", async () => {
    const world = new SubscribedWorld();
    const replica = await world.replica();
    await world.create(replica);
    await world.emit(5);
    world.memory.retainFrom(4);
    await expect(TestConsumer.open(replica)).rejects.toMatchObject({
      code: "HISTORY_LOST",
      detail: { oldestVersion: 4 },
    });
    await replica.subscriptions.seek("s", { kind: "oldest" }, signal);
    const consumer = await TestConsumer.open(replica);
    await world.time.pass(50);
    expect(consumer.told).toEqual(["4", "5"]);
  });

  it("ends with the feed, and takes acknowledgements to the last", async () => {
    const world = new SubscribedWorld();
    const replica = await world.replica();
    await world.create(replica);
    await world.emit(2);
    const consumer = await TestConsumer.open(replica);
    await world.time.pass(50);
    await replica.feed.drain(0);
    await world.time.pass(50);
    expect(consumer.closing).toBe("DRAINING");
    await expect(TestConsumer.open(replica)).rejects.toMatchObject({ code: "DRAINING" });
    await expect(replica.subscriptions.get("s", signal)).rejects.toMatchObject({ code: "DRAINING" });
    expect(await consumer.acknowledgeAll()).toMatchObject({ version: 2 });
    await replica.subscriptions.stop();
    await expect(consumer.acknowledgeAll()).rejects.toMatchObject({ code: "DRAINING" });
    await replica.feed.stop();
    expect(world.time.pending).toBe(0);
  });

  it("stands through an outage: what could not be written is written when the database is back", async () => {
    const world = new SubscribedWorld();
    const [here, there] = [await world.replica(), await world.replica()];
    await world.create(here);
    const consumer = await TestConsumer.open(here);
    await world.emit(3);
    world.memory.outage.refuse();
    await expect(consumer.acknowledgeAll()).rejects.toMatchObject({ code: "DATABASE_UNAVAILABLE" });
    await world.time.pass(5_000);
    expect(consumer.ended).toBe(false);
    world.memory.outage.lift();
    await world.time.pass(5_000);
    const next = await TestConsumer.open(there);
    await world.time.pass(50);
    expect(next.told).toEqual(["1×2", "2×2", "3×2"]);
    expect(consumer.closing).toBe("TAKEN_OVER");
  });

  it("is not taken from its consumer by somebody who cannot be served", async () => {
    const world = new SubscribedWorld();
    const [here, there] = [await world.replica(), await world.replica()];
    await world.create(here);
    const consumer = await TestConsumer.open(here);
    await there.feed.drain(0);
    await expect(there.subscriptions.open(consumerOf("s"), signal)).rejects.toMatchObject({ code: "DRAINING" });
    await world.time.pass(5_000);
    expect(consumer.ended).toBe(false);
  });
});

function last(consumer: TestConsumer) {
  const frame = consumer.frames.findLast(({ kind }) => kind === "events");
  if (frame === undefined) throw new Error("nothing was delivered");
  return frame;
}
