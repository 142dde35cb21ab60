import { expect, test } from "vitest";
import { systemClock, systemTimers } from "../../../src/core/clock.ts";
import type { Version } from "../../../src/core/event.ts";
import { createHistoryReaders } from "../../../src/core/history/history-readers.ts";
import { warmLog } from "../../../src/core/log/log-warming.ts";
import { pageEnd } from "../../../src/core/page.ts";
import { commit, never, openStage, readAll, type Stage, takeXid, tick } from "../ordering/stage.ts";

/** Ticks of about ten events, among which transactions commit late. */
async function fill(stage: Stage, ticks: number): Promise<void> {
  const session = await stage.session();
  const late = await stage.session();
  for (let round = 0; round < ticks; round += 1) {
    if (round % 5 === 0) {
      await late.query("begin");
      await takeXid(late);
    }
    const insert = `insert into millrace.outbox (topic, key, operation, after)
      select 't', $1 || ' ' || i, 'M', to_json(repeat('x', 50)) from generate_series(1, 5) i`;
    await late.query(insert, [`late ${round}`]);
    await session.query(insert, [`${round}`]);
    if (round % 5 === 4) await late.query("commit");
    await tick(session);
  }
}

test("G3 G9 hundreds of readers of one table each get all of it, for a few pages", async () => {
  await using stage = await openStage();
  await fill(stage, 300);
  const store = await stage.store({ historyConnections: 2, pages: { maxRows: 400 } });
  const expected = await readAll(store);
  const readers = createHistoryReaders(store, { maxReads: 2 });
  const follow = async (start: Version) => {
    const reader = {};
    const keys: (string | undefined)[] = [];
    for (let at = start; at < expected.length; ) {
      const page = await readers.readAfter(at, reader, never);
      if (page === undefined || page.firstVersion > at + 1 || pageEnd(page) <= at) throw new Error(`stands at ${at}`);
      keys.push(...page.events.slice(at + 1 - page.firstVersion).map(({ key }) => key));
      at = pageEnd(page);
    }
    return { start, keys };
  };
  const starts = Array.from({ length: 600 }, (_, i) => (i * 7_919) % expected.length);
  for (const { start, keys } of await Promise.all(starts.map(follow))) {
    expect(keys, `from ${start}`).toEqual(expected.slice(start).map(({ key }) => key));
  }
  const { reads, shared, errors, waiting } = readers.stats();
  expect([errors, waiting]).toEqual([0, 0]);
  // At worst a page begins half a page before its first reader, and is cut to whole ticks.
  expect(reads).toBeLessThanOrEqual(4 * Math.ceil(expected.length / 400) + 8);
  expect(shared).toBeGreaterThan(starts.length);
  readers.stop();
});

test("G1 G3 a log that begins warm holds the newest of the table, also what is settled meanwhile", async () => {
  await using stage = await openStage();
  await fill(stage, 120);
  const store = await stage.store({ pages: { maxRows: 100 } });
  const bounds = await store.bounds(never);
  const session = await stage.session();
  let reads = 0;
  const log = await warmLog({
    store: {
      readAfter: async (after, signal) => {
        reads += 1;
        if (reads === 3) {
          await commit(session, "meanwhile 1", "meanwhile 2");
          await tick(session);
        }
        return await store.readAfter(after, signal);
      },
      tickOf: (version, signal) => store.tickOf(version, signal),
    },
    bounds,
    logMaxBytes: 10_000_000,
    warmBytes: 150_000,
    warmMs: 60_000,
    clock: systemClock,
    timers: systemTimers,
    report: () => undefined,
    signal: never,
  });
  const all = await readAll(store);
  expect(log.head).toBe(all.length);
  expect(log.head).toBe(bounds.head + 2);
  expect(log.events).toBeGreaterThan(100);
  expect(log.oldest).toBeGreaterThan(1);
  for (let at = log.oldest - 1; at < log.head; ) {
    const page = log.read(at) ?? expect.unreachable();
    const events = page.events.slice(at + 1 - page.firstVersion);
    expect(events.map(({ key }) => key)).toEqual(all.slice(at, at + events.length).map(({ key }) => key));
    at += events.length;
  }
  expect(log.tickOf(log.oldest - 1)).toEqual(await store.tickOf(log.oldest - 1, never));
});
