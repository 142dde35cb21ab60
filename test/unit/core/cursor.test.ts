import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type Cursor, compareCursors, decodeCursor, encodeCursor } from "../../../src/core/cursor.ts";
import { FeedError } from "../../../src/core/errors.ts";

const cursors: fc.Arbitrary<Cursor> = fc.record({
  epoch: fc.uuid(),
  version: fc.oneof(fc.nat(300), fc.maxSafeNat(), fc.constant(Number.MAX_SAFE_INTEGER)),
  fingerprint: fc.integer({ min: 0, max: 0xffffffff }),
  snapshot: fc.boolean(),
});

function refusalOf(text: string): FeedError | undefined {
  try {
    decodeCursor(text);
    return undefined;
  } catch (error) {
    return error instanceof FeedError ? error : undefined;
  }
}

describe("cursor", () => {
  test("G8 its text gives it back, in characters that need no escaping", () => {
    fc.assert(
      fc.property(cursors, (cursor) => {
        const text = encodeCursor(cursor);
        expect(text).toMatch(/^[A-Za-z0-9_-]{36,46}$/);
        expect(decodeCursor(text)).toEqual(cursor);
      }),
    );
  });

  test("two cursors have two texts", () => {
    fc.assert(
      fc.property(cursors, cursors, (a, b) => {
        expect(encodeCursor(a) === encodeCursor(b)).toBe(JSON.stringify(a) === JSON.stringify(b));
      }),
    );
  });

  test("G8 damage to any one character, and a cut anywhere, is noticed", () => {
    const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    fc.assert(
      fc.property(cursors, fc.nat(), fc.nat(63), (cursor, where, what) => {
        const text = encodeCursor(cursor);
        const at = where % text.length;
        const damaged = text.slice(0, at) + alphabet[what] + text.slice(at + 1);
        expect(damaged === text || refusalOf(damaged)?.code === "CURSOR_INVALID").toBe(true);
        expect(refusalOf(text.slice(0, at))?.code).toBe("CURSOR_INVALID");
      }),
      { numRuns: 500 },
    );
  });

  test("any other text is refused with a sentence", () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.base64String(), fc.constant(""), fc.constant("AQ==")), (text) => {
        const refusal = refusalOf(text);
        expect(refusal?.code).toBe("CURSOR_INVALID");
        expect(refusal?.message).toMatch(/^The cursor cannot be read: .*\.$/);
      }),
    );
  });

  test("order is by version, and the middle of a snapshot comes before its end", () => {
    const sameEpoch = fc.tuple(cursors, cursors, cursors).map(([a, b, c]) => {
      return [a, { ...b, epoch: a.epoch }, { ...c, epoch: a.epoch }] as const;
    });
    fc.assert(
      fc.property(sameEpoch, ([a, b, c]) => {
        expect(Math.sign(compareCursors(a, b))).toBe(-Math.sign(compareCursors(b, a)) || 0);
        if (compareCursors(a, b) <= 0 && compareCursors(b, c) <= 0) {
          expect(compareCursors(a, c)).toBeLessThanOrEqual(0);
        }
        expect(compareCursors({ ...a, snapshot: true }, { ...a, snapshot: false })).toBeLessThan(0);
      }),
    );
  });

  test("cursors of two epochs cannot be compared", () => {
    const [a] = fc.sample(cursors, 1);
    if (a !== undefined) {
      expect(() => compareCursors(a, { ...a, epoch: "11111111-1111-4111-8111-111111111111" })).toThrow(FeedError);
    }
  });
});
