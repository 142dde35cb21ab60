import { describe, expect, test } from "vitest";
import { encodeCursor } from "../../../src/core/cursor.ts";
import { cursorAfter } from "../../../src/core/event-cursor.ts";
import type { StreamRequest } from "../../../src/core/feed.ts";
import type { EventsFrame, Frame } from "../../../src/core/frame.ts";
import { eventBytes } from "../../../src/core/page.ts";
import type { Thinned } from "../../../src/core/policy/policy.ts";
import { REQUEST, type Setup, setUp } from "./memory-feed.ts";

const CODEC = { identity: "each", measure: eventBytes, wantsTicks: true };

/** One delivered event, and the cursor that goes on after it. */
interface Told {
  readonly name: string;
  readonly cursor: string;
  readonly fingerprint: number;
}

/** Everything that a stream says until it stands at the head. */
async function framesOf({ feed, time }: Setup, request: Partial<StreamRequest>): Promise<readonly Frame[]> {
  const stop = new AbortController();
  const frames: Frame[] = [];
  const ended = (async () => {
    for await (const frame of feed.subscribe({ ...REQUEST, codec: CODEC, ...request }, stop.signal)) {
      frames.push(frame);
    }
  })().catch((error: unknown) => error);
  await time.pass(2_000);
  stop.abort();
  await ended;
  return frames;
}

function told(frames: readonly Frame[]): readonly Told[] {
  let thinned: Thinned | undefined;
  return frames.flatMap((frame) => {
    const out = frame.kind === "events" ? toldByFrame(frame, thinned) : [];
    thinned = frame.cursor.thinned ?? thinned;
    return out;
  });
}

function toldByFrame(frame: EventsFrame, thinned: Thinned | undefined): readonly Told[] {
  return frame.events.map(({ version, operation, topic, key }, index) => {
    const cursor = cursorAfter(frame, index, thinned);
    const name = `${operation === "SNAPSHOT" ? "row" : version} ${topic} ${key}`;
    return { name, cursor: encodeCursor(cursor), fingerprint: cursor.fingerprint };
  });
}

/** The versions that gaps speak of. */
function gapsOf(frames: readonly Frame[]): readonly (readonly [number, number])[] {
  return frames.flatMap((frame) => (frame.kind === "gap" ? [[frame.firstVersion, frame.lastVersion] as const] : []));
}

/** After each event by itself, the rest of the story and nothing else. */
async function expectEachResumes(set: Setup, request: Partial<StreamRequest>, first: readonly Told[]): Promise<void> {
  const names = first.map(({ name }) => name);
  for (const [index, { cursor }] of first.entries()) {
    const rest = await framesOf(set, { ...request, start: { kind: "cursor", cursor } });
    expect(told(rest).map(({ name }) => name)).toEqual(names.slice(index + 1));
  }
}

async function write(set: Setup, ticks: number, eventsEach: number): Promise<void> {
  for (let tick = 0; tick < ticks; tick += 1) {
    const transaction = set.memory.begin();
    for (let i = 0; i < eventsEach; i += 1) {
      const key = i === 0 ? `only in ${tick}` : `k${i % 3}`;
      transaction.emit({ topic: "notes", key, operation: "MESSAGE", payload: "{}", headers: {} });
    }
    transaction.commit();
    await set.time.pass(50);
  }
}

describe("the cursor of a single event", () => {
  test("G8 goes on exactly behind it, in frames of many ticks, from the log and from the table", async () => {
    for (const logMaxBytes of [1, 1024 * 1024]) {
      const set = await setUp({ limits: { logMaxBytes, warmBytes: 0 } });
      await write(set, 5, 4);
      const frames = await framesOf(set, { start: { kind: "oldest" } });
      const first = told(frames);
      expect(first).toHaveLength(20);
      expect(frames.some((frame) => frame.kind === "events" && frame.events.length > 4)).toBe(true);
      // Each notices a history that was rolled back.
      expect(first.filter(({ fingerprint }) => fingerprint === 0)).toEqual([]);
      expect(new Set(first.map(({ fingerprint }) => fingerprint)).size).toBe(5);
      await expectEachResumes(set, {}, first);
      await set.feed.stop();
    }
  });

  test("G7 goes on exactly behind a row of a snapshot, and behind a change in a snapshot that was cut", async () => {
    const set = await setUp();
    const writer = set.memory.begin();
    for (const key of ["a", "b", "c", "d"]) await writer.put("orders", key, "{}");
    writer.commit();
    await set.time.pass(100);
    const start = { kind: "snapshot" } as const;
    const first = told(await framesOf(set, { start }));
    expect(first.map(({ name }) => name)).toEqual(["row orders a", "row orders b", "row orders c", "row orders d"]);
    await expectEachResumes(set, {}, first);
    for (const key of ["a", "d"]) {
      const late = set.memory.begin();
      await late.put("orders", key, '{"late":true}');
      late.commit();
      await set.time.pass(50);
    }
    // After `b`: the change of `a`, and then `c` and `d` as they are now.
    const resumed = await framesOf(set, { start: { kind: "cursor", cursor: first[1]?.cursor ?? "" } });
    const rest = told(resumed);
    expect(rest.map(({ name }) => name)).toEqual(["5 orders a", "row orders c", "row orders d"]);
    await expectEachResumes(set, {}, rest);
    await set.feed.stop();
  });

  test("G8 keeps to what a policy has said that it leaves out", async () => {
    const set = await setUp();
    await write(set, 6, 5);
    const policy = { kind: "LATEST", maxLagEvents: 2, sampleEvery: 10 } as const;
    const frames = await framesOf(set, { start: { kind: "oldest" }, policy });
    const pieces = gapsOf(frames);
    expect(pieces.length).toBeGreaterThan(0);
    const first = told(frames);
    const names = first.map(({ name }) => name);
    expect(names.length).toBeLessThan(30);
    for (const [index, { name, cursor }] of first.entries()) {
      const rest = await framesOf(set, { policy, start: { kind: "cursor", cursor } });
      expect(told(rest).map((event) => event.name)).toEqual(names.slice(index + 1));
      // What a gap has told of is not told of again.
      expect(gapsOf(rest)).toEqual(pieces.filter(([from]) => from > Number.parseInt(name, 10)));
    }
    await set.feed.stop();
  });

  test("without knowledge of ticks, is exact as well, and looks for a rollback where the frame is in one tick", () => {
    const event = (version: number) => ({
      ...({ version, topic: "t", key: "k", operation: "MESSAGE", before: undefined, after: undefined } as const),
      ...{ transaction: "1", occurredAtMicros: 0, headers: undefined },
    });
    const cursor = { epoch: "0b61a2d6-7c0c-4b5e-9d52-4c1f3d0e7a11", version: 9, fingerprint: 77, snapshot: undefined };
    const events = [event(5), event(7)];
    expect(cursorAfter({ events, cursor, complete: true }, 0)).toEqual({ ...cursor, version: 5, fingerprint: 0 });
    expect(cursorAfter({ events, cursor, complete: false }, 0)).toEqual({ ...cursor, version: 5 });
    expect(cursorAfter({ events, cursor, complete: true }, 1)).toEqual(cursor);
    // In a group deliveries are counted by the event.
    const ofGroup = { ...cursor, fingerprint: 0, delivery: 3, deliveredTo: 7 };
    expect(cursorAfter({ events, cursor: ofGroup, complete: false }, 0)).toEqual({
      ...{ ...ofGroup, version: 5, delivery: 2 },
    });
  });
});
