// What Millrace costs those who write: commits per second with a server and a live client attached over the same without
// any, for plain outbox inserts; and pgbench's own transactions on watched tables over unwatched ones. In turns.
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Bed, conditions, pin, tpsOf } from "./bed.ts";
import { benchOptions, report } from "./report.ts";
import { subscribe } from "./wire-client.ts";

const turns = 4;
const { seconds } = benchOptions(30);
const perTurn = String(Math.max(2, Math.round(seconds / turns / 5)));

await using bed = await Bed.open();
// The writers and their database on one core, Millrace on the other.
await pin(bed.cluster.postmasterPid, 0);
await bed.pgbench(["-i", "-q", "-s", "10"]);
await bed.sql("alter table pgbench_history add column id bigint generated always as identity primary key");
const emit = join(bed.cluster.dataDir, "..", "emit.sql");
await writeFile(emit, `select millrace.emit('bench', 'key', '{"padding": "${"x".repeat(200)}"}');\n`);

const results = { detached: 0, attached: 0, unwatched: 0, captured: 0, watched: 0 };
// Each turn in the other order: what fills up or wears off over a turn is then nobody's advantage.
for (let turn = 0; turn < turns; turn += 1) {
  const phases = [alone, attached];
  for (const phase of turn % 2 === 0 ? phases : phases.toReversed()) await phase();
}

async function alone(): Promise<void> {
  results.detached += (await run(["-f", emit])) / turns;
  results.unwatched += (await run([])) / turns;
  for (const table of tables()) await bed.sql(`select millrace.watch('${table}')`);
  results.captured += (await run([])) / turns;
  for (const table of tables()) await bed.sql(`select millrace.unwatch('${table}')`);
}

async function attached(): Promise<void> {
  for (const table of tables()) await bed.sql(`select millrace.watch('${table}')`);
  const server = await bed.server({ cpu: 1 });
  const live = subscribe(server.port, { start: { case: "now", value: {} } }, () => {});
  results.attached += (await run(["-f", emit])) / turns;
  results.watched += (await run([])) / turns;
  live.cancel();
  await server.terminate();
  for (const table of tables()) await bed.sql(`select millrace.unwatch('${table}')`);
}

report(
  "writers",
  [
    {
      what: "outbox inserts, Millrace and a live client attached",
      value: results.attached,
      unit: "tx/s",
      baseline: { what: "nobody attached", value: results.detached },
      target: ">= 0.9",
      met: results.attached / results.detached >= 0.9,
    },
    {
      what: "pgbench TPC-B, all tables watched, nobody attached",
      value: results.captured,
      unit: "tx/s",
      baseline: { what: "unwatched, nobody attached", value: results.unwatched },
    },
    {
      what: "pgbench TPC-B, all tables watched, a live client",
      value: results.watched,
      unit: "tx/s",
      baseline: { what: "unwatched, nobody attached", value: results.unwatched },
    },
  ],
  `pgbench -c 8 -M prepared, ${turns} turns of ${perTurn} s each; Postgres and pgbench on core 0, Millrace and client on core 1; ${conditions}`,
);

function tables(): readonly string[] {
  return ["pgbench_accounts", "pgbench_branches", "pgbench_tellers", "pgbench_history"];
}

async function run(args: readonly string[]): Promise<number> {
  return tpsOf(await bed.pgbench(["-n", "-c", "8", "-M", "prepared", "-T", perTurn, ...args]));
}
