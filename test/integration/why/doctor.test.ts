import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Server } from "node:net";
import pg from "pg";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type DoctorOptions, doctor } from "../../../src/postgres/doctor.ts";
import type { Finding } from "../../../src/postgres/finding.ts";
import { createCluster, type TestCluster } from "../../support/cluster.ts";
import { createFeedDatabase, type FeedDatabase } from "../snapshot/feed-database.ts";

let cluster: TestCluster;
let database: FeedDatabase;
let roles = 0;

beforeAll(async () => {
  cluster = await createCluster({ settings: { max_prepared_transactions: "0", fsync: "on" } });
});

afterAll(() => cluster[Symbol.asyncDispose]());

beforeEach(async () => {
  database = await createFeedDatabase(cluster);
});

afterEach(() => database[Symbol.asyncDispose]());

async function examine(pool = database.pool, options: DoctorOptions = {}): Promise<readonly Finding[]> {
  return doctor(pool, options);
}

async function ills(pool = database.pool, options: DoctorOptions = {}) {
  return (await examine(pool, options)).filter(({ severity }) => severity !== "ok");
}

async function newRole(): Promise<string> {
  roles += 1;
  const role = `Role ${process.pid} ${roles}`;
  await database.sql(`create role ${pg.escapeIdentifier(role)} login`);
  return role;
}

const allow = (role: string) => database.sql("select millrace.allow(quote_ident($1)::regrole, 'server')", [role]);

