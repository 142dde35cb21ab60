import pg from "pg";
import { afterEach, describe, expect, it } from "vitest";
import { createPoller, type PollerOptions } from "../../../src/postgres/poll/poller.ts";
import { listSources, pollTable, unwatchTable, watchTable } from "../../../src/postgres/sources.ts";
import { until } from "../../support/deadline.ts";
import { startServerProcess } from "../../support/server-process.ts";
import { outline, servers, WatchedDatabase } from "../capture/watched-database.ts";
import { forever } from "../snapshot/feed-database.ts";

const table = (name: string) =>
  `create table ${name} (id int primary key, v text, updated_at timestamptz not null default now())`;

const running: AsyncDisposableStack[] = [];
afterEach(async () => {
  for (const stack of running.splice(0)) await stack.disposeAsync();
});

async function poller(database: WatchedDatabase, options: Partial<PollerOptions> = {}): Promise<void> {
  const epoch = await database.value<string>("select millrace.assert_epoch()");
  const service = createPoller({ url: database.url, epoch, ...options });
  const stack = new AsyncDisposableStack();
  stack.defer(() => service.stop());
  running.push(stack);
  await service.start(forever);
}

async function untilTold(database: WatchedDatabase, keys: number): Promise<void> {
  await until(
    `${keys} keys were told`,
    async () => (await database.value<number>("select count(distinct key)::int from millrace.outbox")) >= keys,
  );
}

