import { describe, expect, test } from "vitest";
import { migrate } from "../../../src/postgres/migrate.ts";
import { createCluster, debian15Available } from "../../support/cluster.ts";
import { coldCopy, query, standby, templateCopy } from "../../support/restores.ts";
import { tick } from "../ordering/stage.ts";
import { change, epochOf, judge, readFeed, Sessions } from "./history.ts";

const gid = "before the fork";

describe.runIf(debian15Available())("a standby that is promoted", () => {
  test("G1 G2 G3 G4 G6 without the last ticks settles its own tail, and what was prepared when it is decided", async () => {
    await using cluster = await createCluster({ binaries: "debian-15" });
    await using sessions = new Sessions();
    const url = await cluster.createDatabase("shop");
    await migrate(url);
    const [one, late, open, prepared] = await Promise.all([1, 2, 3, 4].map(() => sessions.to(url)));
    if (!one || !late || !open || !prepared) throw new Error("four sessions");
    await change(one, "a", 1);
    await late.query("begin");
    await change(late, "late", 1);
    await open.query("begin");
    await change(open, "lost", 1);
    await prepared.query("begin");
    await change(prepared, "prepared", 1);
    await prepared.query(`prepare transaction '${gid}'`);
    await change(one, "b", 1);
    const { head: fork } = await tick(one);
    await late.query("commit");
    await change(one, "late", 2);
    const failOver = await standby(cluster);
    // What the standby never had: ticks, and the end of a transaction.
    await change(one, "lost", 7);
    await open.query("commit");
    await tick(one);
    const before = await readFeed(url);
    expect(before.head).toBe(6);
    await failOver();
    await sessions.close();
    expect((await query(url, "select pg_is_in_recovery()"))[0]).toEqual([true]);
    await expect(query(url, "select millrace.begin_epoch()")).rejects.toMatchObject({ code: "MR002" });
    await query(url, "select pg_promote()");
    const writer = await sessions.to(url);
    await change(writer, "late", 3);
    const now = await readFeed(url);
    await judge(url, now, before, fork);
    expect(now.events.map(({ key }) => key)).toEqual(["a", "b", "late", "late", "late"]);
    expect(await epochOf(url)).toMatchObject({ reason: "promoted", same: true, fork, epochs: 2 });
    await writer.query(`commit prepared '${gid}'`);
    const after = await readFeed(url);
    await judge(url, after, now, now.head);
    expect(after.events.slice(now.head).map(({ key }) => key)).toEqual(["prepared"]);
  });
});

describe("files", () => {
  test("G1 G2 G3 G4 G6 of an older day, under a reader that knows better, go on from there", async () => {
    await using cluster = await createCluster();
    await using sessions = new Sessions();
    const url = await cluster.createDatabase("shop");
    await migrate(url);
    const first = await sessions.to(url);
    await change(first, "a", 1);
    await tick(first);
    await change(first, "a", 2);
    await sessions.close();
    const rollBack = await coldCopy(cluster);
    const one = await sessions.to(url);
    for (let n = 3; n < 7; n += 1) {
      await change(one, "a", n);
      await tick(one);
    }
    const before = await readFeed(url);
    const [lost] = await query(
      url,
      `select concat_ws(', ', tick, first_version, count, (extract(epoch from time) * 1000000)::bigint)
       from millrace.tick order by tick desc limit 1`,
    );
    await sessions.close();
    await rollBack();
    // Somebody who knew of nothing went on in the meantime.
    const two = await sessions.to(url);
    await change(two, "a", 8);
    await tick(two);
    const begun = `select reason, fork_version::int from millrace.begin_epoch('${before.epoch}', ${lost})`;
    expect(await query(url, begun)).toEqual([["rolled_back", 1]]);
    await change(two, "a", 9);
    const now = await readFeed(url);
    await judge(url, now, before, 1);
    expect(now.head).toBe(4);
  });

  test("G1 G2 G3 G4 G6 that CREATE DATABASE copies go on from the last tick, again and again", async () => {
    await using cluster = await createCluster();
    await using sessions = new Sessions();
    const url = await cluster.createDatabase("shop");
    await migrate(url);
    await query(url, "create table orders (id int primary key, n int)");
    await query(url, "select millrace.watch('orders')");
    let before = await readFeed(url);
    for (let round = 1; round <= 3; round += 1) {
      const session = await sessions.to(url);
      await change(session, "a", round * 10);
      const { head: fork } = await tick(session);
      await session.query("insert into orders values ($1, 1)", [round]);
      await sessions.close();
      const replace = await templateCopy(cluster, "shop");
      before = await readFeed(url);
      await replace();
      await query(url, "update orders set n = n + 1");
      const now = await readFeed(url);
      await judge(url, now, before, fork);
      expect(await epochOf(url)).toMatchObject({ reason: "copied", same: true, fork, epochs: round + 1 });
    }
  });
});
