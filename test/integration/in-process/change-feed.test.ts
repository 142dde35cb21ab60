import pg from "pg";
import { describe, expect, test } from "vitest";
import {
  type ChangeFeed,
  createMemoryStore,
  encodeCursor,
  FeedError,
  type Frame,
  openFeed,
  openMemoryFeed,
} from "../../../src/index.ts";
import { freshDatabase } from "../../support/cluster.ts";

interface World extends AsyncDisposable {
  readonly feed: ChangeFeed;
  /** One transaction of so many notes. */
  write(...notes: readonly string[]): Promise<void>;
}

async function overMemory(): Promise<World> {
  const store = createMemoryStore();
  const feed = await openMemoryFeed(store);
  return {
    feed,
    async write(...notes) {
      const transaction = store.begin();
      for (const note of notes) {
        const payload = JSON.stringify({ note });
        transaction.emit({ topic: "notes", key: note, operation: "MESSAGE", payload, headers: {} });
      }
      transaction.commit();
      store.wakeUp.nudge();
    },
    [Symbol.asyncDispose]: () => feed.stop(),
  };
}

async function overPostgres(): Promise<World> {
  const databaseUrl = await freshDatabase();
  const feed = await openFeed({ databaseUrl });
  const client = new pg.Client(databaseUrl);
  await client.connect();
  return {
    feed,
    async write(...notes) {
      await client.query(
        "select millrace.emit('notes', note, json_build_object('note', note)) from unnest($1::text[]) note",
        [notes],
      );
    },
    async [Symbol.asyncDispose]() {
      await client.end();
      await feed.stop();
    },
  };
}

const keysOf = (frames: readonly Frame[]) =>
  frames.flatMap((frame) => (frame.kind === "events" ? frame.events.map(({ key }) => key) : []));

/** Resolves when the consumer has had so many events. */
function collector() {
  const frames: Frame[] = [];
  const waiting: { readonly count: number; readonly resolve: () => void }[] = [];
  return {
    frames,
    take(frame: Frame) {
      frames.push(frame);
      for (const { count, resolve } of waiting) if (keysOf(frames).length >= count) resolve();
    },
    events: (count: number) =>
      new Promise<void>((resolve) => {
        if (keysOf(frames).length >= count) resolve();
        waiting.push({ count, resolve });
      }),
  };
}

describe.each([
  { name: "memory", open: overMemory },
  { name: "postgres", open: overPostgres },
])("a feed in this process, over $name", ({ open }) => {
  test("G3 G8 a cursor of one way in goes on in every other", async () => {
    await using world = await open();
    const { feed, write } = world;
    await write("a", "b", "c", "d", "e", "f");
    const first = collector();
    const following = await feed.follow({ from: "oldest", maxBatchEvents: 2 }, first.take);
    await first.events(6);
    following.stop();
    await following.ended;
    const batch = first.frames.find((frame) => frame.kind === "events");
    expect(keysOf(batch === undefined ? [] : [batch])).toEqual(["a", "b"]);

    const rest: Frame[] = [];
    const from = { cursor: encodeCursor(batch?.cursor ?? following.cursor) };
    for await (const frame of feed.frames({ from, maxBatchEvents: 2 })) {
      rest.push(frame);
      if (keysOf(rest).length === 2) break;
    }
    expect(keysOf(rest)).toEqual(["c", "d"]);

    const reader = feed.readable({ from: { cursor: rest.at(-1)?.cursor ?? following.cursor } }).getReader();
    const last: Frame[] = [];
    while (keysOf(last).length < 2) {
      const { value } = await reader.read();
      if (value !== undefined) last.push(value);
    }
    await reader.cancel();
    expect(keysOf(last)).toEqual(["e", "f"]);
    expect(feed.status().streams).toBe(0);
  });

  test("G9 a consumer that throws ends its own stream and no other", async () => {
    await using world = await open();
    const good = collector();
    await using _other = await world.feed.follow({}, good.take);
    const bad = await world.feed.follow({}, (frame) => {
      if (frame.kind === "events") throw new Error("out of paper");
    });
    await world.write("a");
    await expect(bad.ended).rejects.toThrow("out of paper");
    await world.write("b");
    await good.events(2);
    expect(keysOf(good.frames)).toEqual(["a", "b"]);
  });

  test("G10 a consumer that is paused lags, and its policy tells it of what it missed", async () => {
    await using world = await open();
    const seen = collector();
    const policy = { kind: "DROP_OLDEST", maxLagEvents: 2 } as const;
    await using following = await world.feed.follow({ policy }, seen.take);
    following.pause();
    const witness = collector();
    await using _all = await world.feed.follow({}, witness.take);
    // A tick each: the jump lands where one ends.
    for (const [i, note] of ["a", "b", "c", "d", "e"].entries()) {
      await world.write(note);
      await witness.events(i + 1);
    }
    expect(keysOf(seen.frames)).toEqual([]);
    following.resume();
    await seen.events(1);
    const gap = seen.frames.find((frame) => frame.kind === "gap");
    expect(gap).toMatchObject({ firstVersion: 1, reason: "DROP_OLDEST" });
    expect((gap?.kind === "gap" ? (gap.dropped ?? 0) : 0) + keysOf(seen.frames).length).toBe(5);
  });

  test("filters, refusals and the end are the wire's", async () => {
    const { feed, write, ...world } = await open();
    const refused = feed.follow({ selectors: [{ filter: "row.note ==" }] }, () => undefined);
    await expect(refused).rejects.toBeInstanceOf(FeedError);
    await expect(refused).rejects.toMatchObject({ code: "FILTER_INVALID" });
    const seen = collector();
    const following = await feed.follow({ selectors: [{ filter: "row.note > 'b'" }] }, seen.take);
    await write("a", "b", "c", "d");
    await seen.events(2);
    expect(keysOf(seen.frames)).toEqual(["c", "d"]);
    await world[Symbol.asyncDispose]();
    await following.ended;
    expect(seen.frames.at(-1)).toMatchObject({ kind: "closing", reason: "DRAINING" });
  });
});
