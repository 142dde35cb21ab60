import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { beyond, type Deliveries, deliveredAgain, deliveriesOf } from "../../../../src/core/subscription/deliveries.ts";

const VERSIONS = 40;
const all = Array.from({ length: VERSIONS }, (_, index) => index + 1);
/** What a consumer does: it is given events up to a version, from wherever it has acknowledged. */
const rounds = fc.array(fc.record({ upTo: fc.nat(VERSIONS), acknowledge: fc.nat(VERSIONS) }), { maxLength: 20 });

describe("deliveries", () => {
  it("count each version as often as it was delivered after the position", () => {
    fc.assert(
      fc.property(rounds, (story) => {
        let steps: Deliveries = [];
        let position = 0;
        const model = new Map<number, number>();
        for (const { upTo, acknowledge } of story) {
          steps = deliveredAgain(steps, Math.max(upTo, position));
          for (const version of all.filter((each) => each > position && each <= upTo)) {
            model.set(version, (model.get(version) ?? 0) + 1);
          }
          position = Math.max(position, Math.min(acknowledge, upTo));
          steps = beyond(steps, position);
          for (const version of all.filter((each) => each > position)) {
            expect(deliveriesOf(version, steps)).toBe(model.get(version) ?? 0);
          }
        }
      }),
    );
  });

  it("are ascending, and of neighbours no two are the same", () => {
    fc.assert(
      fc.property(fc.array(fc.nat(VERSIONS), { maxLength: 30 }), (story) => {
        const steps = story.reduce<Deliveries>((before, upTo) => deliveredAgain(before, upTo), []);
        for (const [index, step] of steps.entries()) {
          expect(step.version).toBeGreaterThan(steps[index - 1]?.version ?? -1);
          expect(step.attempts).not.toBe(steps[index - 1]?.attempts);
        }
      }),
    );
  });

  it("stay few, and then say rather too many than too few", () => {
    let steps: Deliveries = [];
    const model = new Map<number, number>();
    for (let upTo = 100; upTo > 0; upTo--) {
      steps = deliveredAgain(steps, upTo);
      for (let version = 1; version <= upTo; version++) {
        model.set(version, (model.get(version) ?? 0) + 1);
      }
    }
    expect(steps.length).toBeLessThanOrEqual(32);
    for (const [version, count] of model) {
      expect(deliveriesOf(version, steps)).toBeGreaterThanOrEqual(count);
    }
  });
});
