import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { describe, expect, it } from "vitest";
import { type Event, EventSchema, Operation, PayloadOmitted } from "../../../gen/millrace/v1/event_pb.js";
import { GapReason, StreamState, SubscribeResponseSchema } from "../../../gen/millrace/v1/feed_service_pb.js";
import { eventLine, frameLine } from "../../../src/cli/tail/event-line.ts";
import { prettyEvent } from "../../../src/cli/tail/event-pretty.ts";

function event(json: string): Event {
  return create(EventSchema, {
    version: 7n,
    topic: "orders.eu",
    key: '["a",1]',
    operation: Operation.UPDATE,
    before: { form: { case: "json", value: '{"total":1.10}' } },
    after: { form: { case: "json", value: json } },
    transaction: "745",
    occurredAt: { ...timestampFromMs(1_700_000_000_123), nanos: 123_456_000 },
  });
}

describe("an event as a line", () => {
  it("keeps every digit, and has no line break inside", () => {
    expect(eventLine(event('{\n "big": 12345678901234567890.10,\r\n "text": "a\\nb"}'), "c1")).toBe(
      '{"version":7,"topic":"orders.eu","key":"[\\"a\\",1]","operation":"UPDATE","before":{"total":1.10},' +
        '"after":{  "big": 12345678901234567890.10,   "text": "a\\nb"},"transaction":"745",' +
        '"occurredAt":"2023-11-14T22:13:20.123456Z","cursor":"c1"}\n',
    );
  });

  it("leaves out what the event does not have, and says when a payload was left out", () => {
    const bare = create(EventSchema, {
      version: 1n,
      topic: "a",
      operation: Operation.TRUNCATE,
      payloadOmitted: PayloadOmitted.TOO_LARGE,
    });
    expect(eventLine(bare, undefined)).toBe(
      '{"version":1,"topic":"a","operation":"TRUNCATE","payloadOmitted":"TOO_LARGE"}\n',
    );
  });
});

describe("a frame as a line", () => {
  it("tells what a policy left out", () => {
    const gap = { firstVersion: 3n, lastVersion: 12n, dropped: 8n, reason: GapReason.LATEST, cursor: "g" };
    const frames = [gap, { firstVersion: 3n, lastVersion: 12n, reason: GapReason.DROP_OLDEST, cursor: "h" }];
    expect(
      frames.map((value) => frameLine(create(SubscribeResponseSchema, { frame: { case: "gap", value } }))),
    ).toEqual([
      '{"frame":"gap","firstVersion":3,"lastVersion":12,"dropped":8,"reason":"LATEST","cursor":"g"}\n',
      '{"frame":"gap","firstVersion":3,"lastVersion":12,"reason":"DROP_OLDEST","cursor":"h"}\n',
    ]);
  });

  it("tells whether a snapshot goes on or begins again, and how far it has come", () => {
    const started = { version: 7n, cursor: "b", resumed: true, topics: ["orders"], estimatedRows: 1_000n };
    const frames = [
      { case: "snapshotStarted" as const, value: started },
      { case: "snapshotStarted" as const, value: { version: 9n, restart: true } },
      {
        case: "checkpoint" as const,
        value: {
          cursor: "c",
          version: 7n,
          state: StreamState.SNAPSHOT,
          progress: { rows: 40n, estimatedRows: 1_000n },
        },
      },
      { case: "checkpoint" as const, value: { cursor: "d", version: 8n, state: StreamState.LIVE, lagVersions: 0n } },
    ];
    expect(frames.map((frame) => frameLine(create(SubscribeResponseSchema, { frame })))).toEqual([
      '{"frame":"snapshot_started","version":7,"restart":false,"resumed":true,"topics":["orders"],"estimatedRows":1000,"cursor":"b"}\n',
      '{"frame":"snapshot_started","version":9,"restart":true,"resumed":false,"topics":[],"cursor":""}\n',
      '{"frame":"checkpoint","version":7,"state":"SNAPSHOT","rows":40,"estimatedRows":1000,"cursor":"c"}\n',
      '{"frame":"checkpoint","version":8,"state":"LIVE","lagVersions":0,"cursor":"d"}\n',
    ]);
  });
});

describe("an event for people", () => {
  it("is cut to the width of the terminal", () => {
    const line = prettyEvent(event(`{"text":"${"x".repeat(500)}"}`), { colour: false, width: 80 });
    expect(line).toHaveLength(81);
    expect(line.endsWith("…\n")).toBe(true);
  });

  it("cannot move the cursor or change colours by what is in a row", () => {
    const hostile = { ...event('"\u001b[2J\u0007gone"'), topic: "a\u001b]0;title\u0007b" };
    expect(prettyEvent(hostile, { colour: false, width: 200 }).trimEnd()).not.toMatch(/\p{Cc}/u);
  });
});
