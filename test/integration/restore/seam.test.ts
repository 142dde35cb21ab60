import type pg from "pg";
import { describe, expect, test } from "vitest";
import { migrate } from "../../../src/postgres/migrate.ts";
import { createCluster, debian15Available, type TestCluster } from "../../support/cluster.ts";
import { query } from "../../support/restores.ts";
import { tick } from "../ordering/stage.ts";
import { dumpOf, empty, restoreInto } from "./dumps.ts";
import { change, epochOf, judge, type Reading, readFeed, Sessions, spend } from "./history.ts";

interface Restore {
  readonly name: string;
  readonly target: "debian-15" | "embedded" | "another database" | "its own database";
  readonly options: readonly string[];
  /** Transaction ids that are used up before the history, so that they are ahead of a new cluster's. */
  readonly ahead: number;
  /** Transaction ids that are used up after the restore, to come past the old ones. */
  readonly driven: number;
}

const restores: readonly Restore[] = [
  { name: "into a new cluster", target: "debian-15", options: [], ahead: 20_000, driven: 0 },
  { name: "into a new cluster of 18", target: "embedded", options: [], ahead: 20_000, driven: 0 },
  { name: "by INSERTs into a new cluster", target: "debian-15", options: ["--inserts"], ahead: 20_000, driven: 0 },
  { name: "with xids driven past the old ones", target: "debian-15", options: [], ahead: 20_000, driven: 25_000 },
  { name: "with xids among the old ones", target: "debian-15", options: ["--inserts"], ahead: 0, driven: 0 },
  { name: "into another database of its cluster", target: "another database", options: [], ahead: 0, driven: 0 },
  { name: "into its own database", target: "its own database", options: ["--inserts"], ahead: 0, driven: 0 },
];

/** A database with settled events, and with some that no tick has settled: of every kind that there can be in a dump. */
async function withTail(url: string, sessions: Sessions): Promise<Reading> {
  const one = await sessions.to(url);
  const late = await sessions.to(url);
  const open = await sessions.to(url);
  await query(url, "create table orders (id int primary key, n int)");
  await query(url, "create table parts (id int, n int, primary key (id)) partition by range (id)");
  await query(url, "create table parts_1 partition of parts for values from (1) to (1000)");
  await query(url, "select millrace.watch('orders')");
  await query(url, "select millrace.watch('parts')");
  await change(one, "a", 1);
  await one.query("insert into orders values (1, 1)");
  await late.query("begin");
  await change(late, "late", 1);
  await change(late, "late", 2);
  await change(one, "b", 1);
  await tick(one);
  await change(one, "a", 2);
  await tick(one);
  // Beyond the last tick: one that committed late with a seq below settled ones, one after it on the same key.
  await late.query("commit");
  await change(one, "late", 3);
  await one.query("update orders set n = 2");
  await one.query("insert into parts values (1, 1)");
  // In no dump: not committed.
  await open.query("begin");
  await change(open, "never", 1);
  await change(one, "a", 3);
  return readTicked(one);
}

/** What the ticks so far have settled, by SQL alone: reading through a store would settle the rest. */
async function readTicked(session: pg.Client): Promise<Reading> {
  const { rows } = await session.query<{ version: string; key: string }>(
    `select row_number() over () as version, t.key
     from millrace.tail((select id from millrace.epoch), 0, 1000, 1000000) t`,
  );
  return { epoch: "", head: rows.length, texts: rows.map(({ key }) => key), events: [] };
}

async function targetOf(restore: Restore, source: TestCluster, url: string, made: TestCluster[]): Promise<string> {
  if (restore.target === "another database") return await source.createDatabase();
  if (restore.target === "its own database") {
    await empty(url);
    return url;
  }
  const cluster = await createCluster({ binaries: restore.target });
  made.push(cluster);
  // Roles are no part of a database's dump.
  await query(cluster.url(), "create role millrace_owner");
  return await cluster.createDatabase();
}

describe.runIf(debian15Available())("a dump that is restored", () => {
  test.each(restores)("G1 G2 G3 G4 G6 $name loses, repeats and changes nothing", async (restore) => {
    await using source = await createCluster({ binaries: "debian-15" });
    await using sessions = new Sessions();
    const made: TestCluster[] = [];
    try {
      await spend(source.url(), restore.ahead);
      const origin = await source.createDatabase();
      await migrate(origin);
      const ticked = await withTail(origin, sessions);
      const script = await dumpOf(origin, ...restore.options);
      await sessions.close();
      // The original goes on; its readers see what the copy never will.
      const before = await readFeed(origin);

      const url = await targetOf(restore, source, origin, made);
      await restoreInto(url, script);
      await spend(url, restore.driven);
      const writer = await sessions.to(url);
      await change(writer, "late", 4);
      await writer.query("insert into orders values (2, 1)");
      await writer.query("update parts set n = 2");
      await writer.query("update orders set n = 3 where id = 1");

      const now = await readFeed(url);
      await judge(url, now, before, ticked.head);
      expect(now.events.length).toBe(ticked.head + 6 + 4);
      expect(await epochOf(url)).toMatchObject({ reason: "restored", same: false, unsettled: 10, epochs: 2 });
      await change(writer, "late", 5);
      await writer.query("update orders set n = n + 10");
      await writer.query("truncate parts");
      const after = await readFeed(url);
      await judge(url, after, now, now.head);
      expect(after.events.slice(now.head).map(({ topic, operation }) => `${operation} ${topic}`)).toEqual([
        "MESSAGE t",
        "UPDATE orders",
        "UPDATE orders",
        "TRUNCATE parts",
      ]);
      expect(after.epoch).toBe(now.epoch);
    } finally {
      for (const cluster of made) await cluster[Symbol.asyncDispose]();
    }
  });
});
