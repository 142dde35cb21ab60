import { expect, it } from "vitest";
import type { Event } from "../../../src/core/event.ts";
import { createPoller } from "../../../src/postgres/poll/poller.ts";
import { until } from "../../support/deadline.ts";
import { createFeedDatabase, type FeedDatabase, forever, readAll } from "../snapshot/feed-database.ts";

/** Rows of a snapshot, and then whatever was told after its tick: each event is the row as it is, or its end. */
async function replayed(
  database: FeedDatabase,
  tick: number,
  rows: readonly Event[],
): Promise<Record<string, unknown>> {
  const state: Record<string, unknown> = {};
  for (const { key = "", after } of rows) {
    expect(state[key]).toBeUndefined();
    state[key] = JSON.parse(Buffer.from(after ?? []).toString());
  }
  const later = await database.sql<{ key: string; after: unknown }>(
    `select o.key, o.after from millrace.outbox o
     where not pg_visible_in_snapshot(o.xid, (select t.snapshot from millrace.tick t where t.tick = $1)) order by o.seq`,
    [tick],
  );
  for (const { key, after } of later) {
    if (after === null) delete state[key];
    else state[key] = after;
  }
  return state;
}

async function write(database: FeedDatabase, writer: number, more: () => boolean): Promise<void> {
  const session = await database.session();
  for (let turn = 0; more(); turn += 1) {
    const some = (turn * 7 + writer * 13) % 50;
    await session.query("begin");
    await session.query(
      `insert into account values ($1, $2, now()) on conflict (id) do update
       set balance = excluded.balance, updated_at = clock_timestamp(), gone = false`,
      [some, turn],
    );
    if (turn % 3 === 0) {
      await session.query("savepoint s");
      await session.query("update account set gone = true, updated_at = now() where id = $1", [some]);
      if (turn % 2 === 0) await session.query("rollback to s");
    }
    await session.query(turn % 11 === 0 ? "rollback" : "commit");
  }
}

it("G7 a snapshot and what polling tells after it are the table in the end, softly deleted rows left out", async () => {
  await using database = await createFeedDatabase();
  await database.sql(
    "create table account (id int primary key, balance int, updated_at timestamptz not null default now(), gone boolean)",
  );
  await database.sql("create index on account (updated_at)");
  await database.sql("insert into account select i, 0 from generate_series(0, 49) i");
  await database.sql("select millrace.poll('account', 'updated_at', deleted => 'gone', every => '100 ms')");
  let told = 0;
  const poller = createPoller({
    url: database.url,
    epoch: database.epoch,
    maxRows: 7,
    onTold: (count) => {
      told += count;
    },
  });
  await poller.start(forever);
  let writing = true;
  const writers = [0, 1, 2, 3].map((writer) => write(database, writer, () => writing));
  const taken: { readonly tick: number; readonly rows: readonly Event[] }[] = [];
  for (let round = 0; round < 12; round += 1) {
    const before = told;
    const reader = await database.snapshot();
    taken.push({ tick: reader.tick.tick, rows: await readAll(reader) });
    await until("more was told", async () => told > before);
  }
  writing = false;
  await Promise.all(writers);
  // The last change is told by a look that began after it.
  const [end] = await database.sql<{ at: Date }>("select clock_timestamp() as at");
  const complete = async () =>
    (await database.sql("select from millrace.poll where horizon_at > $1", [end?.at])).length > 0;
  await until("all has been looked at", complete);
  await poller.stop();
  await database.tick();
  const table = await database.sql<{ id: number; row: unknown }>(
    "select id, row_to_json(a) as row from account a where gone is not true",
  );
  const expected = Object.fromEntries(table.map(({ id, row }) => [String(id), row]));
  const utc = (state: Record<string, unknown>) =>
    JSON.stringify(state, (name, value) => (name === "updated_at" ? Date.parse(String(value)) : value));
  for (const { tick, rows } of taken) {
    const state = await replayed(database, tick, rows);
    expect(utc(state)).toBe(utc(expected));
  }
  expect(told).toBeGreaterThan(100);
});
