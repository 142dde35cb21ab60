import { access, readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { ended, isAlive } from "../../../src/embedded/processes.ts";
import { createCluster, debian15Available, freshDatabase, sharedCluster } from "../../support/cluster.ts";
import { startProgram } from "./millrace-process.ts";
import { query, until } from "./scratch.ts";

test.each(debian15Available() ? (["embedded", "debian-15"] as const) : (["embedded"] as const))(
  "a cluster on %s comes back after a crash, on the same port, with what was committed",
  async (binaries) => {
    await using cluster = await createCluster({ binaries, settings: { fsync: "on", work_mem: "5MB" } });
    const url = await cluster.createDatabase("with space");
    await query(url, "create table kept as select 42 as answer");
    const before = cluster.postmasterPid;
    await cluster.kill9();
    expect(await isAlive(before)).toBe(false);
    await cluster.start();
    expect(cluster.postmasterPid).not.toBe(before);
    expect(await query(url, "select answer, current_setting('work_mem') as memory from kept")).toEqual([
      { answer: 42, memory: "5MB" },
    ]);
    await cluster.stop();
    await cluster.start();
    expect(await query(url, "select current_setting('fsync') as fsync")).toEqual([{ fsync: "on" }]);
  },
);

test("roles of a cluster need no password", async () => {
  await using cluster = await createCluster();
  await query(cluster.url(), "create role ada login");
  expect(await query(cluster.url("postgres", "ada"), "select current_user as name")).toEqual([{ name: "ada" }]);
});

test("databases of the shared cluster are apart, and a migrated one has the schema", async () => {
  const [first, second] = [await freshDatabase(), await freshDatabase({ migrated: true })];
  await query(first, "create table only_here ()");
  expect(await query(second, "select to_regclass('only_here') as it")).toEqual([{ it: null }]);
  expect(await query(second, "select to_regclass('millrace.outbox')::text as it")).toEqual([{ it: "millrace.outbox" }]);
  expect(await query((await sharedCluster()).url(), "show max_prepared_transactions")).toEqual([
    { max_prepared_transactions: "64" },
  ]);
});

test("a cluster goes when its process is killed", async () => {
  const program = startProgram(join(import.meta.dirname, "hold-cluster.ts"));
  const { pid, dataDir } = JSON.parse(await program.firstLine);
  onTestFinished(() => program.kill9());
  expect(await readFile(join(dataDir, "PG_VERSION"), "utf8")).toBe("18\n");
  await program.kill9();
  expect(await ended(pid, 20_000)).toBe(true);
  await until(() =>
    access(dirname(dataDir)).then(
      () => false,
      () => true,
    ),
  );
});
