import { gunzipSync } from "node:zlib";
import { create, toBinary, toJsonString } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { PayloadForm } from "../../../gen/millrace/v1/event_pb.js";
import { SubscribeRequestSchema, SubscribeResponseSchema } from "../../../gen/millrace/v1/feed_service_pb.js";
import type { Event } from "../../../src/core/event.ts";
import type { EventsFrame } from "../../../src/core/frame.ts";
import { responseFromFrame } from "../../../src/rpc/frames.ts";
import { EncoderPool } from "../../../src/rpc/hand-off/encoder-pool.ts";
import { streamTerms } from "../../../src/rpc/stream-request.ts";

const maxMessageBytes = 4_128_768;
const terms = streamTerms(create(SubscribeRequestSchema), { checkpointIntervalMs: 15_000 });
const cursor = { epoch: "0b61a2d6-7c0c-4b5e-9d52-4c1f3d0e7a11", version: 2, fingerprint: 7, snapshot: undefined };
const agreed = { form: PayloadForm.JSON, maxMessageBytes, gzipMinBytes: undefined };
const binary = { ...agreed, contentType: "application/grpc" };
const json = { ...agreed, contentType: "application/connect+json" };

function frame(bytes: number): EventsFrame {
  const event: Event = {
    version: 2,
    topic: "orders",
    key: "ü",
    operation: "INSERT",
    before: undefined,
    after: Buffer.from(JSON.stringify("x".repeat(bytes))),
    transaction: "771",
    occurredAtMicros: 1_763_689_000_123_456,
    headers: undefined,
  };
  return { kind: "events", events: [event], cursor, complete: true, shared: { bytes: undefined } };
}

describe("a frame's bytes", () => {
  it.each([binary, json])("are Connect's message in its envelope: $contentType", async (agreement) => {
    const encoder = new EncoderPool().of(agreement);
    for (const one of [frame(3), frame(100_000)]) {
      const bytes = Buffer.from(await encoder.encode(one, terms));
      const message = responseFromFrame(one, encoder.codec, terms);
      const expected =
        agreement === json
          ? Buffer.from(toJsonString(SubscribeResponseSchema, message))
          : Buffer.from(toBinary(SubscribeResponseSchema, message));
      expect(bytes[0]).toBe(0);
      expect(bytes.readUInt32BE(1)).toBe(expected.length);
      expect(bytes.subarray(5).equals(expected)).toBe(true);
    }
  });

  it("are made once for all streams of a lane", () => {
    const pool = new EncoderPool();
    const one = frame(3);
    const bytes = pool.of(binary).encode(one, terms);
    expect(pool.of(binary).encode(one, terms)).toBe(bytes);
    expect(one.shared?.bytes).toBe(bytes);
  });

  it("are compressed once for all, whoever asks while they are", async () => {
    const pool = new EncoderPool();
    const encoder = pool.of({ ...binary, gzipMinBytes: 1_024 });
    const one = frame(100_000);
    const [first, second] = await Promise.all([encoder.encode(one, terms), encoder.encode(one, terms)]);
    expect(second).toBe(first);
    expect(encoder.encode(one, terms)).toBe(first);
    expect(first[0]).toBe(1);
    const plain = Buffer.from(await pool.of(binary).encode(frame(100_000), terms));
    expect(gunzipSync(first.subarray(5)).equals(plain.subarray(5))).toBe(true);
    expect(Buffer.from(await encoder.encode(frame(3), terms))[0]).toBe(0);
  });
});

describe("an encoder", () => {
  it("is one for all streams that want the same bytes, and another for others", () => {
    const pool = new EncoderPool();
    expect(pool.of({ ...binary })).toBe(pool.of({ ...binary, contentType: "application/grpc-web+proto" }));
    const identities = [binary, json, { ...binary, gzipMinBytes: 1_024 }, { ...binary, maxMessageBytes: 5_000 }].map(
      (agreement) => pool.of(agreement).codec.identity,
    );
    expect(new Set(identities).size).toBe(4);
  });

  it("goes on where it is in use, however many others clients ask for", () => {
    const pool = new EncoderPool();
    const encoder = pool.of(binary);
    for (let bytes = 5_000; bytes < 6_000; bytes++) pool.of({ ...binary, maxMessageBytes: bytes });
    expect(encoder.codec.identity).toBe(pool.of(binary).codec.identity);
  });
});
