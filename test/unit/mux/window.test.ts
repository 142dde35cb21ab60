import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ConnectionWindow } from "../../../src/mux/window.ts";

const step = fc.oneof(
  fc.record({ do: fc.constant("grow" as const), bytes: fc.integer({ min: 1, max: 200_000 }) }),
  fc.record({ do: fc.constant("library" as const), share: fc.double({ min: 0, max: 1, noNaN: true }) }),
  fc.record({ do: fc.constant("ours" as const), share: fc.double({ min: 0, max: 1, noNaN: true }) }),
  fc.record({ do: fc.constant("return" as const) }),
  fc.record({
    do: fc.constant("credit" as const),
    others: fc.constantFrom("none" as const, "idle" as const, "waiting" as const),
  }),
);

describe("a connection's window", () => {
  it("never lets the library believe in more than there is", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const window = new ConnectionWindow();
        let believed = 65_535;
        for (const each of steps) {
          if (each.do === "grow") window.grow(each.bytes);
          else if (each.do === "library") {
            const bytes = Math.floor(window.library * each.share);
            window.librarySent(bytes);
            believed -= bytes;
          } else if (each.do === "ours") window.real -= Math.floor(window.ours * each.share);
          else if (each.do === "return") {
            const bytes = window.returnable;
            window.library -= bytes;
            believed -= bytes;
          } else believed += window.credit(each.others);
          expect(window.library).toBe(believed);
          expect(window.library).toBeGreaterThanOrEqual(0);
          expect(window.ours).toBeGreaterThanOrEqual(0);
        }
      }),
      { numRuns: 3_000 },
    );
  });

  it("leaves the library all of it while nobody else wants it, and at least a byte where there is one", () => {
    const window = new ConnectionWindow();
    window.librarySent(65_535);
    expect(window.hungry).toBe(true);
    window.grow(1);
    expect(window.credit("waiting")).toBe(1);
    window.grow(9_999);
    expect(window.credit("none")).toBe(9_999);
    expect(window.ours).toBe(0);
  });

  it("is given back to the last byte", () => {
    const window = new ConnectionWindow();
    for (let returns = 0; window.library > 0; returns += 1) {
      expect(returns).toBeLessThan(5);
      window.library -= window.returnable;
    }
    expect(window.ours).toBe(65_535);
  });

  it("refuses to grow beyond what the protocol allows", () => {
    const window = new ConnectionWindow();
    expect(window.grow(2 ** 31 - 1 - 65_535)).toBe(true);
    expect(window.grow(1)).toBe(false);
  });
});
