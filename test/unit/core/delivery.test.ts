import { describe, expect, test } from "vitest";
import type { OpenStream, StreamRequest } from "../../../src/core/feed.ts";
import type { EventsFrame, Frame } from "../../../src/core/frame.ts";
import type { Outlet } from "../../../src/core/outlet.ts";
import { emit, inFrontOf, REQUEST, type Setup, setUp } from "./memory-feed.ts";

const forever = new AbortController().signal;

/** Takes frames while it is ready. */
class Taker implements Outlet {
  ready = true;
  readonly inline: boolean;
  readonly frames: Frame[] = [];
  readonly ends: unknown[] = [];

  constructor(inline = false) {
    this.inline = inline;
  }

  get events(): readonly EventsFrame[] {
    return this.frames.filter((frame) => frame.kind === "events");
  }

  get kinds(): readonly string[] {
    return this.frames.map(({ kind }) => kind);
  }

  write(frame: Frame): void {
    expect(this.ready).toBe(true);
    this.frames.push(frame);
  }

  end(error: unknown): void {
    this.ends.push(error);
  }
}

async function take({ feed }: Setup, request: Partial<StreamRequest> = {}, inline = false) {
  const taker = new Taker(inline);
  const stream: OpenStream = await feed.open({ ...REQUEST, ...request }, forever);
  return { taker, control: stream.attach(taker) };
}

function codeOf(work: Promise<unknown>): Promise<unknown> {
  return work.then(
    () => undefined,
    (error: unknown) => error,
  );
}

describe("delivery", () => {
  test("streams of a lane get the very same frames, and those of another lane others", async () => {
    const setup = await setUp();
    const [one, two] = [await take(setup), await take(setup)];
    const other = await take(setup, { maxBatchBytes: 1_000 });
    emit(setup.memory, 3);
    await setup.time.pass(20);
    expect(one.taker.events[0]).toMatchObject({ events: { length: 3 }, complete: true });
    expect(two.taker.events[0]).toBe(one.taker.events[0]);
    expect(other.taker.events[0]).not.toBe(one.taker.events[0]);
    expect(other.taker.events[0]?.events[0]).toBe(one.taker.events[0]?.events[0]);
    expect(setup.feed.stats().lanes).toBe(2);
    await setup.feed.stop();
  });

  test("G9 an inline outlet has its frame before the append returns; another one in a later turn", async () => {
    const setup = await setUp();
    const [inline, queued] = [await take(setup, {}, true), await take(setup)];
    await setup.time.pass(0);
    let seen: readonly number[] = [];
    inline.taker.write = () => {
      seen = [1, queued.taker.events.length];
    };
    emit(setup.memory);
    await setup.time.pass(20);
    expect(seen).toEqual([1, 0]);
    expect(queued.taker.events.length).toBe(1);
    await setup.feed.stop();
  });

  test("events wait for more as long as the stream allows, and no longer; checkpoints do not wait", async () => {
    const setup = await setUp();
    const { time, memory, feed } = setup;
    const { taker } = await take(setup, { maxBatchDelayMs: 100, checkpointIntervalMs: 50 });
    await time.pass(0);
    for (const wait of [20, 20, 30]) {
      emit(memory);
      await time.pass(wait);
    }
    expect(taker.kinds).toEqual(["checkpoint"]);
    expect(taker.frames[0]).toMatchObject({ version: 0, lagVersions: 3 });
    await time.pass(60);
    expect(taker.events).toMatchObject([{ events: { length: 3 }, complete: true }]);
    emit(memory);
    await time.pass(90);
    expect(taker.events.length).toBe(1);
    await time.pass(30);
    expect(taker.events).toMatchObject([{}, { events: { length: 1 } }]);
    await feed.stop();
  });

  test("events that are enough for a frame do not wait", async () => {
    const setup = await setUp();
    const { taker } = await take(setup, { maxBatchDelayMs: 10_000, maxBatchEvents: 3 });
    await setup.time.pass(0);
    emit(setup.memory, 2);
    await setup.time.pass(20);
    expect(taker.events.length).toBe(0);
    emit(setup.memory, 2);
    await setup.time.pass(20);
    expect(taker.events.map(({ events }) => events.length)).toEqual([2, 2]);
    await setup.feed.stop();
  });

  test("streams that wait differently long are in different lanes", async () => {
    const setup = await setUp();
    const [slow, quick] = [await take(setup, { maxBatchDelayMs: 500 }), await take(setup)];
    await setup.time.pass(0);
    emit(setup.memory);
    await setup.time.pass(20);
    expect([slow.taker.events.length, quick.taker.events.length]).toEqual([0, 1]);
    await setup.time.pass(500);
    expect(slow.taker.events.length).toBe(1);
    await setup.feed.stop();
  });

  test("G9 an outlet that is not ready gets nothing, costs no frame, and goes on when it resumes", async () => {
    const setup = await setUp();
    const { taker, control } = await take(setup);
    await setup.time.pass(0);
    taker.ready = false;
    emit(setup.memory, 2);
    await setup.time.pass(20);
    emit(setup.memory, 2);
    await setup.time.pass(20);
    expect(taker.frames).toEqual([]);
    expect(setup.feed.stats()).toMatchObject({ frames: 1, lagVersions: [4] });
    taker.ready = true;
    control.resume();
    await setup.time.pass(0);
    expect(taker.events.flatMap(({ events }) => events.map(({ version }) => version))).toEqual([1, 2, 3, 4]);
    await setup.feed.stop();
  });

  test("a stream that is cancelled gets one end and nothing after it", async () => {
    const setup = await setUp();
    const { taker, control } = await take(setup);
    await setup.time.pass(0);
    control.cancel("gone");
    control.cancel("again");
    control.resume();
    emit(setup.memory);
    await setup.time.pass(20);
    expect([taker.frames, taker.ends]).toEqual([[], ["gone"]]);
    expect(setup.feed.stats()).toMatchObject({ opened: 1, ended: { CANCELLED: 1 }, lanes: 0, laneBytes: 0 });
    await setup.feed.stop();
  });
});

