import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { migrate } from "../../../src/postgres/migrate.ts";
import type { PostgresStore } from "../../../src/postgres/store.ts";
import { createCluster, type TestCluster } from "../../support/cluster.ts";
import { commit, keysOf, never, openStage } from "./stage.ts";

let cluster: TestCluster;
beforeAll(async () => {
  // Nudges come only where transactions cannot be prepared.
  cluster = await createCluster({ settings: { max_prepared_transactions: "0" } });
});
afterAll(() => cluster[Symbol.asyncDispose]());

async function stageOf(on: TestCluster = cluster) {
  const url = await on.createDatabase();
  await migrate(url);
  return openStage(url);
}

/** Runs a store as a feed does; resolves, with its keys, when it has read this many events. */
async function follow(
  store: PostgresStore,
  count: number,
  signal: AbortSignal,
): Promise<readonly (string | undefined)[]> {
  const keys: (string | undefined)[] = [];
  while (keys.length < count) {
    const page = await store.advance(keys.length, signal);
    keys.push(...keysOf(page?.events ?? []));
    if (keys.length < count) await store.wakeUp.wait(page !== undefined, signal);
  }
  return keys;
}

const seconds = (limit: number) => AbortSignal.timeout(limit * 1000);

/** A replica in another process that is asleep and holds the waiter's lock. */
async function sleepingReplica(url: string): Promise<ChildProcess & AsyncDisposable> {
  const script = fileURLToPath(new URL("./sleeping-replica.ts", import.meta.url));
  const child = spawn(process.execPath, [script, url], { stdio: ["ignore", "pipe", "inherit"] });
  if (child.stdout === null) throw new Error("the replica has no stdout");
  await once(child.stdout, "data");
  return Object.assign(child, {
    [Symbol.asyncDispose]: async () => {
      if (child.exitCode !== null || child.signalCode !== null) return;
      child.kill("SIGKILL");
      await once(child, "exit");
    },
  });
}

describe("the waiter", () => {
  test("sleeps, is woken by a writer's nudge, and by no writer while it is awake", async () => {
    await using stage = await stageOf();
    const listener = await stage.session();
    await listener.query("listen millrace_wake");
    let nudges = 0;
    listener.on("notification", () => {
      nudges += 1;
    });
    const sleeping = Promise.withResolvers<void>();
    const woken = Promise.withResolvers<void>();
    const store = await stage.store({
      directUrl: stage.url,
      signals: { onSleeping: () => sleeping.resolve(), onWoken: () => woken.resolve() },
    });
    const writer = await stage.session();
    await commit(writer, "nobody sleeps yet");
    const following = follow(store, 2, seconds(20));
    await sleeping.promise;
    expect(nudges).toBe(0);
    await commit(writer, "wake");
    await woken.promise;
    expect(await following).toEqual(["nobody sleeps yet", "wake"]);
    expect(nudges).toBe(1);
  });

  test("gives the lock back when it is awake", async () => {
    await using stage = await stageOf();
    const sleeping = Promise.withResolvers<void>();
    const store = await stage.store({ directUrl: stage.url, signals: { onSleeping: () => sleeping.resolve() } });
    const writer = await stage.session();
    const following = follow(store, 1, seconds(20));
    await sleeping.promise;
    await commit(writer, "wake");
    await following;
    const tryLock = "select pg_try_advisory_lock('millrace.outbox'::regclass::oid::int, 1) as held";
    await expect.poll(async () => (await writer.query(tryLock)).rows[0]?.held, { timeout: 5000 }).toBe(true);
  });

  test.each(["SIGKILL", "SIGSTOP"] as const)(
    "G1 after %s to the waiter an event reaches another replica within 1 s",
    async (kind) => {
      await using stage = await stageOf();
      await using waiter = await sleepingReplica(stage.url);
      const listening = Promise.withResolvers<void>();
      const store = await stage.store({ directUrl: stage.url, signals: { onListening: () => listening.resolve() } });
      await listening.promise;
      const writer = await stage.session();
      const stopping = new AbortController();
      const first = follow(store, 1, stopping.signal);
      waiter.kill(kind);
      // The requirement itself is the deadline.
      const deadline = seconds(1);
      deadline.addEventListener("abort", () => stopping.abort(deadline.reason));
      await commit(writer, "one event");
      expect(await first).toEqual(["one event"]);
    },
  );

  test("G11 a frozen process does not hold up anybody's tick", async () => {
    await using stage = await stageOf();
    await using replica = await sleepingReplica(stage.url);
    const store = await stage.store();
    const writer = await stage.session();
    for (let round = 0; round < 20; round += 1) {
      replica.kill("SIGSTOP");
      await commit(writer, `${round}`);
      const page = await store.advance(round, seconds(5));
      expect(keysOf(page?.events ?? [])).toEqual([`${round}`]);
      replica.kill("SIGCONT");
    }
  });
});

describe("notifications", () => {
  test("a tick of one replica ends the wait of another", async () => {
    await using stage = await stageOf();
    const one = await stage.store();
    const other = await stage.store({ directUrl: stage.url });
    const writer = await stage.session();
    await other.wakeUp.wait(false, never).catch(() => undefined);
    await commit(writer, "a");
    const waiting = follow(other, 1, seconds(10));
    await one.advance(0, never);
    expect(await waiting).toEqual(["a"]);
  });

  test("the wait ends by its signal, with the signal's reason", async () => {
    await using stage = await stageOf();
    const store = await stage.store();
    const stopping = new AbortController();
    const waiting = (async () => {
      for (;;) await store.wakeUp.wait(false, stopping.signal);
    })();
    stopping.abort(new Error("enough"));
    await expect(waiting).rejects.toThrow("enough");
  });

  test("LISTEN comes back by itself, and what was missed is asked for", async () => {
    await using stage = await stageOf();
    let heard = 0;
    const again = Promise.withResolvers<void>();
    const store = await stage.store({
      directUrl: stage.url,
      signals: {
        onListening: () => {
          heard += 1;
          if (heard === 2) again.resolve();
        },
      },
    });
    const admin = await stage.session();
    await admin.query(
      "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and query like '%listen%' and pid <> pg_backend_pid()",
    );
    await commit(admin, "meanwhile");
    await again.promise;
    expect(await follow(store, 1, seconds(5))).toEqual(["meanwhile"]);
  });
});

test("a writer's transaction can be prepared, and is not nudged for, where that is allowed", async () => {
  await using preparing = await createCluster();
  await using stage = await stageOf(preparing);
  const holder = await stage.session();
  await holder.query("select pg_advisory_lock('millrace.outbox'::regclass::oid::int, 1)");
  const writer = await stage.session();
  await writer.query("begin");
  await writer.query("insert into millrace.outbox (topic, operation) values ('t', 'M')");
  await writer.query("prepare transaction 'nudge'");
  await writer.query("commit prepared 'nudge'");
  const store = await stage.store();
  expect((await store.advance(0, never))?.events).toHaveLength(1);
});
