import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type WhyOptions, why } from "../../../src/postgres/why.ts";
import { createCluster, type TestCluster } from "../../support/cluster.ts";
import { until } from "../../support/deadline.ts";
import { createFeedDatabase, type FeedDatabase } from "../snapshot/feed-database.ts";

let cluster: TestCluster;
let database: FeedDatabase;

beforeAll(async () => {
  cluster = await createCluster();
});

afterAll(() => cluster[Symbol.asyncDispose]());

beforeEach(async () => {
  database = await createFeedDatabase(cluster);
});

afterEach(() => database[Symbol.asyncDispose]());

const look = (options: WhyOptions = {}) => why(database.pool, { graceMs: 50, ...options });

async function codes(options: WhyOptions = {}) {
  return (await look(options)).findings.filter(({ severity }) => severity !== "ok").map(({ code }) => code);
}

async function finding(code: string) {
  return (await look()).findings.find((candidate) => candidate.code === code);
}

describe("why", () => {
  it("finds nothing on a feed that moves", async () => {
    await database.sql("select millrace.emit('a')");
    await database.tick();
    const seen = await look();
    expect(seen.lastTick).toMatchObject({ tick: 1, head: 1, unsettled: 0, unsettledAgeMs: null });
    expect(seen.findings).toEqual([expect.objectContaining({ code: "SETTLING", severity: "ok" })]);
  });

  it("says that nobody settles what is committed", async () => {
    await database.sql("select millrace.emit('a'), millrace.emit('a')");
    expect(await finding("NOT_SETTLING")).toMatchObject({
      severity: "error",
      message: expect.stringContaining("2 committed events are not settled"),
    });
    await database.tick();
    expect(await codes()).toEqual([]);
  });

  it("sees an event that was written early and committed late", async () => {
    const late = await database.session();
    await late.query("begin; select millrace.emit('late')");
    await database.sql("select millrace.emit('early')");
    await database.tick();
    expect(await codes()).toEqual([]);
    await late.query("commit");
    expect((await look()).lastTick.unsettled).toBe(1);
    expect(await codes()).toEqual(["NOT_SETTLING"]);
  });

  it("is not alarmed by what is settled a moment later", async () => {
    await database.sql("select millrace.emit('a')");
    const looking = codes({ graceMs: 2000 });
    await database.tick();
    expect(await looking).toEqual([]);
  });

  it("names an open transaction, whether it wrote events, and that nobody waits for it", async () => {
    const writer = await database.session();
    await writer.query("set application_name = 'billing'; begin; select millrace.emit('a', payload => '\"secret\"')");
    const reader = await database.session();
    await reader.query("begin; select 1");
    await database.sql("select millrace.emit('b')");
    await database.tick();
    const { transactions, findings, lastTick } = await look();
    expect(transactions).toEqual([
      expect.objectContaining({ application: "billing", state: "idle in transaction", wroteEvents: true }),
      expect.objectContaining({ wroteEvents: false }),
    ]);
    expect(transactions[0]?.query).toContain("secret");
    // Young as it is, it is no finding: the other's event is settled.
    expect(findings.map(({ code }) => code)).toEqual(["SETTLING"]);
    expect(lastTick.head).toBe(1);
  });

  it("shows the query to members of the schema's owner only, and says what a plain role cannot see", async () => {
    const role = `plain_${process.pid}`;
    await database.sql(`create role ${role} login; select millrace.allow('${role}', 'server')`);
    const writer = await database.session();
    await writer.query("begin; select millrace.emit('a', payload => '\"secret\"')");
    const seen = await why(database.poolAs(role));
    expect(seen.seesActivity).toBe(false);
    expect(seen.transactions).toEqual([expect.objectContaining({ wroteEvents: true, query: null, ageMs: null })]);
    expect(seen.findings.map(({ code }) => code)).toContain("ACTIVITY_HIDDEN");
    expect(JSON.stringify(seen)).not.toContain("secret");
    await database.sql(`grant pg_read_all_stats to ${role}`);
    const more = await why(database.poolAs(role));
    expect(more.transactions).toEqual([expect.objectContaining({ wroteEvents: true, query: null })]);
    expect(more.transactions[0]?.ageMs).toBeGreaterThan(0);
    expect(more.findings.map(({ code }) => code)).not.toContain("ACTIVITY_HIDDEN");
    expect(JSON.stringify(more)).not.toContain("secret");
    await writer.query("rollback");
    await database.sql(`drop owned by ${role}`);
  });

  it("names a prepared transaction that wrote events", async () => {
    await database.sql("begin; select millrace.emit('a'); prepare transaction 'undecided'");
    expect((await look()).prepared).toEqual([expect.objectContaining({ gid: "undecided", wroteEvents: true })]);
    expect(await finding("PREPARED_TRANSACTION")).toMatchObject({ message: expect.stringContaining("'undecided'") });
    await database.sql("rollback prepared 'undecided'");
    expect(await codes()).toEqual([]);
  });

  it("names who waits for a lock, and for whom", async () => {
    const holder = await database.session();
    await holder.query("begin; lock table millrace.tick_lock in share row exclusive mode");
    const [held] = (await holder.query<{ pid: number }>("select pg_backend_pid() as pid")).rows;
    await database.sql("select millrace.emit('a')");
    const ticker = await database.session();
    const ticking = ticker.query("begin; set local synchronous_commit = on; select from millrace.tick(); commit");
    await until("the ticker waits", async () => (await look({ graceMs: 0 })).waits.length > 0);
    const seen = await look();
    expect(seen.waits).toEqual([
      expect.objectContaining({
        relation: "millrace.tick_lock",
        mode: "ShareRowExclusiveLock",
        blockedBy: [held?.pid],
      }),
    ]);
    expect(seen.findings.map(({ code }) => code)).toEqual(expect.arrayContaining(["NOT_SETTLING", "LOCK_WAIT"]));
    await holder.query("rollback");
    await ticking;
    expect(await codes()).toEqual([]);
  });

  it("names a trigger that is off", async () => {
    await database.sql(`create table t (id int primary key); select millrace.watch('t');
      alter table t disable trigger "!millrace_row"`);
    expect(await finding("TRIGGER_OFF")).toMatchObject({
      severity: "error",
      action: expect.stringContaining("millrace watch"),
    });
    await database.sql("drop table t");
    expect(await finding("TABLE_GONE")).toMatchObject({ severity: "warning" });
  });

  it("says that nothing can be settled in a copy whose epoch nobody has begun", async () => {
    await database.sql("update millrace.epoch set system_identifier = system_identifier + 1");
    expect((await look()).findings).toEqual([expect.objectContaining({ code: "EPOCH", severity: "error" })]);
  });

  it("says what is wrong when it may not look at all", async () => {
    const role = `stranger_${process.pid}`;
    await database.sql(`create role ${role} login`);
    await expect(why(database.poolAs(role))).rejects.toMatchObject({ code: "DATABASE_UNAVAILABLE" });
  });
});