/** What a finding's action tells to run, in backquotes. */
function commandOf(finding: Finding | undefined): string {
  return /`([^`]+)`/.exec(finding?.action ?? "")?.[1] ?? "select 'the action names no command' / 0";
}

describe("doctor", () => {
  it("has nothing to say against a database as it should be, and says what it looked at", async () => {
    await database.sql("create table t (id int primary key); select millrace.watch('t')");
    const findings = await examine();
    expect(findings.filter(({ severity }) => severity !== "ok")).toEqual([]);
    expect(findings.map(({ code }) => code)).toEqual(
      expect.arrayContaining([
        "SERVER_VERSION",
        "POOLER",
        "SYNCHRONOUS_COMMIT",
        "SCHEMA",
        "GRANT_TICK",
        "OWNER",
        "EPOCH",
        "CAPTURE",
      ]),
    );
    for (const { message, action } of findings) {
      expect(message).toMatch(/[.]$/);
      expect(action).toBe("");
    }
  });

  it("sees a database without the schema", async () => {
    const pool = new pg.Pool({ connectionString: await cluster.createDatabase() });
    expect((await ills(pool)).map(({ code }) => code)).toEqual(["SCHEMA_MISSING"]);
    await pool.end();
  });

  it("sees an older and a newer schema", async () => {
    await database.sql("insert into millrace.migration (number, name, sha256) values (9999, 'later', '')");
    expect((await ills()).map(({ code }) => code)).toEqual(["SCHEMA_NEWER"]);
    await database.sql("delete from millrace.migration where number > 1");
    expect((await ills()).map(({ code }) => code)).toEqual(["SCHEMA_OLDER"]);
  });

  it("sees a role without any right, and what it says to run mends it", async () => {
    const role = await newRole();
    const [first] = await ills(database.poolAs(role));
    expect(first).toMatchObject({ code: "GRANT_READ", severity: "error" });
    await database.sql(commandOf(first));
    expect(await ills(database.poolAs(role))).toEqual([]);
  });

  it("sees a role that reads and may not tick", async () => {
    const role = await newRole();
    await allow(role);
    await database.sql(`revoke execute on function millrace.tick(uuid) from ${pg.escapeIdentifier(role)}`);
    const found = await ills(database.poolAs(role));
    expect(found.map(({ code }) => code)).toEqual(["GRANT_TICK"]);
    await database.sql(commandOf(found[0]));
    expect(await ills(database.poolAs(role))).toEqual([]);
  });

  it("sees what a role cannot take snapshots of, and what it says to run mends it", async () => {
    const role = await newRole();
    await allow(role);
    await database.sql("create table t (id int primary key); select millrace.watch('t')");
    const found = await ills(database.poolAs(role));
    expect(found.map(({ code, severity }) => [code, severity])).toEqual([["SNAPSHOT_READ", "warning"]]);
    await database.sql(commandOf(found[0]));
    expect(await ills(database.poolAs(role))).toEqual([]);
  });

  it("sees a role's defaults, and only complains of the one that costs something", async () => {
    const role = await newRole();
    await allow(role);
    await database.sql(`alter role ${pg.escapeIdentifier(role)} set synchronous_commit = off;
      alter role ${pg.escapeIdentifier(role)} set default_transaction_isolation = 'serializable';
      alter role ${pg.escapeIdentifier(role)} set default_transaction_read_only = on`);
    const findings = await examine(database.poolAs(role));
    expect(findings.filter(({ severity }) => severity !== "ok").map(({ code }) => code)).toEqual([
      "SYNCHRONOUS_COMMIT",
    ]);
    expect(findings.find(({ code }) => code === "TRANSACTION_DEFAULTS")?.message).toContain("serializable, read only");
  });

  it("sees a copy of another server's feed", async () => {
    await database.sql("update millrace.epoch set system_identifier = system_identifier + 1");
    expect(await ills()).toEqual([expect.objectContaining({ code: "EPOCH", severity: "error" })]);
  });

  it("explains how the epoch in force came about", async () => {
    const said = async () => (await examine()).find(({ code }) => code === "EPOCH");
    expect(await said()).toMatchObject({ severity: "ok", message: expect.stringContaining("is the first") });
    await database.sql("update millrace.epoch set timeline = timeline - 1");
    expect((await said())?.message).toContain("It was written by server");
    await database.sql(commandOf(await said()));
    expect(await said()).toMatchObject({
      severity: "ok",
      message: expect.stringMatching(/began at .*was promoted from a standby.* shares versions up to 0 with /),
    });
  });

  it("sees each fault of capture", async () => {
    await database.sql(`create table a (id int primary key); create table b (id int primary key); create table c (id int primary key);
      select millrace.watch('a'), millrace.watch('b'), millrace.watch('c');
      alter table a disable trigger "!millrace_row"; drop trigger "!millrace_row" on b; drop table c`);
    expect((await ills()).map(({ code }) => code).toSorted()).toEqual(["TABLE_GONE", "TRIGGER_MISSING", "TRIGGER_OFF"]);
  });

  it("sees a superuser as the schema's owner", async () => {
    await database.sql("reassign owned by millrace_owner to postgres");
    expect((await ills()).map(({ code }) => code)).toEqual(["OWNER_SUPERUSER"]);
  });

  it("sees that partitions are running out, and that they have", async () => {
    await database.sql("select setval('millrace.outbox_seq', 9999000)");
    expect((await ills()).map(({ code }) => code)).toEqual(["PARTITIONS_NEARLY_FULL"]);
    await database.sql("select setval('millrace.outbox_seq', 10000000)");
    await database.sql("select millrace.emit('a')");
    expect((await ills()).map(({ code }) => code)).toEqual(["DEFAULT_PARTITION"]);
  });

  it("sees clocks that disagree", async () => {
    expect((await ills(database.pool, { now: () => Date.now() + 60_000 })).map(({ code }) => code)).toEqual(["CLOCK"]);
    await database.sql("update millrace.tick set time = now() + interval '1 hour'");
    expect((await ills()).map(({ code }) => code)).toEqual(["TICK_TIME"]);
  });

  it("goes on when a check fails", async () => {
    await database.sql("drop function millrace.assert_epoch(uuid) cascade");
    const findings = await examine();
    expect(findings.filter(({ severity }) => severity !== "ok").map(({ code }) => code)).toEqual(["CHECK_FAILED"]);
    expect(findings.map(({ code }) => code)).toContain("CAPTURE");
  });

  it("says so when nobody answers", async () => {
    const pool = new pg.Pool({ connectionString: "postgres://127.0.0.1:1/none" });
    await expect(doctor(pool)).rejects.toMatchObject({ code: "DATABASE_UNAVAILABLE" });
    await pool.end();
  });
});

/** Passes everything through, but gives sessions process ids of its own, as every pooler does. */
async function startPooler(port: number): Promise<Server> {
  const server = createServer((client) => {
    const upstream = connect(port, "127.0.0.1");
    for (const socket of [client, upstream]) socket.on("error", () => [client, upstream].map((each) => each.destroy()));
    client.pipe(upstream);
    upstream.on("data", (data: Buffer) => {
      // BackendKeyData: 'K', length 12 (16 for the longer keys of newer protocols), process id, key.
      const at = data.indexOf(Buffer.from([0x4b, 0, 0, 0, 12]));
      if (at >= 0) data.writeInt32BE(4_000_000, at + 5);
      client.write(data);
    });
    upstream.on("end", () => client.end());
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return server;
}

it("sees a pooler between", async () => {
  const pooler = await startPooler(cluster.port);
  const url = new URL(database.url);
  url.port = String((pooler.address() as AddressInfo).port);
  const pool = new pg.Pool({ connectionString: url.href });
  expect((await ills(pool)).map(({ code }) => code)).toEqual(["POOLER"]);
  await pool.end();
  pooler.close();
});

describe("a server that is set up otherwise", () => {
  it("shows in the findings", async () => {
    await using other = await createCluster({ settings: { max_prepared_transactions: "5", fsync: "off" } });
    await using elsewhere = await createFeedDatabase(other);
    expect((await ills(elsewhere.pool)).map(({ code }) => code)).toEqual(["CRASH_SAFETY", "PREPARED_TRANSACTIONS"]);
    await elsewhere.sql("begin; select millrace.emit('a'); prepare transaction 'old'");
    // Not an hour old yet.
    expect((await ills(elsewhere.pool)).map(({ code }) => code)).not.toContain("PREPARED_TRANSACTION");
  });
});
