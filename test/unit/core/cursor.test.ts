import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type Cursor, compareCursors, decodeCursor, encodeCursor } from "../../../src/core/cursor.ts";
import { FeedError } from "../../../src/core/errors.ts";
import { MAX_PIECE } from "../../../src/core/policy/policy.ts";

const counts = fc.oneof(fc.nat(300), fc.maxSafeNat(), fc.constant(Number.MAX_SAFE_INTEGER));
const places = fc.record({
  shape: fc.integer({ min: 0, max: 0xffffffff }),
  sources: counts,
  key: fc.option(fc.oneof(fc.string({ unit: "binary" }), fc.constant("\ufeff7")), { nil: undefined }),
  rows: counts,
});
const plain = fc.constantFrom<"anew" | undefined>("anew", undefined);
const unthinned: fc.Arbitrary<Cursor> = fc.record({
  epoch: fc.uuid(),
  version: counts,
  fingerprint: fc.integer({ min: 0, max: 0xffffffff }),
  snapshot: fc.oneof(plain, places),
});
const thinned: fc.Arbitrary<Cursor> = fc
  .record({
    cursor: unthinned,
    version: fc.oneof(fc.nat(300), fc.maxSafeNat().map(Math.sqrt).map(Math.floor)),
    length: fc.integer({ min: 1, max: MAX_PIECE }),
    every: fc.oneof(fc.constant(0), fc.integer({ min: 2, max: 2 ** 32 - 1 })),
  })
  .map(({ cursor, version, length, every }) => {
    return { ...cursor, version, snapshot: undefined, thinned: { until: version + length, every } };
  });
const ofGroups: fc.Arbitrary<Cursor> = fc
  .record({ cursor: unthinned, delivery: counts, deliveredTo: fc.integer({ min: 0, max: 0xffffffff }) })
  .map(({ cursor, ...delivered }) => ({ ...cursor, fingerprint: 0, snapshot: undefined, ...delivered }));
const cursors = fc.oneof(
  { weight: 3, arbitrary: unthinned },
  { weight: 1, arbitrary: thinned },
  { weight: 1, arbitrary: ofGroups },
);

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
        expect(text).toMatch(/^[A-Za-z0-9_-]{36,4096}$/);
        expect(
          typeof cursor.snapshot === "object" ||
            text.length <= (cursor.thinned === undefined && cursor.delivery === undefined ? 46 : 57),
        ).toBe(true);
        expect(decodeCursor(text)).toEqual(cursor);
      }),
    );
  });

  test("G8 cursors that were given out before places were known still mean the same", () => {
    const epoch = "7a0c4e9e-2f6e-4a55-9f5e-0c8a3b1d2e4f";
    const old = { epoch, version: 12_345, fingerprint: 0xfedcba98 };
    expect(decodeCursor("AQB6DE6eL25KVZ9eDIo7HS5PuWD-3LqY7qAobw")).toEqual({ ...old, snapshot: undefined });
    expect(decodeCursor("AQF6DE6eL25KVZ9eDIo7HS5PuWD-3LqYPyMvOA")).toEqual({ ...old, snapshot: "anew" });
  });

  test("G7 a place whose key does not fit, or is no text, is a snapshot to be taken anew: never a cut key", () => {
    const keys = fc.oneof(
      fc.string({ unit: "binary", minLength: 700, maxLength: 1_100 }).map((text) => text + text),
      fc.integer({ min: 2_990, max: 3_072 }).map((length) => "k".repeat(length)),
      fc.constant("\ud800"),
    );
    fc.assert(
      fc.property(unthinned, places, keys, fc.integer({ min: 46, max: 5_000 }), (cursor, place, key, maxCharacters) => {
        const snapshot = { ...place, key };
        const text = encodeCursor({ ...cursor, snapshot }, maxCharacters);
        expect(text.length).toBeLessThanOrEqual(Math.min(maxCharacters, 4_096));
        const decoded = decodeCursor(text).snapshot;
        expect(decoded === "anew" || (key.isWellFormed() && decoded)).toEqual(decoded === "anew" ? true : snapshot);
        const longest = Math.min(maxCharacters, 4_096) * 0.75 - 80;
        expect(decoded === "anew" || new TextEncoder().encode(key).length <= longest + 30).toBe(true);
        expect(decoded !== "anew" || !key.isWellFormed() || new TextEncoder().encode(key).length > longest).toBe(true);
      }),
    );
  });

  test("G8 a piece that no policy makes is refused: of no events or too many, or of which everything is kept", () => {
    const cursor = { epoch: "7a0c4e9e-2f6e-4a55-9f5e-0c8a3b1d2e4f", version: 7, fingerprint: 1, snapshot: undefined };
    const pieces = [
      { until: 7, every: 0 },
      { until: 7 + MAX_PIECE + 1, every: 0 },
      { until: 9, every: 1 },
    ];
    for (const piece of pieces) {
      expect(refusalOf(encodeCursor({ ...cursor, thinned: piece }))?.code).toBe("CURSOR_INVALID");
    }
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
        expect(compareCursors({ ...a, snapshot: b.snapshot ?? "anew" }, { ...a, snapshot: undefined })).toBeLessThan(0);
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
