import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { decodeCursor } from "../../../src/core/cursor.ts";
import type { Event } from "../../../src/core/event.ts";
import type { EventsFrame } from "../../../src/core/frame.ts";
import { isoFromMicros } from "../../../src/http-stream/event-text.ts";
import { createFrameTextEncoder } from "../../../src/http-stream/text-encoder.ts";
import { NDJSON, SSE } from "../../../src/http-stream/text-form.ts";

const epoch = "0b61a2d6-7c0c-4b5e-9d52-4c1f3d0e7a11";
const bytes = (text: string | undefined) => (text === undefined ? undefined : Buffer.from(text));

const operation = fc.constantFrom("INSERT", "UPDATE", "DELETE", "MESSAGE");
const json = fc.json({ maxDepth: 2 }).map(bytes);
const events: fc.Arbitrary<readonly Event[]> = fc
  .array(
    fc.record({
      topic: fc.stringMatching(/^[a-z]{1,20}(\.[a-z]{1,9})?$/),
      key: fc.option(fc.string(), { nil: undefined }),
      operation,
      before: fc.option(json, { nil: undefined }),
      after: fc.option(json, { nil: undefined }),
      transaction: fc.stringMatching(/^[0-9]{1,19}$/),
      occurredAtMicros: fc.integer({ min: -1e15, max: 4e15 }),
      headers: fc.option(
        fc.dictionary(fc.string(), fc.string(), { maxKeys: 3 }).map((headers) => bytes(JSON.stringify(headers))),
        { nil: undefined },
      ),
    }),
    { minLength: 1, maxLength: 8 },
  )
  .map((list) => list.map((event, at) => ({ ...event, version: at + 1 })));

function frameOf(list: readonly Event[]): EventsFrame {
  const cursor = { epoch, version: list.length, fingerprint: 7, snapshot: undefined };
  return { kind: "events", events: list, cursor, complete: true, shared: { bytes: undefined } };
}

describe("events as text", () => {
  test("are JSON that says what they are, one line each, whatever is in them", () => {
    const encoder = createFrameTextEncoder({ form: NDJSON, payloads: true, maxMessageBytes: 1e6 });
    fc.assert(
      fc.property(events, (list) => {
        const lines = Buffer.from(encoder.events(frameOf(list), undefined))
          .toString()
          .split("\n");
        expect(lines.pop()).toBe("");
        expect(lines).toHaveLength(list.length);
        for (const [at, line] of lines.entries()) {
          const event = list[at];
          const told = JSON.parse(line);
          expect(told).toMatchObject({ version: at + 1, topic: event?.topic, operation: event?.operation });
          expect(told.key).toEqual(event?.key);
          for (const side of ["before", "after"] as const) {
            const image = event?.[side];
            expect(told[side]).toEqual(image === undefined ? undefined : JSON.parse(Buffer.from(image).toString()));
          }
          expect(decodeCursor(told.cursor).version).toBe(at + 1);
          expect(told.complete).toBe(at === list.length - 1 ? true : undefined);
        }
      }),
    );
  });

  test("are about as large as frames are cut by", () => {
    for (const form of [SSE, NDJSON]) {
      const encoder = createFrameTextEncoder({ form, payloads: true, maxMessageBytes: 1e6 });
      fc.assert(
        fc.property(events, (list) => {
          const measured = list.reduce((sum, event) => sum + encoder.codec.measure(event), 0);
          // Keys, topics and headers may be escaped: six characters for one.
          const escapes = list.reduce(
            (sum, { key, headers }) => sum + 6 * ((key?.length ?? 0) + (headers?.length ?? 0)),
            0,
          );
          expect(encoder.events(frameOf(list), undefined).length).toBeLessThanOrEqual(measured + escapes);
        }),
      );
    }
  });

  test("are made once for all streams of a lane", () => {
    const encoder = createFrameTextEncoder({ form: SSE, payloads: true, maxMessageBytes: 1e6 });
    fc.assert(
      fc.property(events, (list) => {
        const frame = frameOf(list);
        expect(encoder.events(frame, undefined)).toBe(encoder.events(frame, undefined));
      }),
    );
  });

  test("go without payloads that are too large, and say so", () => {
    const after = Buffer.from(`"${"x".repeat(9_000)}"`);
    const event = { version: 1, topic: "t", key: "k", operation: "INSERT", before: undefined, after } as const;
    const list = [{ ...event, transaction: "1", occurredAtMicros: 0, headers: undefined }];
    const text = (maxMessageBytes: number, payloads = true) =>
      Buffer.from(
        createFrameTextEncoder({ form: NDJSON, payloads, maxMessageBytes }).events(frameOf(list), undefined),
      ).toString();
    expect(JSON.parse(text(10_000))).toMatchObject({ after: "x".repeat(9_000) });
    expect(JSON.parse(text(8_000))).toMatchObject({ payloadOmitted: "TOO_LARGE" });
    expect(JSON.parse(text(8_000))).not.toHaveProperty("after");
    expect(JSON.parse(text(8_000, false))).not.toHaveProperty("payloadOmitted");
  });

  test("have times to the microsecond, also before 1970 and after 9999", () => {
    expect(isoFromMicros(1_700_000_000_123_456)).toBe("2023-11-14T22:13:20.123456Z");
    expect(isoFromMicros(-1)).toBe("1969-12-31T23:59:59.999999Z");
    expect(isoFromMicros(Date.UTC(10_000, 0, 1) * 1_000)).toBe("+010000-01-01T00:00:00.000000Z");
  });
});
