import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { PolicyKind } from "../../../src/core/policy/policy.ts";
import { type Fault, simulateSelectorChanges } from "./selector-change-simulation.ts";

const STEPS = 120;
const RUNS = Number(process.env.MILLRACE_RUNS ?? 60);

describe("a change of selectors", () => {
  test("G1 G3 G7 G8 leaves its client with the rows of the new ones, once, wherever it is cut", async () => {
    let changes = 0;
    let restarts = 0;
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 0, max: 2 ** 31 }), async (seed) => {
        const report = await simulateSelectorChanges({ seed, steps: STEPS });
        changes += report.changes;
        restarts += report.restarts;
        expect(report.objections, `seed ${seed}`).toEqual([]);
      }),
      { numRuns: RUNS, endOnFailure: true },
    );
    expect(changes).toBeGreaterThan(RUNS);
    expect(restarts).toBeGreaterThan(0);
  }, 120_000);

  test.each<PolicyKind>(["DROP_OLDEST", "DROP_NEWEST", "LATEST", "SAMPLE"])(
    "G10 goes with %s: what came and what was left out add up, by the old selectors and by the new",
    async (policy) => {
      let changes = 0;
      let gaps = 0;
      await fc.assert(
        fc.asyncProperty(fc.integer({ min: 0, max: 2 ** 31 }), async (seed) => {
          const report = await simulateSelectorChanges({ seed, steps: STEPS, policy });
          changes += report.changes;
          gaps += report.gaps;
          expect(report.objections, `seed ${seed}`).toEqual([]);
        }),
        { numRuns: RUNS, endOnFailure: true },
      );
      expect(changes).toBeGreaterThan(RUNS);
      expect(gaps).toBeGreaterThan(0);
    },
    120_000,
  );

  test.each<Fault>(["row_lost", "version_too_low", "frame_lost"])(
    "is not taken to be right with a %s",
    async (fault) => {
      let caught = 0;
      for (let seed = 0; seed < 20; seed++) {
        const { objections } = await simulateSelectorChanges({ seed, steps: STEPS, fault });
        caught += objections.length > 0 ? 1 : 0;
      }
      expect(caught).toBeGreaterThan(3);
    },
  );
});
