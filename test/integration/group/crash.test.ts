import pg from "pg";
import { expect, test } from "vitest";
import { migrate } from "../../../src/postgres/migrate.ts";
import { createCluster } from "../../support/cluster.ts";
import { eventually } from "../../support/deadline.ts";
import { startServerProcess } from "../../support/server-process.ts";
import { connect, type Seen, WorkingMember } from "./member.ts";

const ROUNDS = Number(process.env.GROUP_ROUNDS ?? 6);
const EVENTS = 300;
const KEYS = 25;
const VICTIMS = ["server", "database", "member"] as const;

test("G1 G3 a group whose server, database and members are killed misses nothing, each key in its order", async () => {
  await using cluster = await createCluster();
  const url = await cluster.createDatabase();
  await migrate(url);
  let server = await startServerProcess({ databaseUrl: url, port: 0 });
  const { port } = server;
  const log: Seen[] = [];
  const admin = connect(port);
  await admin.service.createSubscription({ subscriptionId: "g", group: {}, start: { case: "oldest", value: {} } });
  admin.hangUp();
  const start = (name: string) => {
    const member = new WorkingMember(name, "g", () => connect(port), log);
    return { member, working: member.work() };
  };
  const members = ["a", "b", "c"].map(start);
  let emitted = 0;
  const emit = () =>
    eventually(async () => {
      const client = new pg.Client({ connectionString: url });
      client.on("error", () => undefined);
      try {
        await client.connect();
        const there = await client.query("select count(*)::int as n from millrace.outbox");
        const missing = emitted + EVENTS - there.rows[0].n;
        const text = "select millrace.emit('notes', 'k' || (n % $2::int), '{}') from generate_series(1, $1::int) n";
        if (missing > 0) await client.query(text, [missing, KEYS]);
        emitted += EVENTS;
        return true;
      } catch {
        return false;
      } finally {
        await client.end().catch(() => undefined);
      }
    });
  try {
    for (let round = 0; round < ROUNDS; round++) {
      const before = log.length;
      await emit();
      // In the middle of what members have and have not said.
      await eventually(async () => log.length > before);
      const victim = VICTIMS[round % VICTIMS.length];
      if (victim === "server") {
        await server.kill9();
        server = await startServerProcess({ databaseUrl: url, port });
      } else if (victim === "database") {
        await cluster.kill9();
        await cluster.start();
      } else {
        const [gone] = members.splice(0, 1);
        gone?.member.leave();
        await gone?.working;
        members.push(start(`late-${round}`));
      }
      await eventually(async () => {
        const { service, hangUp } = connect(port);
        try {
          const { subscription } = await service.getSubscription({ subscriptionId: "g" });
          return Number(subscription?.version) === emitted;
        } catch {
          return false;
        } finally {
          hangUp();
        }
      });
    }
    const first = new Map<number, Seen>();
    for (const seen of log) {
      if (!first.has(seen.version)) first.set(seen.version, seen);
    }
    expect(first.size).toBe(emitted);
    const last = new Map<string, number>();
    for (const { key, version } of first.values()) {
      expect(version, key).toBeGreaterThan(last.get(key) ?? 0);
      last.set(key, version);
    }
  } finally {
    for (const { member } of members) member.leave();
    await Promise.all(members.map(({ working }) => working));
    await server[Symbol.asyncDispose]();
  }
}, 300_000);
