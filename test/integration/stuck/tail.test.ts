import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { sendSignal } from "../../../src/embedded/processes.ts";
import type { PostgresStore } from "../../../src/postgres/store.ts";
import { why } from "../../../src/postgres/why.ts";
import { createCluster, type TestCluster } from "../../support/cluster.ts";
import { inFrontOf } from "../../unit/core/memory-feed.ts";
import { PATIENCE, Stage } from "./stage.ts";

let cluster: TestCluster;
beforeAll(async () => {
  // Nudges come only where transactions cannot be prepared.
  cluster = await createCluster({ settings: { max_prepared_transactions: "0" } });
});
afterAll(() => cluster[Symbol.asyncDispose]());

const tailSessions =
  "select pid from pg_stat_activity where datname = current_database() and application_name like 'millrace tail %'";

describe("a tail", () => {
  test("G1 G3 whose network swallows everything is named and restarted, and its streams go on", async () => {
    await using stage = await Stage.open(cluster);
    const writer = await stage.session();
    const { feed, said, restarted, watch } = await stage.feed();
    const follower = stage.follow(feed);
    await stage.commit(writer, "before");
    await follower.has(1);
    const [{ pid } = { pid: 0 }] = (await writer.query<{ pid: number }>(tailSessions)).rows;
    expect(stage.proxy.freeze("millrace tail")).toBe(1);
    await stage.commit(writer, "while", "nobody", "hears");
    await restarted("tail");
    await follower.has(4);
    await stage.commit(writer, "after");
    await follower.has(5);
    expect(follower.isExactlyUpTo(5)).toBe(true);
    expect(follower.keys).toEqual(["before", "while", "nobody", "hears", "after"]);
    expect(said.find((one) => one.startsWith("The tail is stuck"))).toMatch(
      new RegExp(
        `waited .* s to settle and read what has committed \\(pid ${pid}\\) without a sign of life; seen from another connection, session ${pid} has nothing to do`,
      ),
    );
    expect(said).toContain("The tail works again.");
    await vi.waitUntil(() => watch.problems().length === 0, PATIENCE);
    // The session that nobody reads from any more holds nothing for longer than that.
    await vi.waitUntil(async () => !(await writer.query(tailSessions)).rows.some((row) => row.pid === pid), PATIENCE);
  });

  test("G1 G3 whose backend is frozen is restarted once a tick may not take longer, and its streams say STALE meanwhile", async () => {
    await using stage = await Stage.open(cluster);
    const writer = await stage.session();
    const other = await stage.session();
    const { feed, said, restarted } = await stage.feed({ feed: { staleAfterMs: 500 } });
    const follower = stage.follow(feed);
    await stage.commit(writer, "before");
    await follower.has(1);
    // In the middle of a statement: to everybody who asks, it executes.
    await other.query("begin; lock table millrace.tick in access exclusive mode");
    const waits = "select pid from pg_locks where not granted and relation = 'millrace.tick'::regclass";
    await vi.waitUntil(async () => ((await writer.query(waits)).rowCount ?? 0) > 0, PATIENCE);
    const [{ pid } = { pid: 0 }] = (await writer.query<{ pid: number }>(waits)).rows;
    sendSignal(pid, "SIGSTOP");
    try {
      await other.query("commit");
      await stage.commit(writer, "while it is frozen");
      await follower.says("STALE");
      await restarted("tail");
    } finally {
      sendSignal(pid, "SIGCONT");
    }
    await follower.has(2);
    await stage.commit(writer, "after");
    await follower.has(3);
    expect(follower.isExactlyUpTo(3)).toBe(true);
    const told = said.find((one) => one.startsWith("The tail is stuck"));
    expect(told).toContain(`(pid ${pid}) without a sign of life. It was broken off`);
  });

  test("that waits for its turn to tick is slow and not stuck", async () => {
    await using stage = await Stage.open(cluster);
    const writer = await stage.session();
    const other = await stage.session();
    const { feed, restarts, watch } = await stage.feed({ store: { tickTimeoutMs: 30_000 } });
    const follower = stage.follow(feed);
    await other.query("begin; lock table millrace.tick in access exclusive mode");
    await stage.commit(writer, "held up");
    const waits = "select from pg_locks where not granted and relation = 'millrace.tick'::regclass";
    await vi.waitUntil(async () => ((await writer.query(waits)).rowCount ?? 0) > 0, PATIENCE);
    // Several times as long as the watchdog is patient.
    const since = performance.now();
    await vi.waitUntil(() => performance.now() - since > 3_000, PATIENCE);
    expect(watch.problems().filter(({ code }) => code === "TAIL_STUCK")).toEqual([]);
    await other.query("commit");
    await follower.has(1);
    expect(restarts).not.toContain("tail");
  });

  test("G1 whose answer goes astray in this process is noticed by another look at the database", async () => {
    await using stage = await Stage.open(cluster);
    const writer = await stage.session();
    let astray = 0;
    const over = (store: PostgresStore) => ({
      store: inFrontOf(store, {
        advance: (after, signal) => {
          if (astray !== 1) return store.advance(after, signal);
          astray = 2;
          return new Promise(() => undefined);
        },
      }),
    });
    const one = await stage.feed({ over });
    const other = await stage.feed();
    const follower = stage.follow(one.feed);
    await stage.commit(writer, "before");
    await follower.has(1);
    astray = 1;
    await vi.waitUntil(() => astray === 2, PATIENCE);
    // Another server settles it: the database is ahead of the first.
    await stage.commit(writer, "after");
    await vi.waitUntil(() => other.feed.status().head === 2, PATIENCE);
    await follower.has(2);
    expect(follower.isExactlyUpTo(2)).toBe(true);
    expect(one.restarts).toEqual(["tail"]);
    expect(one.said.join()).toContain("the database stands at version 2 and the feed at 1");
    expect(other.restarts).toEqual([]);
  });

  test("G1 that is never woken goes on by itself", async () => {
    await using stage = await Stage.open(cluster);
    const writer = await stage.session();
    let wakes: "as ever" | "never again" | "asked in vain" = "as ever";
    const over = ({ wakeUp }: PostgresStore) => ({
      wakeUp: {
        nudge: () => wakeUp.nudge(),
        wait: (found: boolean, signal: AbortSignal) => {
          if (wakes !== "never again") return wakeUp.wait(found, signal);
          wakes = "asked in vain";
          return new Promise<void>(() => undefined);
        },
      },
    });
    const { feed, restarted } = await stage.feed({ over });
    const follower = stage.follow(feed);
    await stage.commit(writer, "before");
    await follower.has(1);
    wakes = "never again";
    await vi.waitUntil(() => wakes === "asked in vain", PATIENCE);
    await stage.commit(writer, "after");
    await restarted("wake-up");
    await follower.has(2);
    expect(follower.isExactlyUpTo(2)).toBe(true);
  });

  test("no restart of which helps is given up for a new feed, if other connections are answered", async () => {
    await using stage = await Stage.open(cluster);
    const { feed, hopeless, restarts } = await stage.feed({ feed: { staleAfterMs: 100 } });
    stage.proxy.freezeAllNext("millrace tail");
    expect(stage.proxy.freeze("millrace tail")).toBe(1);
    await vi.waitUntil(() => hopeless.length > 0, PATIENCE);
    expect(hopeless.map(({ code }) => code)).toEqual(["DATABASE_UNAVAILABLE"]);
    expect(restarts.filter((part) => part === "tail").length).toBeGreaterThanOrEqual(3);
    expect(feed.status().state).toBe("STALE");
  });

  test("G1 of a database that answers nobody waits for it, with its streams", async () => {
    await using stage = await Stage.open(cluster);
    const writer = await stage.session();
    const { feed, hopeless, said } = await stage.feed({ feed: { staleAfterMs: 500 } });
    const follower = stage.follow(feed);
    await stage.commit(writer, "before");
    await follower.has(1);
    stage.proxy.freezeAllNext("millrace");
    stage.proxy.freeze("millrace");
    await stage.commit(writer, "while nobody is answered");
    await follower.says("STALE");
    await vi.waitUntil(() => said.some((one) => one.startsWith("The tail is stuck")), PATIENCE);
    stage.proxy.thaw();
    await follower.has(2);
    expect(follower.isExactlyUpTo(2)).toBe(true);
    expect(hopeless).toEqual([]);
  });

  test("G10 that has never been answered is not live", async () => {
    await using stage = await Stage.open(cluster);
    stage.proxy.freezeNext("millrace tail", 0, 1);
    const { feed } = await stage.feed({ watch: { stuckAfterMs: 60_000 }, feed: { staleAfterMs: 100 } });
    expect(feed.status().state).toBe("STALE");
    await vi.waitUntil(() => feed.status().state === "LIVE", PATIENCE);
  });

  test("is named by why, from outside, while it stands still, and so is the waiter", async () => {
    await using stage = await Stage.open(cluster);
    await stage.feed({
      watch: { stuckAfterMs: 600_000, waiterSilentMs: 600_000 },
      store: { pingMs: 600_000 },
    });
    const { named } = asking(stage);
    expect(await named("TAIL_STUCK")).toBeUndefined();
    expect(stage.proxy.freeze("millrace tail")).toBe(1);
    expect(stage.proxy.freeze("millrace waiter")).toBe(1);
    await vi.waitUntil(() => named("TAIL_STUCK"), PATIENCE);
    expect(await named("TAIL_STUCK")).toMatchObject({ severity: "error", message: expect.stringMatching(/pid \d+/) });
    await vi.waitUntil(() => named("WAITER_STUCK"), PATIENCE);
    expect(await named("WAITER_STUCK")).toMatchObject({
      severity: "warning",
      message: expect.stringMatching(/pid \d+/),
    });
  });

  test("and whatever else was restarted is named by why afterwards", async () => {
    await using stage = await Stage.open(cluster);
    const { restarted } = await stage.feed();
    const { named } = asking(stage);
    stage.proxy.freeze("millrace tail");
    await restarted("tail");
    const message = expect.stringMatching(/once within the hour.*The tail waited .* s to settle and read/);
    await vi.waitUntil(() => named("TAIL_STUCK"), PATIENCE);
    expect(await named("TAIL_STUCK")).toMatchObject({ severity: "warning", message });
  });
});

/** Looks from outside. */
function asking(stage: Stage) {
  const pool = stage.pool();
  return {
    named: async (code: string) => {
      const { findings } = await why(pool, { silentMs: 300, graceMs: 50 });
      return findings.find((finding) => finding.code === code);
    },
  };
}
