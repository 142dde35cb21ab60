import { describe, expect, it } from "vitest";
import { createPool } from "../../../src/postgres/database.ts";
import { openSnapshot } from "../../../src/postgres/snapshot/snapshot.ts";
import { refusal, servers, WatchedDatabase } from "../capture/watched-database.ts";
import { mirror } from "./mirror.ts";

describe.each(servers)("views, rules and row security on $name", ({ cluster }) => {
  it("writes through views, with CHECK OPTION, INSTEAD OF triggers or rules, are told as the table's", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (id int primary key, v int)",
      "select millrace.watch('t')",
      "create view small as select id as number, v from t where v < 10 with check option",
      "create view shown as select * from t",
      `create function instead() returns trigger language plpgsql as $$ begin
         if tg_op = 'INSERT' then insert into t values (new.id, -new.v); return new; end if;
         delete from t where id = old.id; return old; end $$`,
      "create trigger i instead of insert or delete on shown for each row execute function instead()",
      "create view ruled as select * from t",
      "create rule r as on update to ruled do instead update t set v = new.v + 100 where id = old.id",
      "insert into small values (1, 1), (2, 2)",
      "update small set v = 5 where number = 1",
      "insert into shown values (3, 3)",
      "delete from shown where id = 2",
      "update ruled set v = 7 where id = 3",
    );
    expect(await refusal(database.run("update small set v = 11"))).toMatchObject({ code: "44000" });
    expect(await mirror(database, { table: "t" })).toEqual(
      "INSERT 1,INSERT 2,UPDATE 1,INSERT 3,DELETE 2,UPDATE 3".split(","),
    );
  });

  it("rules on the watched table: what they do is told, what they prevent is not", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    await database.run(
      "create table t (id int primary key, v int)",
      "create table log (id int generated always as identity primary key, t int)",
      "select millrace.watch('t')",
      "select millrace.watch('log')",
      "create rule keep as on delete to t do instead nothing",
      "create rule note as on insert to t do also insert into log (t) values (new.id)",
      "create rule turn as on update to t where new.v < 0 do instead insert into log (t) values (-old.id)",
      "insert into t values (1, 1)",
      "delete from t",
      "update t set v = -5",
      "update t set v = 5",
    );
    expect(await mirror(database, { table: "t" })).toEqual(["INSERT 1", "UPDATE 1"]);
    expect(await mirror(database, { table: "log" })).toEqual(["INSERT 1", "INSERT 2"]);
  });

  it("row security, forced too: a writer who sees few rows tells what it did, and capture sees all", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    const writer = `writer_${await database.value<number>("select pg_backend_pid()")}`;
    await database.run(
      `create role ${writer} login`,
      "create table t (id int primary key, who text, v int)",
      "alter table t enable row level security",
      "alter table t force row level security",
      `create policy mine on t to ${writer} using (who = current_user) with check (v < 10)`,
      `grant select, insert, update, delete on t to ${writer}`,
      "select millrace.watch('t')",
      "insert into t values (1, 'somebody', 1)",
    );
    const session = await database.session(writer);
    await session.query("insert into t values (2, current_user, 2), (3, 'gone from sight', 3)");
    await session.query("update t set v = 5");
    await session.query("delete from t");
    expect(await refusal(session.query("insert into t values (4, current_user, 99)"))).toMatchObject({ code: "42501" });
    expect(await mirror(database, { table: "t" })).toEqual("INSERT 1,INSERT 2,INSERT 3,UPDATE 2,DELETE 2".split(","));
  });

  it("a snapshot by a role from whom a policy hides rows is refused, with what to do, and has all rows then", async () => {
    await using database = await WatchedDatabase.create(await cluster());
    const server = `server_${await database.value<number>("select pg_backend_pid()")}`;
    await database.run(
      `create role ${server} login`,
      `select millrace.allow('${server}', 'server')`,
      "create table t (id int primary key)",
      "alter table t enable row level security",
      `create policy odd on t to ${server} using (id % 2 = 1)`,
      `grant select on t to ${server}`,
      "select millrace.watch('t')",
      "insert into t select n from generate_series(1, 10) n",
    );
    const epoch = await database.value<string>("select id::text from millrace.epoch");
    const pool = createPool({
      url: database.cluster.url(new URL(database.url).pathname.slice(1), server),
      max: 2,
      idleMs: 1,
    });
    const signal = new AbortController().signal;
    const wanted = { wantsSource: () => true };
    try {
      await expect(openSnapshot(pool, epoch, wanted, {}, signal)).rejects.toMatchObject({
        code: "TOPIC_FORBIDDEN",
        action: expect.stringContaining("bypassrls") as string,
      });
      await database.run(`alter role ${server} bypassrls`);
      const snapshot = await openSnapshot(pool, epoch, wanted, {}, signal);
      let rows = 0;
      for await (const { events } of snapshot.rows()) rows += events.length;
      await snapshot.close();
      expect(rows).toBe(10);
    } finally {
      await pool.end();
    }
  });
});
