import type pg from "pg";
import { describe, expect, test } from "vitest";
import { FeedError } from "../../../src/core/errors.ts";
import type { Event } from "../../../src/core/event.ts";
import { pageEnd } from "../../../src/core/page.ts";
import { createPool } from "../../../src/postgres/database.ts";
import { withLease } from "../../../src/postgres/lease.ts";
import { migrate } from "../../../src/postgres/migrate.ts";
import { defaultPageLimits, PageReader } from "../../../src/postgres/page.ts";
import type { Upkeep } from "../../../src/postgres/retention/upkeep.ts";
import type { PostgresStore } from "../../../src/postgres/store.ts";
import { createCluster } from "../../support/cluster.ts";
import { commit, never, readAll, tick } from "../ordering/stage.ts";
import { keepNothing, openRetentionStage, type RetentionStage } from "./stage.ts";

/** Writes events, each with a number of its own as its key, until told to stop. Every commit of it is in order. */
function writing(stage: RetentionStage, sessions: number) {
  let going = true;
  let committed = 0;
  const work = Promise.all(
    Array.from({ length: sessions }, async (_, lane) => {
      const session = await stage.session();
      for (let n = 0; going; n += 1) {
        await commit(session, `${lane}:${n}`, `${lane}:${n}b`);
        committed += 2;
        if (n % 3 === 0) await tick(session);
      }
    }),
  );
  return {
    get committed() {
      return committed;
    },
    stop: async () => {
      going = false;
      await work;
    },
  };
}

/** What was delivered, by version: told by whoever read it first, and held to by everybody else. */
class Truth {
  readonly #keys = new Map<number, string>();

  hold(events: readonly Event[], from: number): void {
    events.forEach((event, index) => {
      expect(event.version).toBe(from + index);
      const known = this.#keys.get(event.version);
      if (known === undefined) this.#keys.set(event.version, event.key ?? "");
      else expect(event.key).toBe(known);
    });
  }

  get size(): number {
    return this.#keys.size;
  }
}

/** Reads from the oldest version on, again whenever that is lost, until told to stop. Any other failure fails it. */
async function readOn(
  store: PostgresStore,
  truth: Truth,
  going: () => boolean,
): Promise<{ pages: number; lost: number }> {
  const counted = { pages: 0, lost: 0 };
  let after = 0;
  while (going()) {
    try {
      const page = await store.readAfter(after, never);
      counted.pages += 1;
      if (page === undefined) after = Math.max(0, after - 200);
      else {
        truth.hold(page.events, after + 1);
        after = pageEnd(page);
      }
    } catch (error) {
      if (!(error instanceof FeedError) || error.code !== "HISTORY_LOST") throw error;
      counted.lost += 1;
      expect(error.detail.oldestVersion).toBeGreaterThan(after + 1);
      after = (await store.bounds(never)).oldest - 1;
    }
  }
  return counted;
}

