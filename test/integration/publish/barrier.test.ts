import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { waitForTransaction } from "../../../src/postgres/barrier.ts";
import { publish } from "../../../src/postgres/publish.ts";
import { until } from "../../support/deadline.ts";
import { createFeedDatabase, type FeedDatabase, forever } from "../snapshot/feed-database.ts";

let database: FeedDatabase;

beforeAll(async () => {
  database = await createFeedDatabase();
});

afterAll(() => database[Symbol.asyncDispose]());

const wait = (xid: string) => waitForTransaction(database.pool, database.epoch, xid, forever);

async function head(): Promise<number> {
  const [row] = await database.sql<{ head: number }>(
    "select (first_version + count - 1)::int as head from millrace.tick order by tick desc limit 1",
  );
  return row?.head ?? -1;
}

/** A session in the middle of a transaction that has an id, and perhaps wrote an event. */
async function open(writes: boolean) {
  const session = await database.session();
  await session.query("begin");
  if (writes) await session.query("select millrace.emit('a')");
  const [row] = (await session.query<{ xid: string }>("select pg_current_xact_id()::text as xid")).rows;
  return { session, xid: row?.xid ?? "" };
}

/** Whether it has resolved after the barrier has asked the database again and again. */
async function watchOf(promise: Promise<number>): Promise<() => boolean> {
  let done = false;
  promise.then(
    () => {
      done = true;
    },
    () => undefined,
  );
  // Others come and go meanwhile: each makes the shared waiter ask about all.
  for (let round = 0; round < 5; round += 1) {
    const { session, xid } = await open(true);
    await session.query("commit");
    await wait(xid);
  }
  return () => done;
}

describe("barrier", () => {
  it("settles a committed transaction, although nobody else ticks", async () => {
    const request = {
      events: Array(3).fill({ topic: "a", key: undefined, operation: "MESSAGE", payload: "1", headers: {} }),
    };
    const { xid } = await publish(
      database.pool,
      database.epoch,
      { ...request, idempotencyKey: "", principal: "" },
      forever,
    );
    const before = await head();
    expect(await wait(xid)).toBe(before + 3);
    expect(await head()).toBe(before + 3);
  });

  it.each([
    ["that wrote events and committed", true, "commit", 1],
    ["that wrote no event and committed", false, "commit", 0],
    ["that wrote events and rolled back", true, "rollback", 0],
  ] as const)("waits for a transaction %s", async (_, writes, end, settled) => {
    const { session, xid } = await open(writes);
    const before = await head();
    const waiting = wait(xid);
    const done = await watchOf(waiting);
    expect(done()).toBe(false);
    await session.query(end);
    // Five of the watch's own.
    expect(await waiting).toBe(before + 5 + settled);
  });

  it("waits for a prepared transaction until it is over", async () => {
    const { session, xid } = await open(true);
    await session.query("prepare transaction 'undecided'");
    const waiting = wait(xid);
    const done = await watchOf(waiting);
    expect(done()).toBe(false);
    const before = await head();
    await database.sql("commit prepared 'undecided'");
    expect(await waiting).toBe(before + 1);
  });

  it("answers for a transaction of long ago without a tick", async () => {
    const { session, xid } = await open(true);
    await session.query("commit");
    await wait(xid);
    const ticks = "select count(*) from millrace.tick";
    const before = await database.sql(ticks);
    expect(await wait(xid)).toBe(await head());
    expect(await wait("3")).toBe(await head());
    expect(await database.sql(ticks)).toEqual(before);
  });

  it.each(["999999999999", "18446744073709551615", "99999999999999999999", "1e3", "-1", ""])(
    "refuses %j, which has not begun",
    async (xid) => {
      await expect(wait(xid)).rejects.toMatchObject({
        code: "INVALID_REQUEST",
        detail: { violations: [{ field: "after_transaction" }] },
      });
    },
  );

  it("does not refuse one in progress that is younger than every transaction that has ended", async () => {
    const { session, xid } = await open(true);
    const [row] = await database.sql<{ beyond: boolean }>(
      "select $1::xid8 >= pg_snapshot_xmax(pg_current_snapshot()) as beyond",
      [xid],
    );
    expect(row?.beyond).toBe(true);
    const waiting = wait(xid);
    await session.query("commit");
    expect(await waiting).toBe(await head());
  });

  it("asks for a thousand at the price of one", async () => {
    const { session, xid } = await open(true);
    const aborts = new AbortController();
    const waiting = Array.from({ length: 1000 }, () =>
      waitForTransaction(database.pool, database.epoch, xid, aborts.signal),
    );
    const busy = async () => {
      const [row] = await database.sql<{ count: number }>(
        "select count(*)::int from pg_stat_activity where datname = current_database() and query like '%pg_visible_in_snapshot(x, %' and state = 'active' and pid <> pg_backend_pid()",
      );
      return row?.count ?? 0;
    };
    await watchOf(Promise.any(waiting));
    for (let look = 0; look < 20; look += 1) expect(await busy()).toBeLessThanOrEqual(1);
    await session.query("commit");
    expect(new Set(await Promise.all(waiting))).toEqual(new Set([await head()]));
  });

  it("rejects with the signal's reason, and leaves the others waiting", async () => {
    const { session, xid } = await open(false);
    const abort = new AbortController();
    const other = wait(xid);
    const aborted = expect(waitForTransaction(database.pool, database.epoch, xid, abort.signal)).rejects.toThrow(
      "enough",
    );
    await watchOf(other);
    abort.abort(new Error("enough"));
    await aborted;
    await session.query("commit");
    expect(await other).toBe(await head());
  });

  it("settles while somebody else holds the tick lock for longer than a tick may wait", async () => {
    const ticker = await database.session();
    await ticker.query("begin; lock table millrace.tick_lock in share row exclusive mode");
    const { session, xid } = await open(true);
    await session.query("commit");
    const waiting = wait(xid);
    let gaveUp = 0;
    // It waits, gives up, and waits again: two different transactions of one session or two sessions.
    const seen = new Set<string>();
    await until("a tick has been tried twice", async () => {
      for (const { virtualtransaction } of await database.sql<{ virtualtransaction: string }>(
        "select virtualtransaction from pg_locks where relation = 'millrace.tick_lock'::regclass and not granted",
      )) {
        seen.add(virtualtransaction);
      }
      gaveUp = seen.size - 1;
      return gaveUp >= 1;
    });
    await ticker.query("rollback");
    expect(await waiting).toBe(await head());
  });
});
