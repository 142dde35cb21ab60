import { describe, expect, it } from "vitest";
import { eventBytes } from "../../../src/core/page.ts";
import { createFeedSlot } from "../../../src/server/feed-slot.ts";
import { startedFeed } from "./started-feed.ts";

const request = {
  start: { kind: "now" },
  selectors: [],
  checkpointIntervalMs: 15_000,
  maxBatchBytes: 1024 * 1024,
  codec: { identity: "test", measure: eventBytes },
  afterTransaction: undefined,
  deadlineMs: undefined,
} as const;

describe("the slot of a feed", () => {
  it("lets nobody into a feed that comes while the server drains", async () => {
    const slot = createFeedSlot();
    const signal = new AbortController().signal;
    const refusal = () => slot.subscribe(request, signal)[Symbol.asyncIterator]().next();
    await expect(refusal()).rejects.toMatchObject({ code: "DATABASE_UNAVAILABLE" });
    slot.fill(await startedFeed());
    expect(slot.status().state).toBe("LIVE");
    await slot.drain(0);
    slot.fill(await startedFeed());
    expect(slot.status().state).toBe("DRAINING");
    await expect(refusal()).rejects.toMatchObject({ code: "DRAINING" });
  });
});
