import pg from "pg";
import { expect, test, vi } from "vitest";
import { migrate } from "../../../src/postgres/migrate.ts";
import { createPostgresStore, type PostgresStore } from "../../../src/postgres/store.ts";
import { at, claimant, subscription } from "../../contract/subscriptions/world.ts";
import { createCluster, debian15Available, freshDatabase, sharedCluster } from "../../support/cluster.ts";
import { query, templateCopy } from "../../support/restores.ts";
import { commit, never, tick } from "../ordering/stage.ts";
import { dumpOf, restoreInto } from "../restore/dumps.ts";
import { createOldSchema } from "../writers/old-schema.ts";

async function withStore<T>(url: string, use: (store: PostgresStore) => Promise<T>): Promise<T> {
  const store = createPostgresStore({ url });
  await store.start(never);
  try {
    return await use(store);
  } finally {
    await store.stop();
  }
}

async function settle(url: string, events: number): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  for (let n = 0; n < events; n++) {
    await commit(client, `${n}`);
    await tick(client);
  }
  await client.end();
}

interface Left {
  readonly epoch: string;
  readonly generation: number;
}

/** A group at version 3 of 5, held by a replica, with a dead letter. */
async function leave(url: string): Promise<Left> {
  await settle(url, 5);
  return await withStore(url, async (store) => {
    const { subscriptions, epoch } = store;
    await subscriptions.create(subscription("g", store, { isGroup: true, labels: { a: "b" } }), never);
    const { record } = await subscriptions.claim("g", claimant("a", "http://a"), never);
    const letter = {
      version: 2,
      topic: "t",
      key: "k",
      operation: "MESSAGE",
      before: undefined,
      after: new TextEncoder().encode('"\\u0000"'),
      transaction: "1",
      occurredAtMicros: 1,
      headers: undefined,
      transition: undefined,
      attempts: 5,
      reason: "no",
    } as const;
    const { generation } = record;
    await subscriptions.advance(
      [{ id: "g", generation, position: at(3, store), deadLetters: [letter], progress: "p" }],
      never,
    );
    return { epoch, generation };
  });
}

async function isThere(url: string, { epoch, generation }: Left): Promise<void> {
  await withStore(url, async (store) => {
    expect(store.epoch).not.toBe(epoch);
    const { subscriptions } = store;
    const record = await subscriptions.get("g", never);
    expect(record).toMatchObject({
      state: "ACTIVE",
      generation,
      position: at(3, { epoch }),
      labels: { a: "b" },
      deadLetters: 1,
    });
    const claim = await subscriptions.claim("g", claimant("b", "http://a"), never);
    expect(claim).toMatchObject({ kind: "claimed", progress: "p" });
    expect(claim.record.generation).toBeGreaterThan(generation);
    await subscriptions.advance([{ id: "g", generation: claim.record.generation, position: at(5, store) }], never);
    expect((await subscriptions.get("g", never)).position).toEqual(at(5, store));
  });
}

test("a copy by CREATE DATABASE ... TEMPLATE goes on with what was there, in an epoch of its own", async () => {
  const url = await freshDatabase({ migrated: true });
  const left = await leave(url);
  await (await templateCopy(await sharedCluster(), new URL(url).pathname.slice(1)))();
  await isThere(url, left);
});

test.runIf(debian15Available())("a restored dump goes on with what was there, in an epoch of its own", async () => {
  await using cluster = await createCluster({ binaries: "debian-15" });
  const url = await cluster.createDatabase();
  await migrate(url);
  const left = await leave(url);
  const script = await dumpOf(url);
  const restored = await cluster.createDatabase();
  await restoreInto(restored, script);
  await isThere(restored, left);
});

test("a database of before there were subscriptions, with events and a server's role, is brought up to date", async () => {
  const cluster = await sharedCluster();
  const url = await cluster.createDatabase();
  await createOldSchema(url, 18);
  const role = `old_${process.pid}`;
  await query(url, `create role ${role} login`);
  await query(url, `select millrace.allow('${role}', 'server')`);
  await settle(url, 3);
  await query(url, "select millrace.hold('backfill', 1)");
  await migrate(url);
  const as = new URL(url);
  as.username = role;
  await withStore(as.href, async (store) => {
    const { subscriptions } = store;
    await subscriptions.create(subscription("s", store, { position: at(2, store) }), never);
    expect(await subscriptions.claim("s", claimant("a"), never)).toMatchObject({ kind: "claimed" });
    await subscriptions.advance([{ id: "s", generation: 0, position: at(3, store) }], never);
  });
  expect(await query(as.href, "select kind, name, version::int from millrace.held_back() order by name")).toEqual([
    ["hold", "backfill", 1],
    ["subscription", "s", 3],
  ]);
});

test("whoever listens is told that anything may have become of any, once listening is possible again", async () => {
  const url = await freshDatabase({ migrated: true });
  await withStore(url, async (store) => {
    const heard: (string | undefined)[] = [];
    store.subscriptions.onChange((id) => heard.push(id));
    await query(
      url,
      "select pg_terminate_backend(pid) from pg_stat_activity where query like 'listen%' and datname = current_database()",
    );
    await vi.waitFor(() => expect(heard).toContain(undefined), 10_000);
  });
});
