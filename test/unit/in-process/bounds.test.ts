import { expect, test } from "vitest";
import { createMemoryStore, type FollowOptions, openMemoryFeed } from "../../../src/index.ts";

test.each<[string, FollowOptions]>([
  ["maxBatchEvents", { maxBatchEvents: 0 }],
  ["maxBatchBytes", { maxBatchBytes: Number.NaN }],
  ["maxBatchDelayMs", { maxBatchDelayMs: Number.POSITIVE_INFINITY }],
  ["maxEventsPerSecond", { maxEventsPerSecond: 0 }],
  ["checkpointIntervalMs", { checkpointIntervalMs: 0 }],
  ["policy.maxLagEvents", { policy: { kind: "LATEST", maxLagEvents: -1 } }],
  ["policy.sampleEvery", { policy: { kind: "SAMPLE", sampleEvery: 0 } }],
  ["policy.kind", { policy: { kind: "toString" as "BLOCK" } }],
])("a stream with %s out of its bounds is refused, however it is opened", async (field, options) => {
  await using feed = await openMemoryFeed(createMemoryStore());
  const refused = { code: "INVALID_REQUEST", detail: { violations: [{ field }] } };
  await expect(feed.follow(options, () => undefined)).rejects.toMatchObject(refused);
  await expect(Promise.try(() => feed.frames(options))).rejects.toMatchObject(refused);
  expect(feed.status().streams).toBe(0);
});