describe("G9 what one stream does costs no other", () => {
  test("an event that a codec cannot take ends the streams of that lane, and nothing else", async () => {
    const setup = await setUp();
    const fault = new Error("cannot be measured");
    const measure = () => {
      throw fault;
    };
    const bad = await take(setup, { codec: { identity: "bad", measure } });
    const good = await take(setup);
    await setup.time.pass(0);
    for (let i = 0; i < 2; i++) {
      emit(setup.memory);
      await setup.time.pass(20);
    }
    expect([bad.taker.frames, bad.taker.ends]).toEqual([[], [fault]]);
    expect(good.taker.events.length).toBe(2);
    expect(setup.feed.status()).toMatchObject({ state: "LIVE", streams: 1 });
    expect(setup.reports).toEqual([]);
    await setup.feed.stop();
  });

  test("streams that end each other from within an append leave the rest what is theirs", async () => {
    const setup = await setUp();
    const streams = [await take(setup, {}, true), await take(setup, {}, true), await take(setup, {}, true)];
    const other = await take(setup, { maxBatchEvents: 7 }, true);
    await setup.time.pass(0);
    for (const { taker } of streams) {
      const write = taker.write.bind(taker);
      taker.write = (frame) => {
        write(frame);
        streams.find((each) => each.taker !== taker && each.taker.ends.length === 0)?.control.cancel("shot");
      };
    }
    for (let i = 0; i < 5; i++) {
      emit(setup.memory);
      await setup.time.pass(20);
    }
    expect(streams.map(({ taker }) => taker.ends.length).sort()).toEqual([0, 1, 1]);
    const survivor = streams.find(({ taker }) => taker.ends.length === 0);
    expect(survivor?.taker.events.length).toBe(5);
    expect(other.taker.events.length).toBe(5);
    expect(setup.feed.status().streams).toBe(2);
    await setup.feed.stop();
  });
});

