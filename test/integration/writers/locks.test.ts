import pg from "pg";
import { describe, expect, it } from "vitest";
import { createPool } from "../../../src/postgres/database.ts";
import { migrate } from "../../../src/postgres/migrate.ts";
import { keepOutbox } from "../../../src/postgres/retention/upkeep.ts";
import { listSources, unwatchTable, watchTable } from "../../../src/postgres/sources.ts";
import { servers, WatchedDatabase } from "../capture/watched-database.ts";
import { createOldSchema } from "./old-schema.ts";
import { boundMs, startWriters } from "./pace.ts";

/** A transaction that stays open for as long as the test lets it; and its pid. */
async function openTransaction(database: WatchedDatabase, statement: string): Promise<readonly [pg.Client, string]> {
  const session = await database.session();
  await session.query("begin");
  await session.query(statement);
  const { rows } = await session.query<{ pid: number }>("select pg_backend_pid() as pid");
  return [session, `pid ${rows[0]?.pid}`];
}

const table = "create table t (id bigserial primary key, v text)";
const write = "insert into public.t (v) values ('x')";

describe.each(servers)("writers on $name", ({ cluster }) => {
  it("G11 wait for no watch that waits for an open transaction, which it names", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(table);
    const [open, pid] = await openTransaction(database, write);
    await using writers = await startWriters(database.url, write);
    const said: string[] = [];
    await expect(
      watchTable(database.client, { table: "t" }, { lockAttempts: 4, onWait: (text) => said.push(text) }),
    ).rejects.toMatchObject({ code: "DATABASE_UNAVAILABLE", message: expect.stringContaining(pid) as string });
    expect(said).toHaveLength(3);
    expect(said[0]).toContain(pid);
    await open.query("commit");
    await watchTable(database.client, { table: "t" }, { lockAttempts: 20 });
    const { longestMs, p99Ms, transactions } = await writers.end();
    expect(transactions).toBeGreaterThan(0);
    expect(p99Ms).toBeLessThan(boundMs);
    expect(longestMs).toBeLessThan(boundMs);
  });

  it("G11 wait for no unwatch that waits for one that only reads", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(table, "select millrace.watch('t')");
    const [open, pid] = await openTransaction(database, "select count(*) from public.t");
    await using writers = await startWriters(database.url, write);
    await expect(unwatchTable(database.client, "t", { lockAttempts: 4 })).rejects.toMatchObject({
      message: expect.stringContaining(pid) as string,
    });
    await open.query("commit");
    await unwatchTable(database.client, "t", { lockAttempts: 20 });
    expect((await writers.end()).longestMs).toBeLessThan(boundMs);
    expect(await listSources(database.client)).toEqual([]);
  });

  it("G11 wait for no seam that waits for one that has written events", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    const [open, pid] = await openTransaction(database, "select millrace.emit('held')");
    // As after the restore of a dump.
    await database.run("update millrace.epoch set outbox_oid = 1");
    await using writers = await startWriters(database.url, "select millrace.emit('notes')");
    const begin = "begin isolation level read committed; select millrace.begin_epoch(); commit";
    for (let attempt = 0; attempt < 4; attempt += 1) {
      await expect(database.client.query(begin)).rejects.toThrow(pid);
      await database.client.query("rollback");
    }
    await open.query("commit");
    await expect
      .poll(
        () =>
          database.client.query(begin).then(
            () => true,
            () => database.client.query("rollback").then(() => false),
          ),
        { timeout: 20_000 },
      )
      .toBe(true);
    expect((await writers.end()).longestMs).toBeLessThan(boundMs);
    expect(await database.value("select count(*)::int from millrace.epoch")).toBe(2);
  });

  it("G11 wait for no work on partitions that waits for one that has written events", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    const [open, pid] = await openTransaction(database, "select millrace.emit('held')");
    await using writers = await startWriters(database.url, "select millrace.emit('notes')");
    // Far beyond the last partition: what comes now is in the default one, which has to be emptied.
    await database.run("select setval('millrace.outbox_seq', 5000000000)");
    const pool = createPool({ url: database.url, max: 1, idleMs: 1000 });
    const never = new AbortController().signal;
    for (let round = 0; round < 5; round += 1) {
      expect((await keepOutbox(pool, never)).waitsFor).toContain(pid);
    }
    await open.query("commit");
    await expect.poll(async () => (await keepOutbox(pool, never)).waitsFor, { timeout: 20_000 }).toBe(undefined);
    await pool.end();
    expect((await writers.end()).longestMs).toBeLessThan(boundMs);
  });

  it("G11 wait for no migration that waits for one that has written events", async () => {
    const server = await cluster();
    const url = await server.createDatabase();
    await createOldSchema(url, 7);
    const holder = new pg.Client({ connectionString: url });
    await holder.connect();
    await holder.query(table);
    await holder.query("select millrace.watch('t')");
    await holder.query("begin");
    const { rows } = await holder.query<{ pid: number }>("select pg_backend_pid() as pid, millrace.emit('held')");
    // In both orders, so that a migration which held one lock and waited for another would have them killed by a deadlock.
    await using writers = await startWriters(url, `${write}; select millrace.emit('notes'); ${write}`);
    const said: string[] = [];
    await expect(migrate(url, { lockAttempts: 4, onWait: (text) => said.push(text) })).rejects.toMatchObject({
      code: "DATABASE_UNAVAILABLE",
      message: expect.stringContaining(`pid ${rows[0]?.pid}`) as string,
    });
    expect(said).toHaveLength(3);
    await holder.query("commit");
    await migrate(url, { lockAttempts: 20 });
    const { longestMs } = await writers.end();
    await holder.end();
    expect(longestMs).toBeLessThan(boundMs);
  });
});
