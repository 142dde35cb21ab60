import { expect, it } from "vitest";
import { createFeed } from "../../../src/core/feed/feed-service.ts";
import type { Frame } from "../../../src/core/frame.ts";
import { createPostgresStore } from "../../../src/postgres/store.ts";
import { objections } from "../../contract/judge.ts";
import { Reader, select } from "../../contract/reader.ts";
import { until } from "../../support/deadline.ts";
import { createFeedDatabase, type FeedDatabase, forever } from "./feed-database.ts";
import { sequenceProblems } from "./hand-off.ts";

const tables = ["bulky", "member"];

async function setUp(database: FeedDatabase): Promise<void> {
  await database.sql(`
    create table bulky (id int primary key, n int not null, filler text not null);
    insert into bulky select i, 0, repeat(md5(i::text), 60) from generate_series(1, 3000) i;
    create table member (region text not null, id int not null, n int not null, filler text not null, primary key (region, id));
    insert into member select (array['eu', 'us', 'as'])[i % 3 + 1], i, 0, repeat(md5(i::text), 60) from generate_series(1, 3000) i;
    create table heap (id int not null); insert into heap select generate_series(1, 100);
    select millrace.watch('bulky'), millrace.watch('member'), millrace.watch('heap', key_columns => '{id}')`);
}

async function write(database: FeedDatabase, writer: number, more: () => boolean): Promise<void> {
  const session = await database.session();
  for (let turn = writer; more(); turn += 4) {
    const id = ((turn * 37) % 3000) + 1;
    const statement = [
      `update bulky set n = n + 1 where id = ${id}`,
      `update bulky set id = id + 10000, n = n + 1 where id = ${id} and not exists (select from bulky where id = ${id + 10000})`,
      `update member set n = n + 1 where id = ${id}`,
      `update member set region = '${["eu", "us", "zz"][turn % 3]}' where id = ${id}`,
      `delete from bulky where id = ${id + 10000}`,
    ];
    await session.query(statement[turn % statement.length] ?? "");
  }
}

async function isOver(database: FeedDatabase): Promise<boolean> {
  const open = await database.sql(
    `select from pg_locks l join pg_stat_activity a using (pid)
     where l.relation = 'bulky'::regclass and l.mode = 'AccessShareLock' and a.application_name like 'millrace snapshot %'`,
  );
  return open.length === 0;
}

const isStarted = (frame: Frame) => frame.kind === "snapshot_started";
const isResumed = (frame: Frame) => frame.kind === "snapshot_started" && frame.resumed;
const isComplete = (frame: Frame) => frame.kind === "snapshot_complete";

it("G7 a stream's snapshot that may take but little disk goes on by itself, again and again, while writers write", async () => {
  await using database = await createFeedDatabase();
  await setUp(database);
  const store = createPostgresStore({
    url: database.url,
    snapshots: { memoryBytes: 64 * 1024, cutBytes: 256 * 1024 },
  });
  await store.start(forever);
  const feed = createFeed({ store, wakeUp: store.wakeUp });
  await feed.start(forever);
  let writing = true;
  const busy = Array.from({ length: 4 }, (_, writer) => write(database, writer, () => writing));
  try {
    const selectors = [select(["bulky", "member", "heap"])];
    await using reader = new Reader(feed, { start: { kind: "snapshot" }, selectors, maxBatchBytes: 64 * 1024 });
    for (let starts = 1; !reader.frames.some(isComplete); starts += 1) {
      const more = (r: Reader) => r.frames.filter(isStarted).length >= starts || r.frames.some(isComplete);
      await reader.until(more, "another snapshot");
      // Slower than any copy, which is why each of them is cut.
      reader.standStill();
      await until("the copy is over", () => isOver(database));
      reader.goOn();
    }
    writing = false;
    await Promise.all(busy);
    await database.tick();
    const { head } = await store.bounds(forever);
    await reader.passes(head);
    expect(reader.frames.filter(isResumed).length).toBeGreaterThan(2);
    expect(objections(reader.frames)).toEqual([]);
    const wanted = new Map<string, ReadonlyMap<string, string>>();
    for (const table of tables) {
      const key = table === "bulky" ? "id::text" : `'["' || region || '",' || id || ']'`;
      const rows = await database.sql<{ key: string; image: string }>(
        `select ${key} as key, row_to_json(t)::text as image from ${table} t`,
      );
      wanted.set(table, new Map(rows.map((row) => [row.key, row.image])));
    }
    expect(sequenceProblems(reader.events, wanted)).toEqual([]);
    expect(reader.events.filter(({ topic }) => topic === "heap")).toHaveLength(100);
  } finally {
    writing = false;
    await Promise.allSettled(busy);
    await feed.stop();
    await store.stop();
  }
});
