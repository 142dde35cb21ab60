import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Event } from "../../../src/core/event.ts";
import { tickEnd } from "../../../src/core/page.ts";
import { createFeedDatabase, type FeedDatabase, readAll } from "./feed-database.ts";
import { type Change, handOffProblems } from "./hand-off.ts";

const writers = 8;
const rounds = 40;

interface Taken {
  readonly tick: number;
  readonly version: number;
  readonly rows: readonly Event[];
}

let database: FeedDatabase;
const taken: Taken[] = [];
let changes: readonly Change[] = [];
let table: ReadonlyMap<string, string> = new Map();

const moveKey = `
  update account set id = id + 10000
  where id = $1 and not exists (select from account where id = $1 + 10000)`;

/** Transfers between hot rows, rows that come and go, keys that change, and now and then a rollback. */
async function write(writer: number, more: () => boolean): Promise<void> {
  const session = await database.session();
  for (let turn = 0; more(); turn += 1) {
    const some = (turn * 7 + writer * 13) % 50;
    const other = (some + 1 + (turn % 5)) % 50;
    const [low, high] = [Math.min(some, other), Math.max(some, other)];
    const own = 1000 + writer * 100 + (turn % 20);
    await session.query("begin");
    await session.query("update account set balance = balance - 1, changes = changes + 1 where id = $1", [low]);
    await session.query("update account set balance = balance + 1, changes = changes + 1 where id = $1", [high]);
    if (turn % 3 === 0) await session.query("insert into account values ($1, 0, 0) on conflict do nothing", [own]);
    if (turn % 4 === 0) await session.query(moveKey, [own]);
    if (turn % 5 === 0) await session.query("delete from account where id in ($1, $1 + 10000)", [own]);
    await session.query(turn % 11 === 0 ? "rollback" : "commit");
  }
}

async function tickAlong(more: () => boolean): Promise<void> {
  while (more()) await database.tick();
}

beforeAll(async () => {
  database = await createFeedDatabase();
  await database.sql("create table account (id int primary key, balance int not null, changes int not null)");
  await database.sql("insert into account select i, 100, 0 from generate_series(0, 49) i");
  await database.sql("select millrace.watch('account')");
  let writing = true;
  const busy = Array.from({ length: writers }, (_, writer) => write(writer, () => writing));
  const ticking = tickAlong(() => writing);
  try {
    for (let round = 0; round < rounds; round += 1) {
      const reader = await database.snapshot();
      taken.push({ tick: reader.tick.tick, version: tickEnd(reader.tick), rows: await readAll(reader) });
    }
  } finally {
    writing = false;
    await Promise.all([...busy, ticking]);
  }
  await database.tick();
  changes = await database.sql<Change & { tick: number }>(
    `select (select min(t.tick)::int from millrace.tick t where pg_visible_in_snapshot(o.xid, t.snapshot)) as tick,
       o.operation, o.key, o.before::text, o.after::text
     from millrace.outbox o order by tick, o.seq`,
  );
  const rows = await database.sql<{ id: string; image: string }>(
    "select id::text, row_to_json(a)::text as image from account a",
  );
  table = new Map(rows.map(({ id, image }) => [id, image]));
});

afterAll(() => database[Symbol.asyncDispose]());

function changesAfter(tick: number): readonly Change[] {
  return changes.filter((change) => change.tick > tick);
}

/** A snapshot with changes on both sides, so that a fault at the seam has something to break. */
function inTheMiddle(): Taken {
  const found = taken.find(
    ({ tick }) => changesAfter(tick).length > 100 && changesAfter(tick).length < changes.length - 100,
  );
  if (found === undefined) throw new Error("no snapshot lies amid the writing");
  return found;
}

describe("snapshot + live", () => {
  it("G7 rows of the snapshot and the changes after its tick are the table, each change exactly once", () => {
    expect(inTheMiddle().rows.length).toBeGreaterThan(40);
    for (const { tick, rows } of taken) expect(handOffProblems(rows, changesAfter(tick), table)).toEqual([]);
  });

  it("G7 every row carries the version that the snapshot's tick ends at", () => {
    for (const { tick, version, rows } of taken) {
      expect(new Set(rows.map((row) => row.version))).toEqual(new Set([version]));
      expect(changes.filter((change) => change.tick <= tick)).toHaveLength(version);
    }
  });

  it("G7 total balance is the same in every snapshot: each is one moment", () => {
    const totals = taken.map(({ rows }) =>
      rows.reduce((sum, { after: image }) => sum + Number(JSON.parse(Buffer.from(image ?? []).toString()).balance), 0),
    );
    expect(new Set(totals)).toEqual(new Set([5000]));
  });

  describe("G7 the checker sees a planted fault", () => {
    it.each<readonly [string, (taken: Taken) => readonly [readonly Event[], readonly Change[]]]>([
      ["the first change after the seam lost", ({ rows, tick }) => [rows, changesAfter(tick).slice(1)]],
      [
        "the last change before the seam again",
        ({ rows, tick }) => [rows, changes.slice(changes.length - changesAfter(tick).length - 1)],
      ],
      ["a change doubled", ({ rows, tick }) => [rows, [...changesAfter(tick).slice(0, 1), ...changesAfter(tick)]]],
      ["a row lost", ({ rows, tick }) => [rows.slice(1), changesAfter(tick)]],
      ["a row doubled", ({ rows, tick }) => [[...rows.slice(0, 1), ...rows], changesAfter(tick)]],
    ])("%s", (_, plant) => {
      const [rows, events] = plant(inTheMiddle());
      expect(handOffProblems(rows, events, table)).not.toEqual([]);
    });
  });
});
