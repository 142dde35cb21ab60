import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { createFeedDatabase } from "./feed-database.ts";

const rows = 1_000_000;
const MiB = 2 ** 20;

interface Report {
  readonly rows: number;
  readonly snapshots: number;
  readonly disorder: number;
  readonly begun: Memory;
  readonly most: Memory;
}

interface Memory {
  readonly rss: number;
  readonly heap: number;
  readonly buffers: number;
}

it("G7 G11 a million rows to a client that hardly reads: memory stays flat, and no transaction waits for it", async () => {
  await using database = await createFeedDatabase();
  await database.sql(
    `create table things (id int primary key, name text not null, made timestamptz not null, padding text not null)`,
  );
  await database.sql(
    `insert into things select i, 'thing ' || i, now(), repeat('x', 150) from generate_series(1, ${rows}) i`,
  );
  await database.sql("vacuum analyze things");
  await database.sql("select millrace.watch('things')");
  const directory = await mkdtemp(join(tmpdir(), "millrace-slow-"));
  const script = fileURLToPath(new URL("./slow-reader.ts", import.meta.url));
  const child = spawn(process.execPath, ["--expose-gc", script, database.url, database.epoch, directory], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  let over = false;
  const ages = (async () => {
    const seen: number[] = [];
    while (!over) {
      const [row] = await database.sql<{ age: number | null }>(
        `select max(extract(epoch from clock_timestamp() - xact_start))::float8 * 1000 as age from pg_stat_activity
         where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'`,
      );
      if (row?.age !== null && row?.age !== undefined) seen.push(row.age);
    }
    return seen;
  })();
  try {
    const [written] = await Promise.all([text(child.stdout), once(child, "exit")]);
    over = true;

    const report = JSON.parse(written) as Report;
    expect(report).toMatchObject({ rows, disorder: 0 });
    // 250 MB of rows, 36 MiB at a time.
    expect(report.snapshots).toBeGreaterThan(5);
    expect(report.most.buffers).toBeLessThan(64 * MiB);
    expect(report.most.heap - report.begun.heap).toBeLessThan(16 * MiB);
    expect(report.most.rss - report.begun.rss).toBeLessThan(160 * MiB);
    // A copy ends after 5 s, here or, a second later, on the server.
    expect(Math.max(...(await ages))).toBeLessThan(10_000);
  } finally {
    over = true;
    child.kill("SIGKILL");
    await ages;
    await rm(directory, { recursive: true });
  }
});
