import { fromBinary, toBinary, toJsonString } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { PayloadForm } from "../../../gen/millrace/v1/event_pb.js";
import { SubscribeResponseSchema } from "../../../gen/millrace/v1/feed_service_pb.js";
import { decodeCursor } from "../../../src/core/cursor.ts";
import type { Event } from "../../../src/core/event.ts";
import type { Frame } from "../../../src/core/frame.ts";
import { createEventCodec } from "../../../src/rpc/codec.ts";
import { responseFromFrame, type StreamTerms } from "../../../src/rpc/frames.ts";

const epoch = "0b61a2d6-7c0c-4b5e-9d52-4c1f3d0e7a11";
const binary = "application/grpc+proto";
const json = "application/connect+json";

/** As wordy as they can be. */
function termsFor(maxMessageBytes: number): StreamTerms {
  return {
    maxMessageBytes,
    maxAgeMs: 3_599_999,
    policy: { kind: "SAMPLE", maxLagEvents: 1_000_000_000, sampleEvery: 4_294_967_295 },
    maxBatchEvents: 4_294_967_295,
    maxBatchBytes: maxMessageBytes,
    maxBatchDelayMs: 59_999,
    maxEventsPerSecond: 4_294_967_295,
    checkpointEveryTick: true,
    checkpointIntervalMs: 15_123,
  };
}

function row(key: string, payloadLength: number): Event {
  return {
    version: 7,
    topic: "orders",
    key,
    operation: "SNAPSHOT",
    before: undefined,
    after: new TextEncoder().encode(`"${"x".repeat(payloadLength)}"`),
    transaction: "",
    occurredAtMicros: 1_763_689_000_123_456,
    headers: undefined,
  };
}

/** The frames of a snapshot whose last row has this key. */
function framesOf(key: string, payloadLength: number): readonly Frame[] {
  const cursor = { epoch, version: 7, fingerprint: 99, snapshot: { shape: 1, sources: 2, key, rows: 3 } };
  const lag = { lagVersions: Number.MAX_SAFE_INTEGER, lagMs: 1e9, timeMicros: 1_763_689_000_123_456 };
  const progress = { rows: Number.MAX_SAFE_INTEGER, estimatedRows: Number.MAX_SAFE_INTEGER };
  const most = Number.MAX_SAFE_INTEGER;
  return [
    { kind: "opened", streamId: "s".repeat(34), epoch, version: most, cursor, head: most, oldest: most },
    {
      kind: "snapshot_started",
      version: most,
      cursor,
      restart: false,
      resumed: true,
      topics: ["orders"],
      estimatedRows: most,
    },
    { kind: "events", events: [row(key, payloadLength)], cursor, complete: false },
    { kind: "checkpoint", cursor, version: most, state: "SNAPSHOT", ...lag, progress },
    { kind: "closing", reason: "DRAINING", cursor, retryAfterMs: 123.456 },
  ];
}

describe("a frame of a snapshot", () => {
  it.each([binary, json])("stays within the message limit with the cursor, or says to begin anew (%s)", (type) => {
    const terms = termsFor(4096);
    const codec = createEventCodec(type, { form: PayloadForm.JSON, maxMessageBytes: terms.maxMessageBytes });
    const seen = new Set<string>();
    for (let keyLength = 1; keyLength < 3_500; keyLength += 61) {
      for (const frame of framesOf("k".repeat(keyLength), Math.max(0, 3_400 - keyLength))) {
        const message = responseFromFrame(frame, codec, terms);
        const encoded = toBinary(SubscribeResponseSchema, message);
        const size = type === json ? Buffer.byteLength(toJsonString(SubscribeResponseSchema, message)) : encoded.length;
        expect(size + 5).toBeLessThanOrEqual(terms.maxMessageBytes);
        const { snapshot } = decodeCursor(cursorOf(fromBinary(SubscribeResponseSchema, encoded)));
        expect(snapshot === "anew" || snapshot?.key?.length === keyLength).toBe(true);
        seen.add(`${frame.kind} ${snapshot === "anew" ? "anew" : "place"}`);
      }
    }
    expect([...seen].sort()).toEqual(
      ["checkpoint", "closing", "events", "opened", "snapshot_started"].flatMap((kind) => [
        `${kind} anew`,
        `${kind} place`,
      ]),
    );
  });

  it("keeps the place of a key of 3,000 bytes where messages may be large", () => {
    const terms = termsFor(65_536);
    const codec = createEventCodec(json, { form: PayloadForm.JSON, maxMessageBytes: terms.maxMessageBytes });
    for (const frame of framesOf("k".repeat(3_000), 10)) {
      const message = responseFromFrame(frame, codec, terms);
      expect(decodeCursor(cursorOf(message)).snapshot).toMatchObject({ key: "k".repeat(3_000), rows: 3 });
    }
  });
});

function cursorOf({ frame }: ReturnType<typeof responseFromFrame>): string {
  return frame.value !== undefined && "cursor" in frame.value ? frame.value.cursor : "";
}
