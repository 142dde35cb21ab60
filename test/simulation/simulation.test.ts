import { describe, expect, it } from "vitest";
import { FAULTS } from "./faults.ts";
import { describeFailure, type Outcome, shrink, simulate } from "./simulate.ts";

const WORLDS = 32;
const STEPS = 20_000;
/** Worlds in which a fault has to be seen, and how long each of them is looked at. */
const FAULTY_WORLDS = 12;
const FAULTY_STEPS = 6_000;

describe("G3, G5, G8, G9, G10 the whole core in seeded time", () => {
  it("G3, G5, G8, G9, G10 keeps every promise in worlds of stalls, cuts, outages, restarts and restores", async () => {
    const total: Record<string, number> = {};
    for (let seed = 1; seed <= WORLDS; seed += 1) {
      const outcome = await simulate(seed, STEPS);
      if (outcome.complaints.length > 0) {
        const steps = await shrink(seed, STEPS);
        expect.fail(describeFailure(await simulate(seed, steps), steps));
      }
      add(total, outcome);
    }
    expect(total.steps).toBeGreaterThanOrEqual(WORLDS * STEPS);
    expect(total.clients).toBeGreaterThan(1_000);
    // Each of these happens by chance: none that is never seen proves anything.
    const mustHappen = ["gap", "checkpoint", "closing", "snapshot_complete", "restores", "ended with SLOW_CONSUMER"];
    const lost = ["refused with HISTORY_LOST", "ended with HISTORY_LOST", "over with EPOCH_CHANGED"];
    expect([...mustHappen, ...lost].filter((what) => total[what] === undefined)).toEqual([]);
  }, 600_000);

  it("does and says the same again with the same seed, and other things with another", async () => {
    const [first, again, other] = [await simulate(7, 8_000), await simulate(7, 8_000), await simulate(8, 8_000)];
    expect(again).toEqual(first);
    expect(other.digest).not.toBe(first.digest);
  });
});

describe("the simulation sees faults that are planted in the core", () => {
  it.each(FAULTS)("$name", async (fault) => {
    for (let seed = 1; seed <= FAULTY_WORLDS; seed += 1) {
      const { complaints } = await simulate(seed, FAULTY_STEPS, fault);
      if (complaints.length > 0) {
        expect(fault.seenAs).toContain(complaints[0]?.guarantee);
        return;
      }
    }
    expect.fail("nobody complained");
  });
});

function add(total: Record<string, number>, { counts, steps }: Outcome): void {
  for (const [what, count] of Object.entries({ ...counts, steps })) {
    total[what] = (total[what] ?? 0) + count;
  }
}
