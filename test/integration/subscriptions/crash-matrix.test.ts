import { describe, expect, it } from "vitest";
import { judge } from "../../support/checker/consumption.ts";
import { seedOfRun } from "../../support/workload/random.ts";
import { soak, testMs } from "../guarantees/stage.ts";
import { runMatrix } from "./matrix/matrix.ts";

/** Among them a hundred rounds in a long run, and a dozen otherwise. */
const runs = [
  {
    what: "a subscription, and one whose consumer stores the cursor",
    only: ["plain", "exactly"],
    replicas: 1,
    share: 0.4,
  },
  { what: "a group of four on one replica", only: ["group"], replicas: 1, share: 0.35 },
  { what: "a group of three on two replicas", only: ["group"], replicas: 2, share: 0.25 },
] as const;

const rounds = soak ? 100 : 12;

describe("consumers, servers and databases that are killed between delivery and acknowledgement", () => {
  it.each(runs)(
    "G1 G3 G8 $what: all that was committed is processed, each key in order, and nothing is taken for acknowledged that is not",
    async ({ only, replicas, share }) => {
      const seed = seedOfRun();
      const told = [`npm run crash-matrix -- --seed ${seed} --replicas ${replicas} --only ${only}`];
      const outcome = await runMatrix({
        seed,
        rounds: Math.ceil(rounds * share),
        replicas,
        members: replicas === 1 ? 4 : 3,
        only,
        report: (line) => told.push(line),
      });
      expect(outcome.complaints.slice(0, 20), told.join("\n")).toEqual([]);
      expect(outcome.events).toBeGreaterThan(100);
      // The same recordings with something left out.
      for (const consumption of outcome.consumptions) {
        const one = consumption.truth[Math.floor(consumption.truth.length / 2)]?.version;
        const notes = consumption.notes.filter((note) => note.what !== "processed" || note.version !== one);
        expect(judge({ ...consumption, notes, deadLetters: [] }).join()).toContain(`version ${one} `);
      }
    },
    testMs,
  );
});
