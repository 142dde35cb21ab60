import { describe, expect, test } from "vitest";
import { decodeCursor, encodeCursor } from "../../../src/core/cursor.ts";
import { FeedError } from "../../../src/core/errors.ts";
import type { Feed, Start, StreamRequest } from "../../../src/core/feed.ts";
import type { Frame } from "../../../src/core/frame.ts";
import type { Outlet, StreamControl } from "../../../src/core/outlet.ts";
import type { Policy } from "../../../src/core/policy/policy.ts";
import { emit, REQUEST, setUp } from "./memory-feed.ts";

const DISCONNECT: Policy = { kind: "DISCONNECT", maxLagEvents: 10, sampleEvery: 10 };

/** A client that takes so many frames, and then nothing until it is given leave. */
class Client implements Outlet {
  readonly inline = false;
  readonly frames: Frame[] = [];
  ended: { readonly error: unknown } | undefined;
  #leave: number;
  #control: StreamControl | undefined;

  constructor(leave: number) {
    this.#leave = leave;
  }

  static async of(feed: Feed, leave: number, request: Partial<StreamRequest>): Promise<Client> {
    const client = new Client(leave);
    const stream = await feed.open({ ...REQUEST, ...request }, new AbortController().signal);
    client.frames.push(stream.opened);
    client.#control = stream.attach(client);
    return client;
  }

  get ready(): boolean {
    return this.#leave > 0;
  }

  get versions(): number[] {
    return this.frames.flatMap((frame) => (frame.kind === "events" ? frame.events.map(({ version }) => version) : []));
  }

  take(frames: number): void {
    this.#leave = frames;
    this.#control?.resume();
  }

  write(frame: Frame): void {
    this.#leave -= 1;
    this.frames.push(frame);
  }

  end(error: unknown): void {
    this.ended = { error };
  }
}

function startAfter(frame: Frame | undefined): Start {
  return { kind: "cursor", cursor: frame === undefined ? "" : encodeCursor(frame.cursor) };
}

function cursorOf(error: unknown): string {
  return error instanceof FeedError ? (error.detail.cursor ?? "") : "";
}

