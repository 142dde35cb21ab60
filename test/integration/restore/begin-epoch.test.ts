import { describe, expect, test } from "vitest";
import { migrate } from "../../../src/postgres/migrate.ts";
import { freshDatabase, sharedCluster } from "../../support/cluster.ts";
import { eventually } from "../../support/deadline.ts";
import { query } from "../../support/restores.ts";
import { refusal } from "../capture/watched-database.ts";
import { tick } from "../ordering/stage.ts";
import { change, epochOf, judge, readFeed, Sessions, spend } from "./history.ts";

/** Makes a database believe that a dump was restored into it, or that a standby was promoted. */
const pretend = {
  restored: "update millrace.epoch set outbox_oid = 1",
  promoted: "update millrace.epoch set timeline = 77",
  upgraded: "update millrace.epoch set system_identifier = 1",
} as const;

const begin = "select * from millrace.begin_epoch()";

/** Until a session waits for a lock on the outbox. */
async function somebodyWaits(url: string): Promise<void> {
  const waiting = "select from pg_locks where not granted and relation = 'millrace.outbox'::regclass";
  await eventually(async () => (await query(url, waiting)).length > 0);
}

describe("begin_epoch", () => {
  test("does nothing where nothing has changed, also twice", async () => {
    const url = await freshDatabase({ migrated: true });
    const [first] = await query(url, "select id::text from millrace.begin_epoch()");
    expect(await query(url, "select id::text from millrace.begin_epoch()")).toEqual([first]);
    expect(await epochOf(url)).toMatchObject({ reason: "created", epochs: 1 });
    expect(await query(url, "select count(*)::int from millrace.tick")).toEqual([[1]]);
  });

  test.each(["restored", "promoted"] as const)("by two servers at once is begun by one (%s)", async (what) => {
    await using sessions = new Sessions();
    const url = await freshDatabase({ migrated: true });
    await query(url, "select millrace.emit('t', 'a')");
    await query(url, pretend[what]);
    const both = await Promise.all([sessions.to(url), sessions.to(url)]);
    const begun = await Promise.all(both.map((session) => session.query<{ id: string }>(begin)));
    expect(new Set(begun.map(({ rows }) => rows[0]?.id)).size).toBe(1);
    expect(await epochOf(url)).toMatchObject({ reason: what, epochs: 2 });
  });

  test("G11 waits for writers for a second, names the pid in the way, and lets others write meanwhile", async () => {
    await using sessions = new Sessions();
    const url = await freshDatabase({ migrated: true });
    const [long, other, server] = await Promise.all([sessions.to(url), sessions.to(url), sessions.to(url)]);
    await query(url, pretend.restored);
    await long.query("begin");
    await change(long, "long", 1);
    const { rows } = await long.query<{ pid: number }>("select pg_backend_pid() as pid");
    const first = refusal(server.query(begin));
    // It waits: from now on writers queue behind it.
    await somebodyWaits(url);
    const queued = change(other, "other", 1);
    expect(await first).toMatchObject({
      code: "55P03",
      message: expect.stringContaining(`pid ${rows[0]?.pid}`) as string,
    });
    await queued;
    expect(await epochOf(url)).toMatchObject({ epochs: 1 });
    await change(long, "other", 2);
    await long.query("commit");
    await server.query(begin);
    await change(other, "long", 2);
    const now = await readFeed(url);
    await judge(url, now, undefined, 0);
    expect(await epochOf(url)).toMatchObject({ reason: "restored", unsettled: 3, epochs: 2 });
    expect(now.head).toBe(4);
  });

  test("G1 a writer that waits for the seam is settled after it", async () => {
    await using sessions = new Sessions();
    const url = await freshDatabase({ migrated: true });
    const [server, writer] = await Promise.all([sessions.to(url), sessions.to(url)]);
    await change(writer, "k", 1);
    await query(url, pretend.restored);
    // Has a transaction id and has drawn nothing: it comes to the outbox only under the lock.
    await writer.query("begin; select pg_current_xact_id()");
    await server.query("begin");
    await server.query(begin);
    const waits = change(writer, "k", 2);
    await somebodyWaits(url);
    await server.query("commit");
    await waits;
    await writer.query("commit");
    const now = await readFeed(url);
    await judge(url, now, undefined, 0);
    expect(now.head).toBe(2);
  });

  test("a prepared transaction waits out a promotion, and stands in the way of a seam until it is decided", async () => {
    await using sessions = new Sessions();
    const url = await freshDatabase({ migrated: true });
    const session = await sessions.to(url);
    const gid = `restore_${process.pid}`;
    await session.query("begin");
    await change(session, "prepared", 1);
    await session.query(`prepare transaction '${gid}'`);
    await change(session, "a", 1);
    await query(url, pretend.promoted);
    expect((await readFeed(url)).events.map(({ key }) => key)).toEqual(["a"]);
    await query(url, `${pretend.restored} where reason = 'promoted'`);
    expect(await refusal(session.query(begin))).toMatchObject({
      code: "55P03",
      message: expect.stringContaining("a prepared transaction") as string,
    });
    await session.query(`commit prepared '${gid}'`);
    const now = await readFeed(url);
    expect(now.events.map(({ key }) => key)).toEqual(["a", "prepared"]);
    await judge(url, now, undefined, 0);
  });

  test("G6 is durable whatever the role's setting, and refuses transactions that would break the order", async () => {
    await using sessions = new Sessions();
    const url = await freshDatabase({ migrated: true });
    const session = await sessions.to(url);
    await query(url, pretend.promoted);
    await session.query("begin isolation level repeatable read");
    expect(await refusal(session.query(begin))).toMatchObject({ code: "MR004" });
    await session.query("rollback; begin; select pg_current_xact_id()");
    expect(await refusal(session.query(begin))).toMatchObject({ code: "MR004" });
    await session.query("rollback; set synchronous_commit = off; begin");
    await session.query(begin);
    expect((await session.query("show synchronous_commit")).rows).toEqual([{ synchronous_commit: "on" }]);
    await session.query("commit");
  });

  test("pg_upgrade keeps transaction ids; another cluster's rows under the same oid do not", async () => {
    await using sessions = new Sessions();
    const upgraded = await freshDatabase({ migrated: true });
    await query(upgraded, "select millrace.emit('t', 'a')");
    const before = await readFeed(upgraded);
    await query(upgraded, "select millrace.emit('t', 'b')");
    await query(upgraded, pretend.upgraded);
    await judge(upgraded, await readFeed(upgraded), before, 1);
    expect(await epochOf(upgraded)).toMatchObject({ reason: "upgraded", same: true, fork: 1 });

    const lucky = await freshDatabase({ migrated: true });
    for (const key of ["a", "b", "c"]) {
      await query(lucky, `select millrace.emit('t', '${key}')`);
      await readFeed(lucky);
    }
    await query(lucky, "select millrace.emit('t', 'd')");
    // As whoever restores them writes them: all rows by one transaction, with the ids of others in them.
    const session = await sessions.to(lucky);
    for (const table of ["tick", "outbox"]) {
      await session.query(`begin; create temp table kept as select * from millrace.${table}; truncate millrace.${table};
        insert into millrace.${table} select * from kept; drop table kept; commit`);
    }
    await query(lucky, pretend.upgraded);
    await judge(lucky, await readFeed(lucky), undefined, 0);
    expect(await epochOf(lucky)).toMatchObject({ reason: "restored", same: false });
  });

  test("G1 a dump that was restored under the very same oids is noticed, and nothing written since is lost", async () => {
    await using sessions = new Sessions();
    const url = await freshDatabase({ migrated: true });
    await query(url, "select millrace.emit('t', 'a')");
    const before = await readFeed(url);
    const session = await sessions.to(url);
    for (const table of ["origin", "tick", "outbox"]) {
      await session.query(`begin; create temp table kept as select * from millrace.${table}; truncate millrace.${table};
        insert into millrace.${table} select * from kept; drop table kept; commit`);
    }
    // Written by a cluster that had come further.
    await query(
      url,
      `update millrace.tick set snapshot = format('%1$s:%1$s:', pg_current_xact_id()::text::bigint + 1000)::pg_snapshot
       where tick = (select max(tick) from millrace.tick)`,
    );
    await query(url, "select millrace.emit('t', 'b')");
    await spend(url, 2000);
    await query(url, "select millrace.emit('t', 'c')");
    expect(await refusal(session.query("select millrace.assert_epoch()"))).toMatchObject({ code: "MR003" });
    expect(await query(url, "select millrace.is_unadopted()")).toEqual([[true]]);
    await judge(url, await readFeed(url), before, 1);
    expect(await epochOf(url)).toMatchObject({ reason: "restored", same: false, fork: 1, unsettled: 2, epochs: 2 });
    expect(await query(url, "select millrace.is_unadopted()")).toEqual([[false]]);
    await query(url, "vacuum (freeze, full) millrace.origin");
    await query(url, "select millrace.assert_epoch()");
  });

  test("is for servers", async () => {
    const cluster = await sharedCluster();
    const url = await cluster.createDatabase();
    await migrate(url);
    const role = `nobody_${process.pid}_${Date.now()}`;
    await query(url, `create role ${role} login`);
    const as = cluster.url(new URL(url).pathname.slice(1), role);
    await expect(query(as, begin)).rejects.toMatchObject({ code: "42501" });
    await query(url, `select millrace.allow('${role}', 'writer')`);
    await query(url, `select millrace.allow('${role}', 'watcher')`);
    await expect(query(as, begin)).rejects.toMatchObject({ code: "42501" });
    await expect(query(as, "select millrace.adopt_sources()")).rejects.toMatchObject({ code: "42501" });
    await query(url, `select millrace.allow('${role}', 'server')`);
    expect(await query(as, "select reason from millrace.begin_epoch()")).toEqual([["created"]]);
    await expect(query(as, "select millrace.write_seam()")).rejects.toMatchObject({ code: "42501" });
  });
});

