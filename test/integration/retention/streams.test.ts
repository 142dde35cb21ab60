import { expect, test } from "vitest";
import type { FeedError } from "../../../src/core/errors.ts";
import { createFeed } from "../../../src/core/feed/feed-service.ts";
import type { Feed, Start } from "../../../src/core/feed.ts";
import type { Frame } from "../../../src/core/frame.ts";
import { subscription } from "../../contract/reader.ts";
import { never } from "../ordering/stage.ts";
import { keepNothing, openRetentionStage, type RetentionStage } from "./stage.ts";

/** A feed that holds next to nothing in memory, so that its streams read history. */
async function openFeed(stage: RetentionStage) {
  const store = await stage.store({ pages: { maxRows: 4 } });
  const feed = createFeed({ store, wakeUp: store.wakeUp, limits: { logMaxBytes: 1 } });
  await feed.start(never);
  return { feed, stop: () => feed.stop() };
}

interface Reading {
  readonly frames: Frame[];
  readonly failure: FeedError | undefined;
}

/** Reads until `enough`, or to the failure that ends it. */
async function readUntil(stream: AsyncIterator<Frame>, enough: (frame: Frame) => boolean): Promise<Reading> {
  const frames: Frame[] = [];
  try {
    for (;;) {
      const { value, done } = await stream.next();
      if (done === true) return { frames, failure: undefined };
      frames.push(value);
      if (enough(value)) return { frames, failure: undefined };
    }
  } catch (failure) {
    return { frames, failure: failure as FeedError };
  }
}

function versionsIn(frames: readonly Frame[]): readonly number[] {
  return frames.flatMap((frame) => (frame.kind === "events" ? frame.events.map(({ version }) => version) : []));
}

async function forgetAll(stage: RetentionStage, feed: Feed): Promise<void> {
  await stage.nextPartition();
  await keepNothing(stage.admin);
  await stage.settle("young");
  await stage.nextPartition();
  await stage.settle("youngest");
  await expect.poll(() => feed.status().head, { timeout: 20_000 }).toBe(42);
  expect((await stage.keep()).dropped).toContain("outbox_1");
}

const begun: readonly { readonly what: string; readonly start: Start; readonly until: Frame["kind"] }[] = [
  { what: "catches up", start: { kind: "oldest" }, until: "events" },
  { what: "has taken a snapshot", start: { kind: "snapshot" }, until: "snapshot_complete" },
];
test.each(begun)(
  "G8 G10 a stream that $what and then stands still while history goes ends with what is still there",
  async ({ start, until }) => {
    await using stage = await openRetentionStage();
    await stage.keep();
    await stage.settle(...Array.from({ length: 20 }, (_, index) => `${index}`));
    const { feed, stop } = await openFeed(stage);
    const stream = feed.subscribe(subscription({ start, maxBatchBytes: 500 }), never)[Symbol.asyncIterator]();
    const before = await readUntil(stream, ({ kind }) => kind === until);
    expect(before.failure).toBeUndefined();
    await stage.settle(...Array.from({ length: 20 }, (_, index) => `more ${index}`));
    await expect.poll(() => feed.status().head, { timeout: 20_000 }).toBe(40);
    await forgetAll(stage, feed);
    const after = await readUntil(
      stream,
      ({ kind, ...frame }) => kind === "checkpoint" && "version" in frame && frame.version === 42,
    );
    const versions = versionsIn([...before.frames, ...after.frames]);
    const first = versions[0] ?? 0;
    expect(versions).toEqual(versions.map((_, index) => first + index));
    expect(after.failure).toMatchObject({
      code: "HISTORY_LOST",
      detail: { oldestVersion: expect.any(Number), headVersion: expect.any(Number), epoch: feed.status().epoch },
    });
    expect(after.failure?.detail.oldestVersion).toBeGreaterThan((versions.at(-1) ?? 0) + 1);
    // What is still there is to be had.
    await stage.settle("after");
    const again = feed.subscribe(subscription(), never)[Symbol.asyncIterator]();
    const rest = await readUntil(again, (frame) => versionsIn([frame]).includes(43));
    expect(versionsIn(rest.frames)).toEqual([43]);
    expect(after.failure?.detail).toMatchObject({ oldestVersion: 43, headVersion: 42 });
    await stop();
  },
);