describe("a stream", () => {
  test("G9 G10 whose client takes nothing is disconnected once it is too far behind for a second, with the cursor after what it took", async () => {
    const { time, feed, memory } = await setUp();
    const timersBefore = time.pending;
    const client = await Client.of(feed, 1, { policy: DISCONNECT });
    emit(memory, 3);
    await time.pass(20);
    expect(client.versions).toEqual([1, 2, 3]);
    emit(memory, 10);
    await time.pass(60_000);
    expect(client.ended).toBeUndefined();
    emit(memory);
    await time.pass(3_000);
    expect(client.ended?.error).toMatchObject({
      code: "SLOW_CONSUMER",
      message: expect.stringContaining("11 versions"),
    });
    expect(decodeCursor(cursorOf(client.ended?.error)).version).toBe(3);
    expect([feed.status().streams, time.pending]).toEqual([0, timersBefore]);
    const start = { kind: "cursor", cursor: cursorOf(client.ended?.error) } as const;
    const resumed = await Client.of(feed, 100, { policy: DISCONNECT, start });
    await time.pass(20);
    expect(resumed.versions).toEqual([4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]);
    await feed.stop();
  });

  test("G9 is not disconnected for one large transaction, nor for where it began", async () => {
    const { time, feed, memory } = await setUp();
    const fast = await Client.of(feed, 1_000, { policy: DISCONNECT });
    emit(memory, 100);
    await time.pass(5_000);
    expect([fast.versions.length, fast.ended]).toEqual([100, undefined]);
    const late = await Client.of(feed, 1, { policy: DISCONNECT, start: { kind: "oldest" }, maxBatchEvents: 1 });
    await time.pass(5_000);
    late.take(1);
    await time.pass(5_000);
    expect([late.versions, late.ended]).toEqual([[1, 2], undefined]);
    emit(memory, 11);
    await time.pass(3_000);
    expect(late.ended?.error).toMatchObject({ code: "SLOW_CONSUMER" });
    expect(fast.ended).toBeUndefined();
    await feed.stop();
  });

  test("G9 is not disconnected while it delivers a snapshot, and its lag counts from there", async () => {
    const { time, feed, memory } = await setUp();
    const writer = memory.begin();
    await writer.put("orders", "1", "{}");
    writer.commit();
    await time.pass(20);
    const client = await Client.of(feed, 1, { policy: DISCONNECT, start: { kind: "snapshot" } });
    emit(memory, 100);
    await time.pass(10_000);
    expect([client.frames.length, client.ended]).toEqual([2, undefined]);
    client.take(100);
    await time.pass(10_000);
    expect([client.versions.length, client.ended]).toEqual([101, undefined]);
    await feed.stop();
  });

  test("G8 G9 ends at its age, told that it is closing or else that it was too slow", async () => {
    const { time, feed, memory } = await setUp({ maxStreamAgeMs: 60_000 });
    const timersBefore = time.pending;
    const quick = await Client.of(feed, 1_000, {});
    const stuck = await Client.of(feed, 1, {});
    emit(memory, 2);
    await time.pass(50_000);
    emit(memory, 2);
    await time.pass(6_900);
    expect([quick.ended, stuck.ended]).toEqual([undefined, undefined]);
    // A random number of 0.5 makes an age of 60 s a twentieth less.
    await time.pass(200);
    expect(quick.frames.at(-1)).toMatchObject({
      kind: "closing",
      reason: "MAX_AGE",
      retryAfterMs: 0,
      cursor: { version: 4 },
    });
    expect([quick.ended?.error, stuck.ended]).toEqual([undefined, undefined]);
    await time.pass(5_100);
    expect(stuck.ended?.error).toMatchObject({
      code: "SLOW_CONSUMER",
      message: expect.stringContaining("its time was over"),
    });
    expect(decodeCursor(cursorOf(stuck.ended?.error)).version).toBe(2);
    expect([feed.status().streams, time.pending]).toEqual([0, timersBefore]);
    await feed.stop();
  });

  test("G8 G9 ends with its deadline", async () => {
    const { time, feed, memory } = await setUp({ maxStreamAgeMs: 60_000 });
    const deadlineMs = time.monotonic() + 10_000;
    const quick = await Client.of(feed, 1_000, { deadlineMs });
    const stuck = await Client.of(feed, 1, { deadlineMs });
    emit(memory, 1);
    await time.pass(9_600);
    expect(quick.frames.at(-1)).toMatchObject({ kind: "closing", reason: "DEADLINE", cursor: { version: 1 } });
    expect(stuck.ended).toBeUndefined();
    await time.pass(1_000);
    expect(stuck.ended?.error).toMatchObject({ code: "SLOW_CONSUMER" });
    await feed.stop();
  });

  test("G7 G8 ends at its age in the middle of a snapshot, which goes on", async () => {
    const { time, feed, memory } = await setUp({ maxStreamAgeMs: 60_000 });
    const writer = memory.begin();
    for (const key of ["1", "2", "3", "4"]) {
      await writer.put("orders", key, "{}");
    }
    writer.commit();
    await time.pass(20);
    const request = { start: { kind: "snapshot" }, maxBatchEvents: 1 } as const;
    const client = await Client.of(feed, 3, request);
    await time.pass(58_000);
    client.take(1);
    await time.pass(20);
    const closing = client.frames.at(-1);
    expect(closing).toMatchObject({ kind: "closing", reason: "MAX_AGE", cursor: { snapshot: { rows: 2 } } });
    const resumed = await Client.of(feed, 100, { ...request, start: startAfter(closing) });
    await time.pass(20);
    expect(resumed.frames[1]).toMatchObject({ kind: "snapshot_started", resumed: true });
    const rows = resumed.frames.flatMap((frame) => (frame.kind === "events" ? frame.events.map(({ key }) => key) : []));
    expect(rows).toEqual(["3", "4"]);
    await feed.stop();
  });
});

describe("checkpoints", () => {
  test("G10 come every interval also on a stream that is never silent, and say how far behind it is", async () => {
    const { time, feed, memory } = await setUp();
    const client = await Client.of(feed, 100_000, { checkpointIntervalMs: 10_000, maxEventsPerSecond: 10 });
    for (let second = 0; second < 60; second++) {
      emit(memory, 20);
      await time.pass(1_000);
    }
    const checkpoints = client.frames.filter((frame) => frame.kind === "checkpoint");
    expect(checkpoints.length).toBeGreaterThanOrEqual(5);
    expect(checkpoints.length).toBeLessThanOrEqual(7);
    expect(checkpoints.at(-1)?.lagVersions).toBeGreaterThan(400);
    expect(checkpoints.at(-1)?.lagMs).toBeGreaterThan(20_000);
    // One second's worth at once, and ten a second since.
    expect(client.versions.length).toBeGreaterThanOrEqual(600);
    expect(client.versions.length).toBeLessThanOrEqual(611);
    await feed.stop();
  });

  test("G5 come at the end of every tick when asked, also of those that hold nothing for the stream", async () => {
    const { time, feed, memory } = await setUp();
    const selectors = [{ topics: ["nobody"], keys: [], operations: [] }];
    const every = await Client.of(feed, 1_000, { checkpointEveryTick: true });
    const none = await Client.of(feed, 1_000, { checkpointEveryTick: true, selectors });
    for (const count of [3, 1, 2]) {
      emit(memory, count);
      await time.pass(20);
    }
    const kinds = (client: Client) => client.frames.map((frame) => [frame.kind, frame.cursor.version].join(" "));
    const said = ["events 3", "checkpoint 3", "events 4", "checkpoint 4", "events 6", "checkpoint 6"];
    expect(kinds(every)).toEqual(["opened 0", ...said]);
    expect(kinds(none)).toEqual(["opened 0", ...said.filter((each) => each.startsWith("checkpoint"))]);
    await feed.stop();
  });
});

