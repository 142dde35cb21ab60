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

test.each<[string, object, string]>([
  ["selector", { selector: [{ topics: ["orders"] }] }, "selector is no option; did you mean selectors?"],
  ["policy.maxLagEvent", { policy: { kind: "LATEST", maxLagEvent: 5 } }, "did you mean maxLagEvents?"],
  ["selectors[1].topic", { selectors: [{}, { topic: "orders" }] }, "did you mean topics?"],
  ["from.curser", { from: { version: 1, curser: "" } }, "did you mean cursor?"],
  ["colour", { colour: "red" }, "there are from, selectors, policy, "],
])("an option %s, which there is not, is refused with what may have been meant", async (field, options, told) => {
  await using feed = await openMemoryFeed(createMemoryStore());
  const refused = {
    code: "INVALID_REQUEST",
    message: expect.stringContaining(told),
    detail: { violations: [{ field }] },
  };
  await expect(feed.follow(options, () => undefined)).rejects.toMatchObject(refused);
});
