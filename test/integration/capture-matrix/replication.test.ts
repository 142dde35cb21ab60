import { once } from "node:events";
import pg from "pg";
import { from as copyFrom } from "pg-copy-streams";
import { describe, expect, it } from "vitest";
import { createCluster, debian15Available, type TestCluster } from "../../support/cluster.ts";
import { WatchedDatabase } from "../capture/watched-database.ts";
import { mirror } from "./mirror.ts";

const versions = (["embedded", "debian-15"] as const).filter((name) => name === "embedded" || debian15Available());

/** A publisher's database and a subscriber's, in one cluster: the slot is made first, for CREATE SUBSCRIPTION would wait for itself. */
async function publisher(cluster: TestCluster): Promise<{ readonly url: string; readonly client: pg.Client }> {
  const url = await cluster.createDatabase("publisher");
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  await client.query("create table t (id int primary key, v text); create publication p for table t");
  await client.query("insert into t values (1, 'before'), (2, 'before')");
  await client.query("select pg_create_logical_replication_slot('s', 'pgoutput')");
  return { url, client };
}

async function until(holds: () => Promise<boolean>): Promise<void> {
  const end = performance.now() + 30_000;
  while (!(await holds())) {
    if (performance.now() > end) throw new Error("the subscriber did not catch up");
    await new Promise((resolve) => setImmediate(resolve));
  }
}

describe.each(versions)("G1 replication on %s", (binaries) => {
  it("a subscriber's table tells of the initial copy and of what is applied", async () => {
    await using cluster = await createCluster({ binaries, settings: { wal_level: "logical" } });
    const { url, client } = await publisher(cluster);
    try {
      await using database = await WatchedDatabase.create(cluster);
      await database.run(
        "create table t (id int primary key, v text)",
        "select millrace.watch('t')",
        `create subscription s connection '${url}' publication p with (create_slot = false, slot_name = 's')`,
      );
      await until(() => database.value<boolean>("(select count(*) from t) = 2"));
      await client.query("insert into t values (3, 'after')");
      await client.query("update t set v = 'changed' where id < 3");
      await client.query("update t set id = 30 where id = 3");
      await client.query("delete from t where id = 1");
      await until(() =>
        database.value<boolean>("(select string_agg(id || v, ' ' order by id) from t) = '2changed 30after'"),
      );
      expect((await mirror(database, { table: "t" })).slice(2)).toEqual([
        ...["INSERT 3", "UPDATE 1", "UPDATE 2", "DELETE 3", "INSERT 30", "DELETE 1"],
      ]);
      await client.query("truncate t");
      await until(() => database.value<boolean>("(select count(*) from t) = 0"));
      expect((await mirror(database, { table: "t" })).at(-1)).toBe("TRUNCATE");
      await database.run(
        "alter subscription s disable",
        "alter subscription s set (slot_name = none)",
        "drop subscription s",
      );
    } finally {
      await client.end();
    }
  });

  it("loaders that set session_replication_role to replica are told of, COPY too", async () => {
    await using cluster = await createCluster({ binaries });
    await using database = await WatchedDatabase.create(cluster);
    await database.run(
      "create table t (id int primary key, v text)",
      "select millrace.watch('t')",
      "set session_replication_role = replica",
      "insert into t values (1, 'a')",
    );
    const stream = database.client.query(copyFrom("copy t from stdin"));
    stream.end("2\tb\n3\tc\n");
    await once(stream, "finish");
    await database.run("delete from t where id = 1", "truncate t", "insert into t values (4, 'd')");
    expect(await mirror(database, { table: "t" })).toEqual(
      "INSERT 1,INSERT 2,INSERT 3,DELETE 1,TRUNCATE,INSERT 4".split(","),
    );
  });
});
