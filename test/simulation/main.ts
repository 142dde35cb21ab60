import { parseArgs } from "node:util";
import { seedOfRun } from "../support/workload/random.ts";
import { describeFailure, shrink, simulate } from "./simulate.ts";

/** Steps of one world. With more, further worlds follow, each with the next seed. */
const STEPS_OF_WORLD = 20_000;

const { values } = parseArgs({
  options: { seed: { type: "string" }, steps: { type: "string", default: "1000000" } },
});
const total = Number(values.steps);
const totals: Record<string, number> = {};
const beganMs = performance.now();
let seed = values.seed === undefined ? seedOfRun() : Number(values.seed);
process.stdout.write(`MILLRACE_SEED=${seed}\n`);
for (let done = 0; done < total; seed += 1) {
  const outcome = await simulate(seed, Math.min(STEPS_OF_WORLD, total - done));
  if (outcome.complaints.length > 0) {
    const steps = await shrink(seed, Math.min(STEPS_OF_WORLD, total - done));
    process.stdout.write(`${describeFailure(await simulate(seed, steps), steps)}\n`);
    process.exitCode = 1;
    break;
  }
  done += outcome.steps;
  for (const [what, count] of Object.entries({ ...outcome.counts, steps: outcome.steps, worlds: 1 })) {
    totals[what] = (totals[what] ?? 0) + count;
  }
}
totals.seconds = Math.round((performance.now() - beganMs) / 1_000);
process.stdout.write(`${JSON.stringify(totals)}\n`);
