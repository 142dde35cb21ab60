import pg from "pg";
import { afterAll, beforeAll, expect, it } from "vitest";
import { openSnapshot } from "../../../src/postgres/snapshot/snapshot.ts";
import { until } from "../../support/deadline.ts";
import { createFeedDatabase, type FeedDatabase, forever, readAll } from "./feed-database.ts";
import { createGate } from "./gate.ts";

let database: FeedDatabase;

beforeAll(async () => {
  database = await createFeedDatabase();
});

afterAll(() => database[Symbol.asyncDispose]());

async function watched(name: string): Promise<void> {
  await database.sql(`create table ${name} (id int primary key, n int not null)`);
  await database.sql(`insert into ${name} select i, i from generate_series(1, 1000) i`);
  await database.sql(`select millrace.watch('${name}')`);
}

async function somebodyWaitsFor(table: string): Promise<boolean> {
  const [row] = await database.sql<{ waits: boolean }>(
    "select exists (select from pg_locks where relation = to_regclass($1) and not granted) as waits",
    [table],
  );
  return row?.waits ?? false;
}

it("G7 a table that is being rewritten is copied whole, once the rewrite has committed", async () => {
  await watched("rewritten");
  const ddl = await database.session();
  await ddl.query("begin; alter table rewritten alter column n type bigint");
  const opening = database.snapshot();
  await until("the snapshot waits for the table", () => somebodyWaitsFor("rewritten"));
  await ddl.query("commit");
  const rows = await readAll(await opening);
  expect(rows.filter(({ topic }) => topic === "rewritten")).toHaveLength(1000);
});

it("shows why: a snapshot that is older than the rewrite finds the table empty", async () => {
  await watched("emptied");
  const early = await database.session();
  await early.query("begin isolation level repeatable read; select 1");
  await database.sql("alter table emptied alter column n type bigint");
  expect((await early.query("select from emptied")).rowCount).toBe(0);
  await early.query("rollback");
});

it("finds a table that was renamed while the snapshot waited for it", async () => {
  await watched("renamed");
  const ddl = await database.session();
  await ddl.query(
    "begin; alter table renamed rename to called_otherwise; alter table called_otherwise add column more int",
  );
  const opening = database.snapshot();
  await until("the snapshot waits for the table", () => somebodyWaitsFor("renamed"));
  await ddl.query("commit");
  const rows = (await readAll(await opening)).filter(({ topic }) => topic === "renamed");
  expect(rows).toHaveLength(1000);
  expect(Buffer.from(rows[0]?.after ?? []).toString()).toBe('{"id":1,"n":1,"more":null}');
});

it("says who holds the table when it cannot be had, and holds up nobody meanwhile", async () => {
  await watched("locked");
  const ddl = await database.session();
  await ddl.query("begin; lock table locked in access exclusive mode");
  const [me] = (await ddl.query<{ pid: number }>("select pg_backend_pid() as pid")).rows;
  const opening = database.snapshot({ attempts: 1 });
  const outcome = expect(opening).rejects.toMatchObject({
    code: "DATABASE_UNAVAILABLE",
    message: expect.stringContaining(`pid ${me?.pid}`),
  });
  await until("the snapshot waits for the table", () => somebodyWaitsFor("locked"));
  // The tick lock is free all the while: everybody else's feed goes on.
  await database.tick();
  await outcome;
  await ddl.query("rollback");
  expect((await readAll(await database.snapshot())).filter(({ topic }) => topic === "locked")).toHaveLength(1000);
});

it("G7 G11 is cut when somebody waits for the table, so that no writer queues behind him for long", async () => {
  await database.sql(`
    create table wanted_by_ddl (id int primary key, filler text);
    insert into wanted_by_ddl select i, repeat(i::text, 90) from generate_series(1, 60000) i;
    select millrace.watch('wanted_by_ddl')`);
  await using gate = await createGate(database.url, 4 * 1024 * 1024);
  const pool = new pg.Pool({ connectionString: gate.url });
  const request = { wantsSource: (topic: string) => topic === "wanted_by_ddl" };
  // Nothing but the waiting ends this copy in the time that a test has.
  const options = { deadlineMs: 3_600_000, cutAfterMs: 3_600_000 };
  const reader = await openSnapshot(pool, database.epoch, request, options, forever);
  await gate.reached;
  const reading = reader.rows()[Symbol.asyncIterator]();
  const first = await reading.next();
  const ddl = await database.session();
  const writer = await database.session();
  const altered = ddl.query("alter table wanted_by_ddl add more int");
  await until("the table is waited for", () => somebodyWaitsFor("wanted_by_ddl"));
  const written = writer.query("insert into wanted_by_ddl values (0)");
  await Promise.all([altered, written]);
  const rows = [...(first.value?.events ?? [])];
  for (let next = await reading.next(); next.done !== true; next = await reading.next())
    rows.push(...next.value.events);
  await reader.close();
  await pool.end();
  expect(reader.cut).toBe(true);
  expect(rows.map(({ key }) => key)).toEqual(rows.map((_, i) => `${i + 1}`));
  expect(rows.length).toBeLessThan(60_000);
  await database.sql("drop table wanted_by_ddl");
});

it("leaves out a table that is gone, and nothing else", async () => {
  await watched("dropped");
  await database.sql("drop table dropped");
  const reader = await database.snapshot();
  expect(reader.parts.map(({ topic }) => topic)).not.toContain("dropped");
  expect(reader.parts.map(({ topic }) => topic)).toContain("locked");
  expect((await readAll(reader)).length).toBeGreaterThan(0);
});

/** Ends the session that holds the exported snapshot at the moment when another asks for it, as often as `times` says. */
function endTickers(pool: pg.Pool, times: number): void {
  let left = times;
  pool.on("connect", (client) => {
    const query = client.query.bind(client) as (...given: unknown[]) => unknown;
    const afterTheEnd = async (...given: unknown[]) => {
      await database.sql(
        `select pg_terminate_backend(pid, 5000) from pg_locks
         where relation = 'millrace.tick_lock'::regclass and mode = 'ShareRowExclusiveLock'
           and database = (select oid from pg_database where datname = current_database())`,
      );
      return await query(...given);
    };
    const intercepted = (...given: unknown[]) => {
      if (left === 0 || !String(given[0]).startsWith("set transaction snapshot")) return query(...given);
      left -= 1;
      return afterTheEnd(...given);
    };
    Reflect.set(client, "query", intercepted);
  });
}

it("G7 begins anew when the session that holds its snapshot is ended, and says so when that goes on", async () => {
  await watched("ended");
  const pool = database.poolAs("postgres");
  endTickers(pool, 2);
  const request = { wantsSource: (topic: string) => topic === "ended" };
  expect(await readAll(await openSnapshot(pool, database.epoch, request, {}, forever))).toHaveLength(1000);
  const doomed = database.poolAs("postgres");
  endTickers(doomed, Number.POSITIVE_INFINITY);
  await expect(openSnapshot(doomed, database.epoch, request, { attempts: 2 }, forever)).rejects.toMatchObject({
    code: "DATABASE_UNAVAILABLE",
    message: expect.stringContaining("ended") as string,
  });
});
