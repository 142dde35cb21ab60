// A tick that finds nothing, at 1 to 256 partitions of the outbox, beside an empty transaction of the same shape: what an
// idle feed costs the database. Partitions lie behind the sequence, as time leaves them.
import type pg from "pg";
import { Bed, conditions } from "./bed.ts";
import { benchOptions, percentile, report } from "./report.ts";

const size = 10_000_000;
const { seconds } = benchOptions(12);
const begin = "begin isolation level read committed read write; set local synchronous_commit = on;";
const tick = `${begin} select * from millrace.tick(); commit`;
const nothing = `${begin} select 1, 2; commit`;

await using bed = await Bed.open();
const connection = await bed.connection();
const measurements = [];
let partitions = 1;
for (const wanted of [1, 16, 64, 256]) {
  await growTo(wanted);
  const samples = { tick: [] as number[], nothing: [] as number[] };
  const end = performance.now() + (seconds / 4) * 1000;
  while (performance.now() < end) {
    samples.nothing.push(await time(nothing));
    samples.tick.push(await time(tick));
  }
  const [cost, floor] = [percentile(samples.tick, 0.5), percentile(samples.nothing, 0.5)];
  measurements.push({
    what: `idle tick, round trip, ${wanted} partition${wanted === 1 ? "" : "s"}, p50`,
    value: cost,
    unit: "ms",
    baseline: { what: "an empty transaction", value: floor },
    target: "<= 0.5 ms",
    met: cost <= 0.5,
  });
}
report("idle-tick", measurements, conditions);

async function time(text: string): Promise<number> {
  const begun = performance.now();
  await connection.query(text);
  return performance.now() - begun;
}

/** Adds partitions, puts the sequence into the last one, and settles an event there until the floor has followed. */
async function growTo(wanted: number): Promise<void> {
  for (; partitions < wanted; partitions += 1) {
    const from = partitions * size + 1;
    await connection.query(
      `create table millrace.outbox_${partitions + 1} partition of millrace.outbox for values from (${from}) to (${from + size})`,
    );
  }
  await connection.query(
    `select setval('millrace.outbox_seq', greatest(${(partitions - 1) * size + 10}, nextval('millrace.outbox_seq')))`,
  );
  const low = (partitions - 1) * size;
  for (let round = 0; round < 100; round += 1) {
    await connection.query("select millrace.emit('bench')");
    await connection.query(tick);
    if ((await floorOf(connection)) > low) return;
  }
  throw new Error(`the floor stays at ${await floorOf(connection)} with ${partitions} partitions`);
}

async function floorOf(client: pg.Client): Promise<number> {
  const { rows } = await client.query<{ floor: string }>(
    "select floor_seq::text as floor from millrace.tick order by tick desc limit 1",
  );
  return Number(rows[0]?.floor ?? 0);
}
