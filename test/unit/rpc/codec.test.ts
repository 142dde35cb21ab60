import { create, fromBinary, fromJsonString, toBinary, toJsonString } from "@bufbuild/protobuf";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { EventSchema, PayloadForm, PayloadOmitted } from "../../../gen/millrace/v1/event_pb.js";
import { EventBatchSchema, SubscribeResponseSchema } from "../../../gen/millrace/v1/feed_service_pb.js";
import type { Event, Operation } from "../../../src/core/event.ts";
import { createEventCodec, ENVELOPE_BYTES } from "../../../src/rpc/codec.ts";
import { eventMessage } from "../../../src/rpc/event-message.ts";

const text = fc.string({ unit: "binary", maxLength: 40 });
const operations: readonly Operation[] = ["INSERT", "UPDATE", "DELETE", "TRUNCATE", "SNAPSHOT", "MESSAGE"];
const bytes = (value: string): Uint8Array => new TextEncoder().encode(value);
const image = fc.oneof(
  fc.json().map(bytes),
  text.map((value) => bytes(JSON.stringify(value))),
  fc.constant(bytes('{ "n": 12345678901234567890.000, "s": "\\u0000" }\n')),
);
const committed: fc.Arbitrary<Event> = fc.record({
  version: fc.oneof(fc.integer({ min: 1, max: 300 }), fc.maxSafeNat()),
  topic: fc.stringMatching(/^[a-z0-9_.]{1,60}$/),
  key: fc.option(text, { nil: undefined }),
  operation: fc.constantFrom(...operations),
  before: fc.option(image, { nil: undefined }),
  after: fc.option(image, { nil: undefined }),
  transaction: fc.oneof(
    fc.constant(""),
    fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }).map((xid) => xid.toString()),
  ),
  occurredAtMicros: fc.oneof(
    fc.integer({ min: -62_135_596_800_000_000, max: 9_007_199_254_740_991 }),
    fc.constantFrom(0, 1, -1, 1_000_000, 1_763_689_000_123_456),
  ),
  headers: fc.option(
    fc
      .dictionary(
        text.filter((name) => name !== "__proto__"),
        text,
        { maxKeys: 4 },
      )
      .map((headers) => bytes(JSON.stringify(headers))),
    { nil: undefined },
  ),
});
const event: fc.Arbitrary<Event> = fc
  .tuple(
    committed,
    fc.constantFrom(undefined, "ENTERED", "LEFT"),
    fc.constantFrom(undefined, 2, 127, 128, 4_294_967_295),
  )
  .map(([its, transition, attempt]) => ({
    ...its,
    ...(transition === undefined ? {} : { transition }),
    ...(attempt === undefined ? {} : { attempt }),
  }));
const cursor = fc.oneof(fc.constant(""), fc.stringMatching(/^[A-Za-z0-9_-]{20,60}$/));
const binary = "application/grpc+proto";
const json = "application/connect+json";
const whole = { form: PayloadForm.JSON, maxMessageBytes: 4_128_768 };

function expectedBatch(events: readonly Event[], after: string, complete: boolean) {
  return create(SubscribeResponseSchema, {
    frame: {
      case: "events",
      value: create(EventBatchSchema, {
        events: events.map((one) => eventMessage(one, "whole")),
        cursor: after,
        complete,
      }),
    },
  });
}