describe("proof that a database was rolled back", () => {
  const proof = (id: string, lost: string) =>
    `select reason, fork_version::int from millrace.begin_epoch('${id}', ${lost})`;

  test("is a tick that is not there: the newest before it is the fork; anything else begins nothing", async () => {
    await using sessions = new Sessions();
    const url = await freshDatabase({ migrated: true });
    const session = await sessions.to(url);
    for (const key of ["a", "b", "c"]) {
      await change(session, key, 1);
      await tick(session);
    }
    const { rows } = await session.query<{ text: string; id: string }>(
      `select concat_ws(', ', tick, first_version, count, (extract(epoch from time) * 1000000)::bigint) as text,
         (select id from millrace.epoch) as id from millrace.tick order by tick`,
    );
    const [, one = { text: "", id: "" }, two, three] = rows;
    const { id } = one;
    const created = [["created", null]];
    for (const there of [one, two, three]) expect(await query(url, proof(id, there?.text ?? ""))).toEqual(created);
    const later = "(extract(epoch from clock_timestamp()) * 1000000)::bigint";
    // Under an epoch that is not in force, and of a tick before all that is kept.
    const other = "00000000-0000-4000-8000-000000000000";
    expect(await query(url, proof(other, `9, 9, 1, ${later}`))).toEqual(created);
    expect(await query(url, proof(id, `-1, 1, 1, ${later}`))).toEqual(created);
    expect(await epochOf(url)).toMatchObject({ epochs: 1 });

    const before = await readFeed(url);
    expect(await query(url, proof(id, `9, 9, 1, ${later}`))).toEqual([["rolled_back", 3]]);
    await change(session, "d", 1);
    const now = await readFeed(url);
    await judge(url, now, before, 3);
    // Tick 3 with another time: what was read up to tick 2 is common.
    const [, first, count] = (three?.text ?? "").split(", ");
    const was = (two?.text ?? "").split(", ").at(-1);
    expect(await query(url, proof(now.epoch, `3, ${first}, ${count}, ${was} + 1`))).toEqual([["rolled_back", 2]]);
    expect(await query(url, proof(now.epoch, `3, ${first}, ${count}, ${was} + 1`))).toEqual([["rolled_back", 2]]);
    await judge(url, await readFeed(url), now, now.head);
    expect(await epochOf(url)).toMatchObject({ same: true, unsettled: null, epochs: 3 });
  });
});
