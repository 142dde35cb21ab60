import { parseArgs } from "node:util";
import { debian15Available } from "../support/cluster.ts";
import { seedOfRun } from "../support/workload/random.ts";
import { faults, torture } from "./torture.ts";

const { values } = parseArgs({
  options: {
    minutes: { type: "string", default: "5" },
    seed: { type: "string" },
    rounds: { type: "string", default: "8" },
    writers: { type: "string", default: "8" },
    faults: { type: "string", default: faults.join(",") },
    transactions: { type: "string", default: "400" },
  },
});
const endsAt = Date.now() + Number(values.minutes) * 60_000;
const first = values.seed === undefined ? seedOfRun() : Number(values.seed);
for (let seed = first; seed === first || (values.seed === undefined && Date.now() < endsAt); seed += 1) {
  const old = seed % 2 === 1 && debian15Available();
  process.stdout.write(`MILLRACE_SEED=${seed} on ${old ? "Postgres 15" : "the embedded Postgres"}\n`);
  const outcome = await torture({
    seed,
    rounds: Number(values.rounds),
    transactions: Number(values.transactions),
    writers: Number(values.writers),
    faults: faults.filter((fault) => values.faults.split(",").includes(fault)),
    cluster: old ? { binaries: "debian-15" } : {},
    report: (line) => process.stdout.write(`${line}\n`),
  });
  const { complaints, story, ...counts } = outcome;
  process.stdout.write(`${JSON.stringify({ events: story.length, ...counts })}\n`);
  if (complaints.length > 0) {
    process.stdout.write(`${complaints.join("\n")}\nagain with: npm run torture -- --seed ${seed}\n`);
    process.exitCode = 1;
    break;
  }
}
process.exit();
