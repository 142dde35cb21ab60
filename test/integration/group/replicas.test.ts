import pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ClosingReason } from "../../../gen/millrace/v1/feed_service_pb.js";
import { migrate } from "../../../src/postgres/migrate.ts";
import { createCluster, type TestCluster } from "../../support/cluster.ts";
import { eventually } from "../../support/deadline.ts";
import { type ServerProcess, startServerProcess } from "../../support/server-process.ts";
import { connect, type Seen, WorkingMember } from "./member.ts";

let cluster: TestCluster;

beforeAll(async () => {
  cluster = await createCluster();
});

afterAll(() => cluster[Symbol.asyncDispose]());

interface Stage {
  readonly url: string;
  readonly servers: readonly ServerProcess[];
  emit(events: number, keys: number): Promise<void>;
  position(server: ServerProcess): Promise<number>;
}

async function stage(use: (stage: Stage) => Promise<void>): Promise<void> {
  const url = await cluster.createDatabase();
  await migrate(url);
  await using first = await startServerProcess({ databaseUrl: url });
  await using second = await startServerProcess({ databaseUrl: url });
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    await use({
      url,
      servers: [first, second],
      async emit(events, keys) {
        await client.query("select millrace.emit('notes', 'k' || (n % $2::int), '{}') from generate_series(1, $1) n", [
          events,
          keys,
        ]);
      },
      async position(server) {
        const { service, hangUp } = connect(server.port);
        try {
          const { subscription } = await service.getSubscription({ subscriptionId: "g" });
          return Number(subscription?.version);
        } finally {
          hangUp();
        }
      },
    });
  } finally {
    await client.end();
  }
}

async function createGroup(server: ServerProcess, ackDeadlineSeconds = 30): Promise<void> {
  const { service, hangUp } = connect(server.port);
  const group = { ackDeadline: { seconds: BigInt(ackDeadlineSeconds), nanos: 0 } };
  await service.createSubscription({ subscriptionId: "g", group, start: { case: "oldest", value: {} } });
  hangUp();
}

/** First deliveries of each key, in the order in which they came, rise. */
function assertOrder(log: readonly Seen[]): void {
  const last = new Map<string, number>();
  for (const { key, version, attempt } of log) {
    if (attempt === 1) {
      expect(version, key).toBeGreaterThan(last.get(key) ?? 0);
      last.set(key, version);
    }
  }
}

