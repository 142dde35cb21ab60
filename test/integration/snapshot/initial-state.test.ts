import pg from "pg";
import { afterAll, beforeAll, expect, it } from "vitest";
import { openSnapshot } from "../../../src/postgres/snapshot/snapshot.ts";
import { createFeedDatabase, type FeedDatabase, forever, readAll } from "./feed-database.ts";
import { createGate } from "./gate.ts";

let database: FeedDatabase;

beforeAll(async () => {
  database = await createFeedDatabase();
  await database.sql(`
    create table first (id int primary key, filler text);
    insert into first select i, repeat(i::text, 90) from generate_series(1, 30000) i;
    create table stated (id int primary key);
    insert into stated select generate_series(1, 10);
    create table side (id int primary key, n int not null);
    insert into side select i, i from generate_series(1, 10) i;
    select millrace.watch('first'), millrace.watch('stated');`);
});

afterAll(() => database[Symbol.asyncDispose]());

const states = [{ table: "public.stated", sql: "select s.id, x.n from public.stated s join public.side x using (id)" }];

it("G7 sees every table of its query as of the snapshot, whatever is written meanwhile", async () => {
  const reader = await database.snapshot({ states });
  await database.sql("update side set n = 0; insert into stated values (11)");
  const rows = (await readAll(reader)).filter(({ topic }) => topic === "stated");
  expect(rows.map(({ key, after }) => [key, Buffer.from(after ?? []).toString()])).toEqual(
    Array.from({ length: 10 }, (_, at) => [String(at + 1), `{"id":${at + 1},"n":${at + 1}}`]),
  );
  await database.sql("update side set n = id");
});

it.each([
  ["rewritten", "alter table side alter column n type bigint"],
  ["truncated", "truncate side"],
  ["put in the place of another", "drop table side; create table side (id int primary key, n int not null)"],
])(
  "G7 fails, and passes nothing off as whole, when a table of its query is %s before it is read",
  async (_how, ddl) => {
    await using gate = await createGate(database.url, 1024 * 1024);
    const pool = new pg.Pool({ connectionString: gate.url });
    const request = { wantsSource: (topic: string) => topic === "first" || topic === "stated" };
    const reader = await openSnapshot(pool, database.epoch, request, { states, cutAfterMs: 30_000 }, forever);
    const reading = expect(readAll(reader)).rejects.toMatchObject({
      code: "DATABASE_UNAVAILABLE",
      message: expect.stringContaining("altered or truncated"),
    });
    await gate.reached;
    await database.sql(ddl);
    gate.open();
    await reading;
    await pool.end();
    await database.sql("insert into side select i, i from generate_series(1, 10) i on conflict do nothing");
    const again = (await readAll(await database.snapshot({ states }))).filter(({ topic }) => topic === "stated");
    expect(again).toHaveLength(10);
  },
);

it("is anew when it is cut, and says so", async () => {
  const reader = await database.snapshot({ states });
  expect(reader.parts).toMatchObject([
    { topic: "first", ordered: true },
    { topic: "stated", ordered: false, estimatedRows: undefined },
  ]);
  await reader.close();
  const plain = await database.snapshot();
  expect(plain.shape).not.toBe(reader.shape);
  await plain.close();
});