describe("partitions go while they are read", () => {
  test("G1 G8 G10 readers of history see whole pages or HISTORY_LOST, never a hole and never another error", async () => {
    await using stage = await openRetentionStage();
    // Narrow ones, so that many go in little time.
    await stage.sql("select setval('millrace.outbox_seq', 10000000)");
    await stage.sql(`do $$ begin
      execute format('set local role %I', (select nspowner::regrole from pg_namespace where nspname = 'millrace'));
      perform millrace.create_partition(n, n + 500) from generate_series(10000001::bigint, 10049501, 500) n;
    end $$`);
    await keepNothing(stage.admin);
    const truth = new Truth();
    const writers = writing(stage, 3);
    let going = true;
    const stores = await Promise.all(
      [1, 30, 1000].map((maxRows) => stage.store({ pages: { maxRows }, historyConnections: 2 })),
    );
    const readers = stores.map((store) => readOn(store, truth, () => going));
    const tails = stores.slice(0, 1).map(async (store) => {
      let lost = 0;
      let after = (await store.bounds(never)).head;
      while (going) {
        try {
          const page = await store.advance(after, never);
          if (page === undefined) continue;
          truth.hold(page.events, after + 1);
          after = pageEnd(page);
        } catch (error) {
          if (!(error instanceof FeedError) || error.code !== "HISTORY_LOST") throw error;
          lost += 1;
          after = (await store.bounds(never)).oldest - 1;
          // What was shown is gone, and nothing can be said of it: a feed opens its store anew.
          break;
        }
      }
      return lost;
    });
    const lookers = stores.slice(1, 2).map(async (store) => {
      while (going) {
        const { oldest, head } = await store.bounds(never);
        expect(oldest).toBeLessThanOrEqual(head + 1);
        const position = Math.max(1, Math.floor((oldest + head) / 2));
        const found = await store.tickOf(position, never);
        if (found !== undefined) {
          expect(found.firstVersion).toBeLessThanOrEqual(position);
          expect(found.firstVersion + found.count).toBeGreaterThan(position);
        }
        const at = await store.tickAt(found?.timeMicros ?? 0, never);
        if (at !== undefined && found !== undefined) expect(at.timeMicros).toBeLessThanOrEqual(found.timeMicros);
      }
    });
    const everybody = Promise.all([...readers, ...tails, ...lookers]);
    everybody.catch(() => {
      going = false;
    });
    let dropped = 0;
    for (let round = 0; round < 25 && going; round += 1) {
      const enough = writers.committed + 60;
      await expect.poll(() => writers.committed >= enough || !going, { interval: 2, timeout: 20_000 }).toBe(true);
      dropped += (await stage.keep()).dropped.length;
    }
    going = false;
    await writers.stop();
    const counts = (await Promise.all(readers)).filter((count) => count !== undefined);
    await everybody;
    expect(dropped).toBeGreaterThan(15);
    expect(counts.reduce((sum, { lost }) => sum + lost, 0)).toBeGreaterThan(15);
    expect(truth.size).toBeGreaterThan(1000);
  }, 120_000);

  test("G8 a page that has found its ticks keeps their rows: the drop waits for it", async () => {
    await using stage = await openRetentionStage();
    await stage.settle("a", "b");
    await stage.age("8 days");
    await stage.nextPartition();
    await stage.settle("c");
    const [row] = await stage.sql<{ epoch: string }>("select millrace.assert_epoch() as epoch");
    const pages = new PageReader(row?.epoch ?? "", defaultPageLimits);
    const pool = createPool({ url: stage.url, max: 1, idleMs: 1000 });
    const rounds: Upkeep[] = [];
    const page = await withLease(pool, never, async (lease) => {
      const query = lease.client.query.bind(lease.client);
      // Between the message that finds the ticks and the one that reads their rows.
      const interrupted = async (text: string) => {
        const result: unknown = await query(text);
        rounds.push(await stage.keep());
        return result;
      };
      Object.assign(lease.client, {
        query: (first: unknown) => (typeof first === "string" ? interrupted(first) : query(first as pg.Submittable)),
      });
      try {
        return await pages.read(lease, 0, false);
      } finally {
        Object.assign(lease.client, { query });
      }
    });
    await pool.end();
    expect(page).toMatchObject({ firstVersion: 1, events: [{ key: "a" }, { key: "b" }, { key: "c" }] });
    expect(rounds).toEqual([
      expect.objectContaining({ forgotten: 2, dropped: [], waitsFor: expect.stringContaining("outbox_1") }),
    ]);
    expect((await stage.keep()).dropped).toEqual(["outbox_1"]);
  });
});

test("G1 kill -9 of Postgres again and again while history is forgotten: what is left is whole", async () => {
  await using cluster = await createCluster({ settings: { fsync: "on" } });
  const url = await cluster.createDatabase();
  await migrate(url);
  let last = 0;
  for (let crash = 0; crash < 4; crash += 1) {
    const stage = await openRetentionStage(url);
    if (crash === 0) await keepNothing(stage.admin);
    const failed: unknown[] = [];
    for (let round = 0; round < 4; round += 1) {
      await stage.settle(...Array.from({ length: 10 }, (_, index) => `${crash}.${round}.${index}`));
      last += 10;
      await stage.nextPartition();
      const keeping = stage.keep().catch((error: unknown) => failed.push(error));
      if (round === 3) {
        await expect
          .poll(async () => (await stage.sql("select first_tick from millrace.retention").catch(() => [])).length)
          .toBeGreaterThanOrEqual(0);
        await cluster.kill9();
      }
      await keeping;
    }
    await Promise.resolve(stage[Symbol.asyncDispose]()).catch(() => undefined);
    await cluster.start();
    await using after = await openRetentionStage(url);
    await after.settle("after");
    last += 1;
    const store = await after.store();
    const { oldest, head } = await store.bounds(never);
    expect(head).toBe(last);
    expect((await readAll(store, oldest - 1)).length).toBe(head - oldest + 1);
    if (oldest > 1) await expect(store.readAfter(oldest - 2, never)).rejects.toMatchObject({ code: "HISTORY_LOST" });
  }
});
