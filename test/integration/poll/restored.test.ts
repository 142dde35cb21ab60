import { execFile } from "node:child_process";
import { promisify } from "node:util";
import pg from "pg";
import { describe, expect, it } from "vitest";
import { debian15Available } from "../../support/cluster.ts";
import { servers, WatchedDatabase } from "../capture/watched-database.ts";
import { look } from "./polled-database.ts";

const debian = servers.filter(({ name }) => name === "debian-15" && debian15Available());
const folder = "/usr/lib/postgresql/15/bin";

describe.each(debian)("a polled table in a dump restored on $name", ({ cluster }) => {
  it("is found by its name, tells what was not told, and goes on", async () => {
    const server = await cluster();
    await using old = await WatchedDatabase.create(server);
    await old.run(
      "create table public.t (id int primary key, updated_at timestamptz not null default now())",
      "create table public.other (id int primary key)",
      "select millrace.watch('public.other')",
      "insert into t values (1, now() - interval '2 days'), (4, now() - interval '1 day')",
      "select millrace.poll('public.t', 'updated_at', overlap => '0')",
      "insert into t values (2)",
    );
    expect(await look(old)).toEqual(["U t 2"]);
    await old.run("insert into t values (3)");
    const dump = await promisify(execFile)(`${folder}/pg_dump`, [old.url], { maxBuffer: 2 ** 26 });
    // Its transaction ids are far behind those of the horizon.
    const url = await server.createDatabase();
    const restoring = promisify(execFile)(`${folder}/psql`, ["--quiet", "--no-psqlrc", "--set=ON_ERROR_STOP=1", url]);
    restoring.child.stdin?.end(dump.stdout);
    await restoring;
    const admin = new pg.Client({ connectionString: url });
    await admin.connect();
    await admin.query("update millrace.poll set horizon = horizon + 1000000000");
    await admin.query("select millrace.begin_epoch()");
    await admin.end();

    await using restored = await WatchedDatabase.open(server, url);
    const told = await look(restored);
    expect(told).toContain("U t 3");
    expect(told).not.toContain("U t 1");
    await restored.run("update t set updated_at = now() where id = 1");
    expect(await look(restored)).toEqual(["U t 1"]);
    expect(await look(restored)).toEqual([]);
  });
});