describe.each(servers)("the poller on $name", ({ cluster }) => {
  it("works off 100,000 rows in short transactions, two servers at it, each row once", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      table("t"),
      "create index on t (updated_at)",
      "select millrace.poll('t', 'updated_at')",
      "insert into t select g, 'x', now() - g % 3 * interval '1 s' from generate_series(1, 100000) g",
    );
    const largest = new Map<string, number>();
    for (const name of ["one", "two"]) {
      await poller(database, {
        maxRows: 5000,
        onTold: (count) => largest.set(name, Math.max(count, largest.get(name) ?? 0)),
      });
    }
    await until(
      "a look came to the end",
      async () =>
        await database.value<boolean>(
          "select horizon_at > (select min(o.occurred_at) from millrace.outbox o) from millrace.poll",
        ),
    );
    expect(await database.value("select count(*)::int from millrace.outbox")).toBe(100_000);
    expect(await database.value("select count(distinct key)::int from millrace.outbox")).toBe(100_000);
    // On a slow machine they grow, ten times at most.
    expect(Math.max(...largest.values())).toBeLessThanOrEqual(50_000);
    expect(await database.value("select count(distinct xid)::int from millrace.outbox")).toBeGreaterThan(3);
  }, 60_000);

  it("goes on when a source fails, says why, tries again, and tells what was missed", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(table("good"), table("bad"));
    const warnings: string[] = [];
    await pollTable(
      database.client,
      { table: "bad", column: "updated_at", everyMs: 100 },
      { onWarning: (text) => warnings.push(text) },
    );
    await pollTable(database.client, { table: "good", column: "updated_at", everyMs: 100 });
    expect(warnings).toEqual([expect.stringContaining("each look reads the whole table")]);
    await database.run("alter table bad rename column updated_at to touched_at", "insert into bad values (1)");
    const reports: string[] = [];
    await poller(database, { report: (message) => reports.push(message) });
    await database.run("insert into good values (1)");
    await untilTold(database, 1);
    const problems = async () => (await listSources(database.client)).flatMap((source) => source.problems);
    await until("the failure shows", async () => (await problems()).length > 0);
    expect(await problems()).toMatchObject([
      { kind: "POLL_FAILING", message: expect.stringContaining("updated_at") as string },
    ]);
    expect((await listSources(database.client)).map(({ watchedAs, state }) => `${watchedAs} ${state}`)).toEqual([
      "public.bad OFF",
      "public.good OK",
    ]);
    await database.run("insert into good values (2)");
    await untilTold(database, 2);
    expect(reports.length).toBe(1);
    await database.run("alter table bad rename column touched_at to updated_at");
    await until("it is mended", async () => outline(await database.written()).includes("U bad 1"));
    expect(await problems()).toEqual([]);
  });

  it("says when nobody polls", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(table("t"));
    await pollTable(database.client, { table: "t", column: "updated_at" });
    expect((await listSources(database.client))[0]?.problems).toEqual([]);
    await database.run("update millrace.poll set polled_at = clock_timestamp() - interval '10 minutes'");
    expect((await listSources(database.client))[0]?.problems).toMatchObject([{ kind: "POLL_BEHIND" }]);
  });

  it("ends with unwatch, and leaves the table to triggers", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(table("t"));
    await pollTable(database.client, { table: "t", column: "updated_at" });
    await unwatchTable(database.client, "t");
    expect(await listSources(database.client)).toEqual([]);
    expect(await database.value("select count(*)::int from millrace.poll_mark")).toBe(0);
    await watchTable(database.client, { table: "t" });
    expect(await listSources(database.client)).toMatchObject([{ capture: "trigger", state: "OK", problems: [] }]);
    await expect(pollTable(database.client, { table: "t", column: "updated_at" })).rejects.toMatchObject({
      code: "INVALID_REQUEST",
    });
    await unwatchTable(database.client, "t");
    await pollTable(database.client, { table: "t", column: "updated_at" });
    await watchTable(database.client, { table: "t" });
    expect(await listSources(database.client)).toMatchObject([
      { capture: "trigger", polling: undefined, problems: [] },
    ]);
    await unwatchTable(database.client, "t");
    await pollTable(database.client, { table: "t", column: "updated_at" });
    await database.run("drop table t");
    await unwatchTable(database.client, "public.t");
    expect(await listSources(database.client)).toEqual([]);
  });

  it("G1 tells each change once when servers are killed in the middle of a look", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      table("t"),
      "create index on t (updated_at)",
      "select millrace.poll('t', 'updated_at', every => '100 ms')",
      "insert into t select g from generate_series(1, 40000) g",
    );
    const told = () => database.value<number>("select count(*)::int from millrace.outbox");
    for (let kill = 0; kill < 2; kill += 1) {
      const before = await told();
      await using server = await startServerProcess({ databaseUrl: database.url });
      await until("it has begun", async () => (await told()) > before);
      await server.kill9();
    }
    await using last = await startServerProcess({ databaseUrl: database.url });
    await untilTold(database, 40_000);
    expect(await told()).toBe(40_000);
    await last.terminate();
  }, 60_000);

  it("is not stopped by a server that is frozen", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(table("t"), "select millrace.poll('t', 'updated_at', every => '100 ms')");
    await using frozen = await startServerProcess({ databaseUrl: database.url });
    await database.run("insert into t values (1)");
    await untilTold(database, 1);
    frozen.freeze();
    await using other = await startServerProcess({ databaseUrl: database.url });
    await database.run("insert into t values (2)");
    await untilTold(database, 2);
    frozen.thaw();
    await other.terminate();
  }, 60_000);
});

it("is pinned against functions and operators that others have planted", async () => {
  const [server] = servers;
  if (server === undefined) throw new Error("no server");
  await using database = await WatchedDatabase.create(await server.cluster());
  await database.run(
    `create function public.times(double precision, integer) returns double precision
       language plpgsql as 'begin raise exception $$planted$$; end'`,
    "create operator public.* (leftarg = double precision, rightarg = integer, function = public.times)",
    table("t"),
    "select millrace.poll('t', 'updated_at', every => '100 ms')",
    "insert into t values (1)",
  );
  await poller(database);
  await untilTold(database, 1);
  const client = new pg.Client({ connectionString: database.url });
  await client.connect();
  expect((await listSources(client)).flatMap(({ problems }) => problems)).toEqual([]);
  await client.end();
});
