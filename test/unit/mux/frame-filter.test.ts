import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type Fate, FrameFilter } from "../../../src/mux/frame-filter.ts";
import { FrameReader, frame, preface } from "../../support/h2/frames.ts";

/** Types: 0 to 2 pass, 3 is held and passes, 4 is held and dropped, 5 is held and replaced, 6 and 7 are dropped. */
const fates: readonly Fate[] = ["pass", "pass", "pass", "hold", "hold", "hold", new Uint8Array(0), Buffer.from("new")];

function createFilter(prefaceBytes: number) {
  return new FrameFilter(
    {
      head: (type) => fates[type] ?? "pass",
      held: (whole) => (whole[3] === 3 ? whole : whole[3] === 4 ? new Uint8Array(0) : Buffer.from("replaced")),
    },
    prefaceBytes,
  );
}

function expected(type: number, whole: Buffer): Buffer {
  if (type <= 3) return whole;
  if (type === 5) return Buffer.from("replaced");
  return Buffer.from(type === 7 ? "new" : "");
}

const frames = fc.array(fc.tuple(fc.nat({ max: 7 }), fc.uint8Array({ maxLength: 60 })), { maxLength: 12 });
const cuts = fc.array(fc.integer({ min: 1, max: 70 }), { minLength: 1, maxLength: 20 });

function cut(bytes: Buffer, sizes: readonly number[]): Buffer[] {
  const chunks: Buffer[] = [];
  for (let at = 0, i = 0; at < bytes.length; i += 1) {
    const size = sizes[i % sizes.length] ?? 1;
    chunks.push(bytes.subarray(at, at + size));
    at += size;
  }
  return chunks;
}

describe("a frame filter", () => {
  it("passes, holds, replaces and drops frames, wherever the bytes are cut", () => {
    fc.assert(
      fc.property(frames, cuts, fc.boolean(), (all, sizes, prefaced) => {
        const wholes = all.map(([type, payload], i) => frame(type, i, i + 1, payload));
        const head = prefaced ? [preface] : [];
        const filter = createFilter(prefaced ? preface.length : 0);
        const out: Uint8Array[] = [];
        for (const chunk of cut(Buffer.concat([...head, ...wholes]), sizes)) filter.push(chunk, out);
        const wanted = Buffer.concat([
          ...head,
          ...all.map(([type], i) => expected(type, wholes[i] ?? Buffer.alloc(0))),
        ]);
        expect(Buffer.concat(out).equals(wanted)).toBe(true);
        expect(filter.atBoundary).toBe(true);
      }),
      { numRuns: 2_000 },
    );
  });

  it("knows where a frame may be put in: where what went on ends with a frame", () => {
    fc.assert(
      fc.property(frames, cuts, (all, sizes) => {
        const passing = all.filter(([type]) => type <= 4 || type === 6);
        const filter = createFilter(0);
        const out: Uint8Array[] = [];
        for (const chunk of cut(Buffer.concat(passing.map(([type, payload]) => frame(type, 0, 1, payload))), sizes)) {
          filter.push(chunk, out);
          const gone = Buffer.concat(out);
          const whole = new FrameReader().push(gone).reduce((sum, { payload }) => sum + 9 + payload.length, 0);
          expect(filter.atBoundary).toBe(whole === gone.length);
        }
      }),
      { numRuns: 2_000 },
    );
  });

  it("passes a frame's head at once, and a chunk of passing frames as it is", () => {
    const filter = createFilter(0);
    const out: Uint8Array[] = [];
    const head = frame(0, 0, 1, Buffer.alloc(100)).subarray(0, 9);
    filter.push(head, out);
    expect(out).toEqual([head]);
    const rest = Buffer.concat([Buffer.alloc(100), frame(1, 0, 1, Buffer.alloc(3)), frame(2, 0, 1)]);
    filter.push(rest, out);
    expect(out[1]).toBe(rest);
  });
});
