import type pg from "pg";
import { expect, test } from "vitest";
import { freshDatabase } from "../../support/cluster.ts";
import { query } from "../../support/restores.ts";
import { createRandom, type Random } from "../../support/workload/random.ts";
import { tick } from "../ordering/stage.ts";
import { change, epochOf, judge, type Reading, readFeed, Sessions, textOf } from "./history.ts";

/**
 * Puts the rows of the feed back as whoever restores a dump does, in one transaction, with all the transaction ids in them
 * moved: as if another cluster, whose ids were ahead or behind by so many, had written them.
 */
async function restoreFrom(url: string, shift: number): Promise<void> {
  const other = (xid: string) => `((${xid})::text::bigint + ${shift})::text::xid8`;
  const snapshot = `(select string_agg(case when part = '' then '' else (part::bigint + ${shift})::text end, punctuation order by place)
    from regexp_split_to_table(snapshot::text, '[:,]') with ordinality p(part, place),
      lateral (select case when place <= 3 then ':' else ',' end as punctuation) c)::pg_snapshot`;
  await query(url, "create table public.kept_tick as select * from millrace.tick");
  await query(url, "create table public.kept_outbox as select * from millrace.outbox");
  await query(
    url,
    `do $$ begin
       truncate millrace.tick, millrace.outbox;
       update public.kept_tick set snapshot = ${snapshot}, next_floor_xid = case when next_floor_xid = '0' then '0' else ${other("next_floor_xid")} end;
       update public.kept_outbox set xid = ${other("xid")};
       insert into millrace.tick select * from public.kept_tick order by tick;
       insert into millrace.outbox select * from public.kept_outbox;
       update millrace.epoch set outbox_oid = 1 where first_tick = (select max(first_tick) from millrace.epoch);
       drop table public.kept_tick, public.kept_outbox;
     end $$`,
  );
}

/** The same, as it reads after that. */
function moved({ epoch, head, events }: Reading, shift: number): Reading {
  const shifted = events.map((event) => ({ ...event, transaction: String(Number(event.transaction) + shift) }));
  return { epoch, head, events: shifted, texts: shifted.map(textOf) };
}

function pick<T>(random: Random, choices: readonly [T, ...T[]]): T {
  return choices[random.below(choices.length)] ?? choices[0];
}

interface Writer {
  readonly session: pg.Client;
  readonly key: string;
  n: number;
  open: boolean;
}

async function act(random: Random, writers: readonly Writer[], ticker: pg.Client): Promise<void> {
  const writer = writers[random.below(writers.length)];
  if (writer === undefined) return;
  switch (pick(random, ["write", "write", "write", "write", "begin", "begin", "commit", "roll back", "tick", "tick"])) {
    case "write":
      writer.n += 1;
      return await change(writer.session, writer.key, writer.n);
    case "begin":
      if (!writer.open) await writer.session.query("begin");
      writer.open = true;
      return;
    case "commit":
      await writer.session.query("commit");
      writer.open = false;
      return;
    case "roll back":
      await writer.session.query("rollback");
      writer.open = false;
      return;
    case "tick":
      await tick(ticker);
  }
}

/** A text in millrace.write_seam and what stands in its place. */
type Fault = readonly [string, string];

async function live(seed: number, fault?: Fault): Promise<void> {
  const random = createRandom(seed);
  await using sessions = new Sessions();
  const url = await freshDatabase({ migrated: true });
  if (fault !== undefined) await plant(url, fault);
  const counts = new Map<string, number>();
  let before: Reading | undefined;
  for (let round = 1; round <= 4; round += 1) {
    const ticker = await sessions.to(url);
    const writers: Writer[] = [];
    for (const key of ["w", "x", "y", "z"]) {
      writers.push({ session: await sessions.to(url), key, n: counts.get(key) ?? 0, open: false });
    }
    for (let step = 10 + random.below(50); step > 0; step -= 1) await act(random, writers, ticker);
    for (const { key, n } of writers) counts.set(key, n);
    await sessions.close();
    const [[fork, oldest] = []] = await query(
      url,
      `select (select first_version + count - 1 from millrace.tick order by tick desc limit 1)::int,
         least((select min(xid::text::bigint) from millrace.outbox), (select min(pg_snapshot_xmin(snapshot)::text::bigint) from millrace.tick))::int`,
    );
    const least = 10 - Number(oldest);
    const wanted = pick(random, [0, random.below(40) - 20, random.below(100_000), least]);
    const shift = Math.max(wanted, least);
    await restoreFrom(url, shift);
    before = before === undefined ? undefined : moved(before, shift);
    const then = pick(random, ["write", "write", "lose the sequence", "nothing"]);
    if (then === "write") {
      const writer = await sessions.to(url);
      for (const key of ["w", "x", "y"]) {
        counts.set(key, (counts.get(key) ?? 0) + 1);
        await change(writer, key, counts.get(key) ?? 0);
      }
      await sessions.close();
    } else if (then === "lose the sequence") {
      // Left out of the dump, and nobody has written since.
      await query(url, "select setval('millrace.outbox_seq', 1, false)");
    }
    const now = await readFeed(url);
    await judge(url, now, before, before?.head ?? 0);
    expect(await epochOf(url)).toMatchObject({ reason: "restored", fork, epochs: round + 1 });
    before = now;
  }
}

async function plant(url: string, [right, wrong]: Fault): Promise<void> {
  const [row] = await query(url, "select pg_get_functiondef('millrace.write_seam()'::regprocedure)");
  const source = String(row?.[0]);
  expect(source).toContain(right);
  await query(url, source.replace(right, wrong));
}

const seeds = Array.from({ length: 8 }, () => Math.floor(Math.random() * 2 ** 31));

test.each(seeds)("G1 G2 G3 G4 G6 seam upon seam, whatever the transaction ids, seed %i", (seed) => live(seed));

interface PlantedFault {
  readonly name: string;
  readonly fault: Fault;
  /** Histories that show it. */
  readonly seeds: readonly number[];
}

const faults: readonly PlantedFault[] = [
  {
    name: "leaves out what committed late",
    fault: ["array_agg(z.seq order by z.seq)", "null::bigint[]"],
    seeds: [1, 2],
  },
  {
    name: "does not close the old space of ids",
    fault: ["nextval('millrace.outbox_seq')", "p.base_seq"],
    seeds: [1, 5],
  },
  {
    name: "asks the last tick alone how far ticks came",
    fault: ["max(t.max_seq)", "max(t.max_seq) filter (where t.tick = p.tick)"],
    seeds: [14],
  },
  {
    name: "takes its snapshot from its predecessor",
    fault: ["values (p.tick + 1, here,", "values (p.tick + 1, p.snapshot,"],
    seeds: [1, 2],
  },
];

test.each(faults)("a seam that $name is found out", async ({ fault, seeds: telling }) => {
  const outcomes = await Promise.allSettled(telling.map((seed) => live(seed, fault)));
  expect(outcomes.map(({ status }) => status)).toContain("rejected");
});