describe("two replicas", () => {
  test("G1 G3 serve members of one group, wherever they come in: each event once, each key in order", async () => {
    await stage(async ({ servers, emit, position }) => {
      const [first, second] = servers;
      if (first === undefined || second === undefined) throw new Error("there are two");
      await createGroup(first);
      const log: Seen[] = [];
      const at = (server: ServerProcess) => () => connect(server.port);
      const members = [
        new WorkingMember("a", "g", at(first), log),
        new WorkingMember("b", "g", at(second), log),
        new WorkingMember("c", "g", at(second), log),
      ];
      const working = members.map((member) => member.work());
      await eventually(async () => members.every(({ generation }) => generation > 0n));
      await emit(3_000, 60);
      await eventually(async () => (await position(second)) === 3_000);
      expect(log.length).toBe(3_000);
      expect(new Set(log.map(({ version }) => version)).size).toBe(3_000);
      assertOrder(log);
      // The position may be known before the last answer has come.
      await eventually(async () => members.every(({ seen, accepted }) => accepted === seen.length));
      for (const { seen } of members) {
        expect(seen.length).toBeGreaterThan(500);
      }
      for (const member of members) member.leave();
      await Promise.all(working);
    });
  });

  test("G1 outlive each other: when the one that holds the group is killed, the other goes on where it stood", async () => {
    await stage(async ({ servers, emit, position }) => {
      const [first, second] = servers;
      if (first === undefined || second === undefined) throw new Error("there are two");
      await createGroup(first);
      const log: Seen[] = [];
      let server = first;
      const a = new WorkingMember("a", "g", () => connect(server.port), log);
      const b = new WorkingMember("b", "g", () => connect(second.port), log);
      const working = [a.work()];
      await eventually(async () => a.generation > 0n);
      working.push(b.work());
      await eventually(async () => b.generation > 0n);
      await emit(500, 20);
      await eventually(async () => (await position(second)) === 500);
      const before = log.length;
      await first.kill9();
      server = second;
      await emit(500, 20);
      await eventually(async () => (await position(second)) === 1_000);
      const versions = new Set(log.map(({ version }) => version));
      expect(versions.size).toBe(1_000);
      expect(log.slice(before).every(({ version }) => version > 500)).toBe(true);
      expect(b.seen.length).toBeGreaterThan(0);
      expect(b.errors.some((error) => /held by the replica at .* cannot be reached/.test(String(error)))).toBe(true);
      a.leave();
      b.leave();
      await Promise.all(working);
    });
  });

  test("G3 give each key to one member at a time, when the one that holds the group freezes past its hold and wakes", async () => {
    await stage(async ({ servers, emit, position }) => {
      const [first, second] = servers;
      if (first === undefined || second === undefined) throw new Error("there are two");
      await createGroup(first, 5);
      const log: Seen[] = [];
      const a = new WorkingMember("a", "g", () => connect(first.port), log);
      const b = new WorkingMember("b", "g", () => connect(second.port), log);
      a.silent = true;
      const working = [a.work()];
      await eventually(async () => a.generation > 0n);
      await emit(40, 20);
      await eventually(async () => a.seen.length === 40);
      first.freeze();
      working.push(b.work());
      // What it had delivered, and nobody acknowledged, comes again at the other, once its hold is over.
      await eventually(async () => b.seen.length === 40 && (await position(second)) === 40);
      await emit(40, 20);
      await eventually(async () => (await position(second)) === 80);
      const before = log.length;
      const { generation } = a;
      first.thaw();
      // It finds out that the group is another's now, and has given nothing more of it out by then.
      await eventually(async () => a.generation > generation);
      expect(a.closings).toEqual([ClosingReason.TAKEN_OVER]);
      expect(log.slice(before)).toEqual([]);
      a.silent = false;
      await emit(200, 20);
      await eventually(async () => (await position(second)) === 280);
      // What was delivered right before the freeze may not be known to have been.
      assertOrder(log.slice(40));
      a.leave();
      b.leave();
      await Promise.all(working);
    });
  });

  test("tell members whose calls they pass on when they go down", async () => {
    await stage(async ({ servers }) => {
      const [first, second] = servers;
      if (first === undefined || second === undefined) throw new Error("there are two");
      await createGroup(first);
      let server = second;
      const log: Seen[] = [];
      const a = new WorkingMember("a", "g", () => connect(first.port), log);
      const working = [a.work()];
      await eventually(async () => a.generation > 0n);
      const b = new WorkingMember("b", "g", () => connect(server.port), log);
      working.push(b.work());
      await eventually(async () => b.generation > 0n);
      const before = b.generation;
      server = first;
      expect(await second.terminate()).toBe(0);
      await eventually(async () => b.generation > before);
      expect(b.closings).toEqual([ClosingReason.DRAINING]);
      expect(a.closings).toEqual([]);
      a.leave();
      b.leave();
      await Promise.all(working);
    });
  });

  test("pass on dead letters that are replayed, and polls of members", async () => {
    await stage(async ({ servers, emit, position }) => {
      const [first, second] = servers;
      if (first === undefined || second === undefined) throw new Error("there are two");
      await createGroup(first);
      const log: Seen[] = [];
      const a = new WorkingMember("a", "g", () => connect(first.port), log);
      a.silent = true;
      const working = a.work();
      await eventually(async () => a.generation > 0n);
      await emit(1, 1);
      await eventually(async () => a.seen.length === 1);
      const { service, feed, hangUp } = connect(second.port);
      const subscriptionId = "g";
      const rejections = [{ version: 1n, reason: "poison", giveUp: true }];
      await service.acknowledge({ subscriptionId, generation: a.generation, member: "a", rejections });
      expect((await service.listDeadLetters({ subscriptionId })).total).toBe(1n);
      expect(await service.replayDeadLetters({ subscriptionId })).toMatchObject({ replaying: 1n, remaining: 0n });
      await eventually(async () => a.seen.length === 2);
      await service.acknowledge({ subscriptionId, generation: a.generation, member: "a", versions: [1n] });
      expect((await service.listDeadLetters({ subscriptionId })).total).toBe(0n);
      a.leave();
      await working;
      const start = { case: "subscriptionId", value: "g" } as const;
      const polled = await feed.poll({ start, member: "p" });
      expect(polled).toMatchObject({ events: [], subscriptionActive: true });
      await emit(3, 1);
      const generation = polled.lease?.generation ?? 0n;
      const page = await feed.poll({ start, member: "p", generation, timeout: { seconds: 20n, nanos: 0 } });
      const { cursor: acknowledgeCursor } = page;
      const next = await feed.poll({ start, member: "p", generation, acknowledgeCursor });
      expect([...page.events, ...next.events].map(({ version }) => version)).toEqual([2n, 3n, 4n]);
      if (next.events.length > 0) {
        await feed.poll({ start, member: "p", generation, acknowledgeCursor: next.cursor });
      }
      await eventually(async () => (await position(second)) === 4);
      hangUp();
    });
  });
});
