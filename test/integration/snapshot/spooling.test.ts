import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import pg from "pg";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { openSnapshot, type SnapshotOptions } from "../../../src/postgres/snapshot/snapshot.ts";
import { until } from "../../support/deadline.ts";
import { createFeedDatabase, type FeedDatabase, forever, readAll } from "./feed-database.ts";
import { createGate, type Gate } from "./gate.ts";

const rows = 60_000;
let database: FeedDatabase;
let directory: string;

beforeAll(async () => {
  database = await createFeedDatabase();
  directory = await mkdtemp(join(tmpdir(), "millrace-spool-"));
  await database.sql("create table wide (id int primary key, filler text not null)");
  await database.sql(`insert into wide select i, repeat(i::text, 90) from generate_series(1, ${rows}) i`);
  await database.sql("create table narrow (id int primary key)");
  await database.sql("insert into narrow select generate_series(1, 3)");
  await database.sql("select millrace.watch('wide'), millrace.watch('narrow')");
});

afterAll(async () => {
  await database[Symbol.asyncDispose]();
  await rm(directory, { recursive: true });
});

async function openTransactions(): Promise<number> {
  const [row] = await database.sql<{ count: number }>(
    `select count(*)::int from pg_stat_activity
     where datname = current_database() and pid <> pg_backend_pid() and xact_start is not null`,
  );
  return row?.count ?? -1;
}

const noTransaction = () => until("no transaction of ours is open", async () => (await openTransactions()) === 0);

describe("spool", () => {
  it("G11 lets the transaction end while the consumer is in the middle of its rows", async () => {
    const reader = await database.snapshot({ memoryBytes: 1024 * 1024, directory });
    const keys: (string | undefined)[] = [];
    const reading = reader.rows()[Symbol.asyncIterator]();
    const first = await reading.next();
    keys.push(...(first.value?.events ?? []).map(({ key }: { key: string | undefined }) => key));
    await noTransaction();
    expect(keys.length).toBeLessThan(rows / 2);
    // Nameless: nothing is left behind, however the process ends.
    expect(await readdir(directory)).toEqual([]);
    for (let next = await reading.next(); next.done !== true; next = await reading.next()) {
      keys.push(...next.value.events.map(({ key }) => key));
    }
    await reader.close();
    expect(keys).toEqual([...Array.from({ length: rows }, (_, i) => `${i + 1}`), "1", "2", "3"]);
  });

  it("comes in batches of bounded size", async () => {
    const reader = await database.snapshot();
    for await (const batch of reader.rows()) {
      expect(batch.events.length).toBeLessThanOrEqual(1000);
      const bytes = batch.events.reduce((sum, { after }) => sum + (after?.length ?? 0), 0);
      expect(bytes).toBeLessThanOrEqual(300 * 1024);
    }
    await reader.close();
  });

  it("G7 is cut at a row when the copy outgrows its disk", async () => {
    const reader = await database.snapshot({ memoryBytes: 1024, totalBytes: 1024 * 1024, directory });
    await noTransaction();
    const read = await readAll(reader);
    expect(reader.cut).toBe(true);
    expect(read.length).toBeLessThan(rows);
    expect(read.map(({ key }) => key)).toEqual(read.map((_, i) => `${i + 1}`));
  });

  it.each([1024, 64 * 1024 * 1024])(
    "G7 rows of many chunks come whole, with %d bytes of memory",
    async (memoryBytes) => {
      await database.sql(`create table large (id int primary key, filler text);
      insert into large select i, repeat(i::text, 3000000) from generate_series(1, 3) i; select millrace.watch('large')`);
      const wantsSource = (topic: string) => topic === "large";
      const options = { memoryBytes, directory };
      const reader = await openSnapshot(database.pool, database.epoch, { wantsSource }, options, forever);
      const read = await readAll(reader);
      const whole = (id: number) => `{"id":${id},"filler":"${`${id}`.repeat(3_000_000)}"}`;
      expect(read.map(({ after }, i) => Buffer.from(after ?? []).toString() === whole(i + 1))).toEqual([
        true,
        true,
        true,
      ]);
      await database.sql("select millrace.unwatch('large')");
      await database.sql("drop table large");
    },
  );

  it("says so when the copy of a table without an order outgrows its disk", async () => {
    await database.sql(`create table heap (id int not null, filler text not null);
      insert into heap select * from wide; select millrace.watch('heap', key_columns => '{id}')`);
    const options = { memoryBytes: 1024, totalBytes: 1024 * 1024, directory };
    const wantsSource = (topic: string) => topic === "heap";
    const reader = await openSnapshot(database.pool, database.epoch, { wantsSource }, options, forever);
    await noTransaction();
    await expect(readAll(reader)).rejects.toMatchObject({ code: "LIMIT_EXCEEDED" });
    expect(reader.cut).toBe(false);
    await database.sql("select millrace.unwatch('heap')");
    await database.sql("drop table heap");
  });
});