describe("the event codec", () => {
  it("writes by hand what protobuf-es writes, byte for byte", () => {
    const codec = createEventCodec(binary, whole);
    fc.assert(
      fc.property(fc.array(event, { minLength: 1, maxLength: 8 }), cursor, fc.boolean(), (events, after, complete) => {
        const encoded = toBinary(SubscribeResponseSchema, codec.batch(events, after, complete));
        const expected = toBinary(SubscribeResponseSchema, expectedBatch(events, after, complete));
        expect(Buffer.from(encoded).equals(Buffer.from(expected))).toBe(true);
      }),
      { numRuns: 500 },
    );
  });

  it("tells a JSON client the same as a binary one", () => {
    fc.assert(
      fc.property(fc.array(event, { minLength: 1, maxLength: 5 }), cursor, fc.boolean(), (events, after, complete) => {
        const ofBinary = toBinary(
          SubscribeResponseSchema,
          createEventCodec(binary, whole).batch(events, after, complete),
        );
        const ofJson = toJsonString(
          SubscribeResponseSchema,
          createEventCodec(json, whole).batch(events, after, complete),
        );
        expect(fromJsonString(SubscribeResponseSchema, ofJson)).toEqual(fromBinary(SubscribeResponseSchema, ofBinary));
      }),
    );
  });

  it.each([
    ["binary", binary],
    ["JSON", json],
  ])("measures what an event adds to a %s batch, exactly, whatever is left out", (_name, contentType) => {
    const size = (message: ReturnType<ReturnType<typeof createEventCodec>["batch"]>): number =>
      contentType === json
        ? Buffer.byteLength(toJsonString(SubscribeResponseSchema, message))
        : toBinary(SubscribeResponseSchema, message).length;
    const form = fc.constantFrom(PayloadForm.JSON, PayloadForm.NONE, PayloadForm.UNSPECIFIED);
    const limit = fc.constantFrom(300, 400, 600, 4_128_768);
    fc.assert(
      fc.property(event, event, form, limit, (one, other, payloadForm, maxMessageBytes) => {
        const codec = createEventCodec(contentType, { form: payloadForm, maxMessageBytes });
        const alone = size(codec.batch([one], "", false));
        const both = size(codec.batch([one, other], "", false));
        // The length of the batch itself is a varint that may take a byte or two more.
        const grown = both - alone - codec.measure(other);
        expect(grown).toBeGreaterThanOrEqual(0);
        expect(grown).toBeLessThanOrEqual(contentType === json ? 0 : 2);
        const longest = "c".repeat(64);
        expect(size(codec.batch([one], longest, true)) - codec.measure(one)).toBeLessThan(ENVELOPE_BYTES - 5);
      }),
    );
  });

  it.each([binary, json])("keeps every message within the limit by leaving payloads out, and says so (%s)", (type) => {
    const limit = 4096;
    const codec = createEventCodec(type, { form: PayloadForm.JSON, maxMessageBytes: limit });
    const decode = (large: Event) => {
      const message = codec.batch([large], "c".repeat(64), true);
      const encoded =
        type === json
          ? bytes(toJsonString(SubscribeResponseSchema, message))
          : toBinary(SubscribeResponseSchema, message);
      expect(encoded.length + 5).toBeLessThanOrEqual(limit);
      const decoded =
        type === json
          ? fromJsonString(SubscribeResponseSchema, new TextDecoder().decode(encoded))
          : fromBinary(SubscribeResponseSchema, encoded);
      return decoded.frame.case === "events" ? decoded.frame.value.events[0] : undefined;
    };
    let omitted = 0;
    for (let length = limit - 600; length < limit + 200; length++) {
      const large: Event = {
        version: 7,
        topic: "orders",
        key: "1",
        operation: "UPDATE",
        before: undefined,
        after: bytes(`"${"x".repeat(length)}"`),
        transaction: "123",
        occurredAtMicros: 1_763_689_000_123_456,
        headers: undefined,
      };
      const delivered = decode(large);
      const whole = delivered?.after !== undefined;
      omitted += whole ? 0 : 1;
      expect(delivered?.payloadOmitted).toBe(whole ? PayloadOmitted.UNSPECIFIED : PayloadOmitted.TOO_LARGE);
    }
    expect(omitted).toBeGreaterThan(200);
    expect(omitted).toBeLessThan(700);
  });

  it("leaves payloads out without a word where the client asked for none", () => {
    const codec = createEventCodec(binary, { form: PayloadForm.NONE, maxMessageBytes: 4096 });
    const [one] = fc.sample(event, 1);
    const after = bytes("[1]");
    if (one === undefined) throw new Error("no sample");
    const encoded = toBinary(SubscribeResponseSchema, codec.batch([{ ...one, after }], "", true));
    const { frame } = fromBinary(SubscribeResponseSchema, encoded);
    const delivered = frame.case === "events" ? frame.value.events[0] : undefined;
    expect(delivered).toEqual(fromBinary(EventSchema, toBinary(EventSchema, eventMessage({ ...one, after }, "none"))));
    expect(delivered?.after).toBeUndefined();
  });
});
