import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { describe, expect, it } from "vitest";
import { EventSchema, Operation, PayloadOmitted, Transition } from "../../../gen/millrace/v1/event_pb.js";
import { eventFactsFrom } from "../../../src/mcp/event-facts.ts";
import { pageText } from "../../../src/mcp/page-text.ts";

const update = eventFactsFrom(
  create(EventSchema, {
    version: 42n,
    topic: "orders.eu",
    key: "7",
    operation: Operation.UPDATE,
    transition: Transition.ENTERED,
    before: { form: { case: "json", value: '{"id":7,\n"total":1.10}' } },
    after: { form: { case: "json", value: '{"id":7,"total":12345678901234567890.10}' } },
    transaction: "99",
    occurredAt: timestampFromMs(1_700_000_000_123),
    attempt: 2,
  }),
);

describe("eventFactsFrom", () => {
  it("keeps images as they are, on one line, and leaves unsaid what is not there", () => {
    expect(update).toEqual({
      version: 42,
      topic: "orders.eu",
      key: "7",
      operation: "UPDATE",
      transition: "ENTERED",
      before: '{"id":7, "total":1.10}',
      after: '{"id":7,"total":12345678901234567890.10}',
      transaction: "99",
      occurred_at: "2023-11-14T22:13:20.123000Z",
      attempt: 2,
    });
    expect(eventFactsFrom(create(EventSchema, { version: 1n, topic: "t", operation: Operation.TRUNCATE }))).toEqual({
      version: 1,
      topic: "t",
      operation: "TRUNCATE",
    });
  });
});

describe("pageText", () => {
  const page = { events: [update], cursor: "c1", has_more: false };

  it("shows rows without quotes, and the call that goes on", () => {
    const text = pageText({ max_bytes: 32_768 }, { ...page, subscription_id: "s", polling_interval_seconds: 10 }, 0);
    expect(text.split("\n")).toEqual([
      "1 event:",
      "#42 UPDATE orders.eu key 7 ENTERED at 2023-11-14T22:13:20.123000Z attempt 2",
      '  before {"id":7, "total":1.10}',
      '  after  {"id":7,"total":12345678901234567890.10}',
      "Those with an attempt were given before and not acknowledged.",
      'Next, in about 10 s: poll_changes {"subscription_id":"s","cursor":"c1"}',
      "That call acknowledges these events: deal with them first. Without `cursor` they come again.",
    ]);
  });

  it("asks the same again of a bare position, and at once when more waits", () => {
    const text = pageText({ topics: ["orders.>"], filter: "row.a", max_bytes: 4096 }, { ...page, has_more: true }, 0);
    expect(text).toContain("1 event, and there may be more:");
    expect(text).toContain(
      'Next, at once: poll_changes {"cursor":"c1","topics":["orders.>"],"filter":"row.a","max_bytes":4096}',
    );
    expect(text).not.toContain("acknowledges");
  });

  it("says how to have rows that were left out, and that nothing came", () => {
    const large = { ...update, payload_omitted: PayloadOmitted[PayloadOmitted.TOO_LARGE] };
    expect(pageText({ max_bytes: 4096 }, { ...page, events: [large] }, 0)).toContain(
      'To have #42: poll_changes {"from":"version:41","batch_size":1,"max_bytes":1048576}',
    );
    expect(pageText({ max_bytes: 4096 }, { ...page, events: [] }, 2500)).toContain("Nothing new within 2.5 s.");
  });
});