it("G11 lets the transaction end although the process froze while it was being written to", async () => {
  const script = fileURLToPath(new URL("./frozen-process.ts", import.meta.url));
  const child = spawn(process.execPath, [script, database.url, database.epoch, "1000"], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  try {
    await once(child.stdout, "data");
    await until("the server is stuck in a write", async () => {
      const stuck = await database.sql("select from pg_stat_activity where wait_event = 'ClientWrite'");
      return stuck.length > 0;
    });
    await noTransaction();
  } finally {
    child.kill("SIGKILL");
    await once(child, "exit");
  }
});

describe("a copy that is not over", () => {
  let gate: Gate;
  let pool: pg.Pool;

  beforeEach(async () => {
    gate = await createGate(database.url, 4 * 1024 * 1024);
    pool = new pg.Pool({ connectionString: gate.url });
    pool.on("error", () => undefined);
  });

  afterEach(async () => {
    await pool.end();
    await gate[Symbol.asyncDispose]();
  });

  const wide = (options: SnapshotOptions = {}) =>
    openSnapshot(pool, database.epoch, { wantsSource: (topic) => topic === "wide" }, options, forever);

  it("gives its rows as they come", async () => {
    const reader = await wide();
    await gate.reached;
    let read = 0;
    for await (const batch of reader.rows()) {
      read += batch.events.length;
      if (read > rows / 20) break;
    }
    expect(read).toBeGreaterThan(rows / 20);
    expect(await openTransactions()).toBe(1);
    await reader.close();
    await noTransaction();
  });

  it("G7 G11 is cut at its deadline, and never taken for the whole", async () => {
    const reader = await wide({ deadlineMs: 500 });
    const read = await readAll(reader);
    expect(reader.cut).toBe(true);
    expect(read.length).toBeLessThan(rows);
    expect(read.map(({ key }) => key)).toEqual(read.map((_, i) => `${i + 1}`));
    await noTransaction();
  });

  it("is an error at its deadline when its rows have no order, or not a single one has come", async () => {
    await database.sql(`create table heap (id int not null, filler text not null); insert into heap select * from wide;
      create table huge (id int primary key, filler text not null); insert into huge values (1, repeat('x', 30000000));
      select millrace.watch('heap', key_columns => '{id}'), millrace.watch('huge')`);
    for (const topic of ["heap", "huge"]) {
      const request = { wantsSource: (source: string) => source === topic };
      const reader = await openSnapshot(pool, database.epoch, request, { deadlineMs: 500 }, forever);
      await expect(readAll(reader)).rejects.toMatchObject({
        code: "LIMIT_EXCEEDED",
        message: expect.stringContaining("500 ms"),
      });
      await noTransaction();
    }
    await database.sql("select millrace.unwatch('heap'), millrace.unwatch('huge')");
    await database.sql("drop table heap, huge");
  });

  it("is not taken for the whole when its session is terminated", async () => {
    const reader = await wide();
    await gate.reached;
    const outcome = expect(readAll(reader)).rejects.toMatchObject({ code: "DATABASE_UNAVAILABLE" });
    await until("the server is stuck in a write", async () => {
      const ended = await database.sql(
        "select pg_terminate_backend(pid) from pg_stat_activity where wait_event = 'ClientWrite' and datname = current_database()",
      );
      return ended.length > 0;
    });
    gate.open();
    await outcome;
    await noTransaction();
  });
});

describe("every way out", () => {
  it("gives connection and place back when closed in the middle", async () => {
    for (let round = 0; round < 12; round += 1) {
      const reader = await database.snapshot({ memoryBytes: 1024, directory });
      await reader.rows()[Symbol.asyncIterator]().next();
      await reader.close();
      await reader.close();
    }
    await noTransaction();
    expect(database.pool.waitingCount).toBe(0);
    expect(database.pool.idleCount).toBe(database.pool.totalCount);
  });

  it("rejects with the signal's reason when it fires in the middle", async () => {
    const abort = new AbortController();
    const reader = await database.snapshot({}, abort.signal);
    const reading = reader.rows()[Symbol.asyncIterator]();
    await reading.next();
    const reason = new Error("enough");
    abort.abort(reason);
    await expect(
      (async () => {
        for (;;) if ((await reading.next()).done === true) return;
      })(),
    ).rejects.toBe(reason);
    await reader.close();
    await noTransaction();
  });

  it("rejects with the signal's reason when it fires while opening", async () => {
    const abort = new AbortController();
    const blocker = await database.session();
    await blocker.query("begin; lock table millrace.tick_lock in share row exclusive mode");
    const opening = database.snapshot({}, abort.signal);
    const outcome = expect(opening).rejects.toThrow("never mind");
    await until("the snapshot waits for the tick lock", async () => {
      const waiting = await database.sql(
        "select from pg_locks where relation = 'millrace.tick_lock'::regclass and not granted",
      );
      return waiting.length > 0;
    });
    abort.abort(new Error("never mind"));
    await outcome;
    await blocker.query("rollback");
    await noTransaction();
  });

  it("bounds how many are open, and what one pool must have", async () => {
    const first = await database.snapshot({ maxOpen: 1 });
    await expect(database.snapshot({ maxOpen: 1 })).rejects.toMatchObject({ code: "LIMIT_EXCEEDED" });
    await first.close();
    await (await database.snapshot({ maxOpen: 1 })).close();
    const tooSmall = database.poolAs("postgres", 1);
    await expect(
      openSnapshot(tooSmall, database.epoch, { wantsSource: () => true }, {}, forever),
    ).rejects.toMatchObject({
      code: "INVALID_REQUEST",
    });
  });

  it("opens many at once on two connections, one after another", async () => {
    const small = database.poolAs("postgres", 2);
    const readers = await Promise.all(
      Array.from({ length: 6 }, () =>
        openSnapshot(small, database.epoch, { wantsSource: () => true }, { deadlineMs: 30_000 }, forever).then(readAll),
      ),
    );
    for (const read of readers) expect(read).toHaveLength(rows + 3);
  });
});