describe("limits of a feed", () => {
  test("G9 each is an error with its name, and what was refused leaves nothing behind", async () => {
    const limits = { maxStreams: 3, maxStreamsPerPeer: 2, maxLanes: 2, maxSelectors: 1, maxFilterBytes: 20 };
    const setup = await setUp({ limits });
    const refused = (request: Partial<StreamRequest>) => codeOf(take(setup, request));
    const selector = { topics: ["a"], keys: [], operations: [] };
    const named = (name: string) => ({ code: "LIMIT_EXCEEDED", message: expect.stringContaining(`(${name})`) });
    expect(await refused({ selectors: [selector, selector] })).toMatchObject(named("maxSelectors"));
    const filter = "row.customer_name == 'somebody'";
    expect(await refused({ selectors: [{ ...selector, filter }] })).toMatchObject(named("maxFilterBytes"));
    const ada = await take(setup, { peer: "ada" });
    const second = await take(setup, { peer: "ada", selectors: [selector] });
    expect(await refused({ peer: "ada" })).toMatchObject(named("maxStreamsPerPeer"));
    const another = { selectors: [{ ...selector, topics: ["b"] }] };
    expect(await refused({ peer: "bob", ...another })).toMatchObject(named("maxLanes"));
    expect(setup.feed.status().streams).toBe(2);
    await take(setup, { peer: "bob" });
    expect(await refused({ peer: "bob" })).toMatchObject(named("maxStreams"));
    second.control.cancel(undefined);
    const third = await take(setup, { peer: "ada", ...another });
    expect(setup.feed.status().streams).toBe(3);
    third.control.cancel(undefined);
    ada.control.cancel(undefined);
    await take(setup, { peer: "ada" });
    await take(setup, { peer: "ada" });
    expect(setup.feed.status().streams).toBe(3);
    await setup.feed.stop();
  });

  test("G9 a snapshot that has begun for a stream which is refused is ended", async () => {
    const readers: { closed: boolean }[] = [];
    const setup = await setUp({ limits: { maxLanes: 1 } }, (store) =>
      inFrontOf(store, {
        snapshot: async (request, signal) => {
          const reader = await store.snapshot(request, signal);
          const close = reader.close.bind(reader);
          const state = { closed: false };
          readers.push(state);
          reader.close = async () => {
            state.closed = true;
            await close();
          };
          return reader;
        },
      }),
    );
    await take(setup);
    const refused = codeOf(take(setup, { start: { kind: "snapshot" }, maxBatchBytes: 1_000 }));
    expect(await refused).toMatchObject({ code: "LIMIT_EXCEEDED", message: expect.stringContaining("(maxLanes)") });
    expect(readers).toEqual([{ closed: true }]);
    await setup.feed.stop();
  });

  test("G9 lanes remember no more than they may, and deliver everything all the same", async () => {
    const setup = await setUp({ limits: { maxLaneBytes: 4_000, maxLanesBytes: 6_000 } });
    const takers = [
      await take(setup),
      await take(setup, { maxBatchEvents: 2 }),
      await take(setup, { maxBatchBytes: 500 }),
    ];
    const [slow] = takers;
    await setup.time.pass(0);
    if (slow !== undefined) slow.taker.ready = false;
    for (let i = 0; i < 30; i++) {
      emit(setup.memory, 3);
      await setup.time.pass(10);
      expect(setup.feed.stats().laneBytes).toBeLessThanOrEqual(6_000);
    }
    if (slow !== undefined) slow.taker.ready = true;
    slow?.control.resume();
    await setup.time.pass(20);
    const all = Array.from({ length: 90 }, (_, i) => i + 1);
    for (const { taker } of takers) {
      expect(taker.events.flatMap(({ events }) => events.map(({ version }) => version))).toEqual(all);
    }
    await setup.feed.stop();
  });
});

describe("memory of a lane", () => {
  test("G9 holds what it may, and the page that has just come", async () => {
    const setup = await setUp({ limits: { maxLaneBytes: 4_000 } });
    await take(setup);
    await setup.time.pass(0);
    let most = 0;
    for (let i = 0; i < 50; i++) {
      emit(setup.memory);
      await setup.time.pass(10);
      most = Math.max(most, setup.feed.stats().laneBytes);
    }
    expect(most).toBeGreaterThan(3_000);
    expect(most).toBeLessThanOrEqual(4_000 + 300);
    await setup.feed.stop();
  });
});

describe("stats of a feed", () => {
  test("G10 a stream that waits because it may not be faster is behind", async () => {
    const setup = await setUp();
    const { taker } = await take(setup, { maxEventsPerSecond: 1 });
    emit(setup.memory, 5);
    await setup.time.pass(30);
    expect(taker.events).toMatchObject([{ events: { length: 1 } }]);
    expect(setup.feed.stats()).toMatchObject({ lagVersions: [4], lagMs: [expect.any(Number)] });
    await setup.time.pass(5_000);
    expect(setup.feed.stats()).toMatchObject({ lagVersions: [0], lagMs: [0] });
    await setup.feed.stop();
  });

  test("G10 say what streams got, where they are, and how they ended", async () => {
    const setup = await setUp({ limits: { logMaxBytes: 1 } });
    emit(setup.memory, 5);
    await setup.time.pass(20);
    emit(setup.memory, 1);
    await setup.time.pass(20);
    const { taker } = await take(setup, { start: { kind: "oldest" } });
    const idle = await take(setup, { selectors: [{ topics: ["none"], keys: [], operations: [] }] });
    await setup.time.pass(50);
    expect(taker.events.flatMap(({ events }) => events).length).toBe(6);
    emit(setup.memory, 2);
    await setup.time.pass(20);
    expect(setup.feed.stats()).toMatchObject({
      streamsByPhase: { opening: 0, snapshot: 0, catching_up: 0, live: 2, closing: 0 },
      streamsByPolicy: { BLOCK: 2 },
      lagVersions: [0, 0],
      lanes: 2,
      opened: 2,
      ended: {},
      events: 8,
      catchUps: 1,
      droppedEvents: 0,
      filterErrors: 0,
      dispatched: 2,
      laneTouches: 2,
    });
    idle.control.cancel("gone");
    await setup.feed.stop();
    await setup.time.pass(0);
    expect(taker.frames.at(-1)).toMatchObject({ kind: "closing", reason: "DRAINING" });
    expect(setup.feed.stats()).toMatchObject({ ended: { CANCELLED: 1, CLOSING: 1 }, lanes: 0 });
  });
});
