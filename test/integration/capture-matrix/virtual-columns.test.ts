import { expect, it } from "vitest";
import { createPool } from "../../../src/postgres/database.ts";
import { announceSchemaChanges } from "../../../src/postgres/schema-change/schema-watch.ts";
import { listSources } from "../../../src/postgres/sources.ts";
import { servers, WatchedDatabase } from "../capture/watched-database.ts";
import { mirror, toldBy } from "./mirror.ts";

async function look(database: WatchedDatabase): Promise<void> {
  const pool = createPool({ url: database.url, max: 1, idleMs: 1000 });
  await announceSchemaChanges(pool, new AbortController().signal);
  await pool.end();
}

it("virtual generated columns are in no image, also when they are added, renamed or dropped while watched", async () => {
  const [embedded] = servers;
  if (embedded === undefined) throw new Error("no server");
  await using database = await WatchedDatabase.create(await embedded.cluster());
  await database.run(
    "create table t (id int primary key, a int, secret text, doubled int generated always as (a * 2) virtual)",
    "select millrace.watch('t', exclude => '{secret}')",
    "insert into t values (1, 1)",
    "alter table t add column tripled int generated always as (a * 3) virtual",
    "insert into t values (2, 2)",
  );
  await look(database);
  await database.run("update t set a = 5 where id = 1");
  await database.run("alter table t drop column doubled", "alter table t rename column tripled to thrice");
  await look(database);
  await database.run("update t set a = 6", "delete from t where id = 2");
  expect(await mirror(database, { table: "t", columns: "id, a" })).toEqual(
    "INSERT 1,INSERT 2,UPDATE 1,UPDATE 2,UPDATE 1,DELETE 2".split(","),
  );
  expect((await toldBy(database)).map(({ headers }) => headers)).toEqual(Array(6).fill(undefined));
  expect(await listSources(database.client)).toMatchObject([{ state: "OK", excludedColumns: ["secret", "thrice"] }]);
});

it("a virtual column that is dropped before a server has looked hides the others until then, and says so", async () => {
  const [embedded] = servers;
  if (embedded === undefined) throw new Error("no server");
  await using database = await WatchedDatabase.create(await embedded.cluster());
  await database.run(
    "create table t (id int primary key, a int, doubled int generated always as (a * 2) virtual)",
    "select millrace.watch('t')",
    "alter table t drop column doubled",
    "insert into t values (1, 1)",
  );
  expect((await listSources(database.client))[0]?.state).toBe("DEGRADED");
  await look(database);
  await database.run("update t set a = 2");
  const [insert, update] = await toldBy(database);
  expect(insert).toMatchObject({ after: '{"id":1}', headers: expect.stringContaining("millrace-drift") as string });
  expect(update).toMatchObject({ after: '{"id":1,"a":2}', headers: undefined });
  expect((await listSources(database.client))[0]?.state).toBe("OK");
});