test("G5 a checkpoint at every tick does not wait for a batch to fill", async () => {
  const { time, feed, memory } = await setUp();
  const client = await Client.of(feed, 1_000, { checkpointEveryTick: true, maxBatchDelayMs: 5_000 });
  await time.pass(20);
  for (let n = 0; n < 3; n++) {
    emit(memory);
    await time.pass(20);
  }
  const checkpoints = client.frames.flatMap((frame) => (frame.kind === "checkpoint" ? [frame.version] : []));
  expect([client.versions, checkpoints]).toEqual([
    [1, 2, 3],
    [1, 2, 3],
  ]);
  await feed.stop();
});

test("G7 G10 rows of a snapshot count towards the rate, and its checkpoints tell how far it is", async () => {
  const { time, feed, memory } = await setUp();
  const writer = memory.begin();
  for (let key = 0; key < 300; key++) {
    await writer.put("orders", String(key), "{}");
  }
  writer.commit();
  await time.pass(20);
  const request = { start: { kind: "snapshot" }, maxEventsPerSecond: 10, checkpointIntervalMs: 5_000 } as const;
  const client = await Client.of(feed, 1_000, request);
  await time.pass(20_000);
  expect(client.versions.length).toBeGreaterThanOrEqual(200);
  expect(client.versions.length).toBeLessThanOrEqual(211);
  const progress = client.frames.flatMap((frame) => (frame.kind === "checkpoint" ? [frame.progress?.rows ?? 0] : []));
  expect(progress.length).toBe(3);
  expect(progress.every((rows, i) => rows >= 50 * (i + 1) && rows <= 50 * (i + 1) + 30)).toBe(true);
  await time.pass(11_000);
  expect(client.frames.some((frame) => frame.kind === "snapshot_complete" && frame.rows === 300)).toBe(true);
  await feed.stop();
});

test("G8 G10 what LATEST has said stays said whatever policy goes on from its cursors", async () => {
  const { time, feed, memory } = await setUp();
  for (let n = 0; n < 5; n++) {
    const transaction = memory.begin();
    for (const key of ["1", "2"]) {
      transaction.emit({ topic: "notes", key, operation: "UPDATE", payload: "{}", headers: {} });
    }
    transaction.commit();
  }
  await time.pass(20);
  const LATEST: Policy = { kind: "LATEST", maxLagEvents: 4, sampleEvery: 10 };
  const latest = await Client.of(feed, 2, { policy: LATEST, start: { kind: "oldest" }, maxBatchEvents: 1 });
  await time.pass(20);
  const [, gap, batch] = latest.frames;
  expect(gap).toMatchObject({ kind: "gap", firstVersion: 1, lastVersion: 10, dropped: 8, reason: "LATEST" });
  expect(batch).toMatchObject({ kind: "events", complete: false, cursor: { version: 9, thinned: { until: 10 } } });
  emit(memory, 1);
  await time.pass(20);
  for (const kind of ["BLOCK", "DROP_OLDEST", "SAMPLE", "DISCONNECT"] as const) {
    const policy: Policy = { kind, maxLagEvents: 1_000, sampleEvery: 2 };
    const afterGap = await Client.of(feed, 100, { policy, start: startAfter(gap) });
    const afterBatch = await Client.of(feed, 100, { policy, start: startAfter(batch) });
    await time.pass(20);
    expect([afterGap.versions, afterBatch.versions]).toEqual([
      [9, 10, 11],
      [10, 11],
    ]);
    expect([...afterGap.frames, ...afterBatch.frames].filter((frame) => frame.kind === "gap")).toEqual([]);
  }
  await feed.stop();
});
