// The long form: `npm run crash-matrix -- --rounds N --seed S`; with `--keep FILE` the recording of a run with complaints is left there.
import { writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { seedOfRun } from "../../../support/workload/random.ts";
import { runMatrix } from "./matrix.ts";
import { targets } from "./stage.ts";

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "100" },
    seed: { type: "string" },
    replicas: { type: "string", default: "1" },
    members: { type: "string", default: "4" },
    keep: { type: "string" },
    only: { type: "string", default: targets.join(",") },
  },
});
const seed = values.seed === undefined ? seedOfRun() : Number(values.seed);
const again = `--seed ${seed} --rounds ${values.rounds} --replicas ${values.replicas}`;
process.stdout.write(`npm run crash-matrix -- ${again}\n`);
const outcome = await runMatrix({
  seed,
  rounds: Number(values.rounds),
  replicas: Number(values.replicas),
  members: Number(values.members),
  only: targets.filter((target) => values.only.split(",").includes(target)),
  report: (line) => process.stdout.write(`${line}\n`),
});
const { complaints, reached, events } = outcome;
process.stdout.write(`${events} events; in ${reached} rounds the moment came; ${complaints.length} complaints\n`);
process.stdout.write(
  complaints
    .slice(0, 40)
    .map((complaint) => `${complaint}\n`)
    .join(""),
);
if (complaints.length > 0 && values.keep !== undefined) {
  writeFileSync(values.keep, JSON.stringify(outcome.consumptions));
}
process.exit(complaints.length === 0 ? 0 : 1);
