import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { FeedError } from "../../../src/core/errors.ts";
import { createHistoryReaders, type HistoryReadersOptions } from "../../../src/core/history/history-readers.ts";
import { EpochOver } from "../../../src/core/lineage.ts";
import { pageEnd } from "../../../src/core/page.ts";
import { SlowTable, seeded } from "./history-readers-simulation.ts";
import { ManualTime } from "./manual-time.ts";

const never = new AbortController().signal;
const AWAY = new FeedError("DATABASE_UNAVAILABLE", "The database is away.", "Wait.");

function setUp(options: HistoryReadersOptions & { readonly versions?: number; readonly pageEvents?: number } = {}) {
  const time = new ManualTime();
  const { versions = 1_000, pageEvents = 1_000 } = options;
  const table = new SlowTable(versions, 10, () => pageEvents);
  const readers = createHistoryReaders(table, { clock: time, timers: time, ...options });
  /** What each asks for as somebody of its own; answers, or what they failed with, in the order in which they came. */
  const came: { readonly after: number; readonly what: unknown }[] = [];
  const ask = (after: number, reader: object = {}, signal = never) =>
    readers.readAfter(after, reader, signal).then(
      (page) => came.push({ after, what: page }),
      (error: unknown) => came.push({ after, what: error }),
    );
  return { time, table, readers, came, ask };
}

describe("sharing", () => {
  test("one read serves all whose versions lie in its page, with the very same page", async () => {
    const { time, table, readers, came, ask } = setUp({ maxReads: 2 });
    for (const after of [700, 0, 999, 512, 700]) {
      void ask(after);
    }
    expect(table.starts).toEqual([512, 0]);
    table.answer(1);
    await time.turn();
    expect(came.map(({ after }) => after).sort()).toEqual([0, 512, 700, 999]);
    expect(new Set(came.map(({ what }) => what)).size).toBe(1);
    table.answer(0);
    await time.turn();
    expect(came[4]).toMatchObject({ after: 700, what: { firstVersion: 513 } });
    expect(readers.stats()).toMatchObject({ waiting: 0, errors: 0 });
  });

  test("a page stays for those who come a little later, and not for longer", async () => {
    const { time, table, readers, ask, came } = setUp({ cacheMaxIdleMs: 1_000 });
    void ask(3);
    table.answer(0);
    await time.pass(600);
    await ask(900);
    expect(came[0]?.what).toBe(came[1]?.what);
    await time.pass(900);
    await ask(5);
    expect([table.starts.length, readers.stats().shared]).toEqual([1, 2]);
    await time.pass(1_001);
    expect(readers.stats().cachedBytes).toBe(0);
    expect(time.pending).toBe(0);
    void ask(5);
    expect(table.starts.length).toBe(2);
    readers.stop();
  });

  test("what is kept for others stays within its bytes, the least recently used leaving first", async () => {
    const { time, table, readers, ask } = setUp({ pageEvents: 10, cacheMaxBytes: 5_000 });
    for (const after of [0, 500, 0, 900]) {
      void ask(after);
      table.answer(0);
      await time.turn();
      table.answer(0);
      await time.turn();
      expect(readers.stats().cachedBytes).toBeLessThanOrEqual(5_000);
    }
    const reads = table.starts.length;
    await ask(5);
    expect(table.starts.length).toBe(reads);
    void ask(500);
    expect(table.starts.length).toBe(reads + 1);
    readers.stop();
  });

  test("a page that is too short for a rider is read on for it", async () => {
    const { time, table, ask, came } = setUp({ maxReads: 1, pageEvents: 100 });
    void ask(0);
    void ask(150);
    expect(table.starts).toEqual([0]);
    table.answer(0);
    await time.turn();
    expect([came.length, table.starts.at(-1)]).toEqual([1, 100]);
    table.answer(0);
    await time.turn();
    expect(came[1]).toMatchObject({ after: 150, what: { firstVersion: 101 } });
  });

  test("nobody is told of another's head, and everybody of their own", async () => {
    const { time, table, ask, came } = setUp({ versions: 700 });
    void ask(700);
    void ask(699);
    table.answer(0);
    await time.turn();
    expect(came).toMatchObject([{ after: 699, what: { firstVersion: 513 } }]);
    table.answer(0);
    await time.turn();
    expect(came[1]).toEqual({ after: 700, what: undefined });
  });

  test("answers come in turns of the event loop, not all at once", async () => {
    const { time, table, ask, came } = setUp();
    for (let i = 0; i < 100; i++) {
      void ask(i);
    }
    table.answer(0);
    await time.turn();
    expect(came.length).toBeGreaterThan(0);
    expect(came.length).toBeLessThan(100);
    for (let i = 0; i < 10; i++) {
      await time.turn();
    }
    expect(came.length).toBe(100);
  });
});

describe("fairness", () => {
  const STRIDE = 5_000;

  /**
   * One reader with many requests and others with one each, all far apart; answers how often at most a single other
   * reader was read for while somebody waited.
   */
  async function mostTurnsOfAnother(seed: number, identity: (reader: object) => object): Promise<number> {
    const chance = seeded(seed);
    const { time, table, readers } = setUp({ maxReads: 1, versions: 60 * STRIDE, pageEvents: 8, cacheMaxBytes: 0 });
    const greedy = {};
    const asked = new Map<number, { readonly reader: object; readonly since: number }>();
    const places = Array.from({ length: 60 }, (_, i) => i * STRIDE + 1_000).sort(() => chance(3) - 1);
    let worst = 0;
    const served: object[] = [];
    const ask = (after: number, reader: object) => {
      asked.set(Math.floor(after / STRIDE), { reader, since: served.length });
      readers.readAfter(after, identity(reader), never).then(undefined, () => undefined);
    };
    for (const after of places.splice(0, 30)) {
      ask(after, greedy);
    }
    for (let turns = 0; turns < 400 && served.length < 60; turns++) {
      const after = places.at(-1);
      if (after !== undefined && chance(2) === 0) {
        places.pop();
        ask(after, {});
      }
      const start = table.pending[0]?.after;
      if (start === undefined) {
        continue;
      }
      const turn = asked.get(Math.floor(start / STRIDE));
      if (turn !== undefined) {
        asked.delete(Math.floor(start / STRIDE));
        const others = served.slice(turn.since).filter((reader) => reader !== turn.reader);
        worst = Math.max(worst, ...others.map((other) => others.filter((each) => each === other).length));
        served.push(turn.reader);
      }
      table.answer(0);
      await time.turn();
    }
    expect(served.length).toBe(60);
    readers.stop();
    return worst;
  }

  test("G9 nobody waits for more than a turn of each other reader, and the one that was under way", async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer(), async (seed) => {
        expect(await mostTurnsOfAnother(seed, (reader) => reader)).toBeLessThanOrEqual(2);
      }),
      { numRuns: 30 },
    );
  });

  test("and the measure objects to requests that are served in the order in which they came", async () => {
    const everybody = {};
    expect(await mostTurnsOfAnother(1, () => everybody)).toBeGreaterThan(2);
  });

  test("no more reads at once than there may be, however many wait", async () => {
    const { time, table, readers, ask } = setUp({ maxReads: 3, versions: 50_000, pageEvents: 10 });
    for (let i = 0; i < 40; i++) {
      void ask(i * 1_200);
    }
    for (let i = 0; table.pending.length > 0; i++) {
      expect(table.pending.length).toBeLessThanOrEqual(3);
      expect(readers.stats().reading).toBe(table.pending.length);
      table.answer(i % table.pending.length);
      await time.turn();
    }
    expect(readers.stats().waiting).toBe(0);
  });
});

describe("those who are gone", () => {
  test("an abort is answered at once and leaves nothing in the queue", async () => {
    const { time, table, readers, ask, came } = setUp({ maxReads: 1, versions: 50_000, pageEvents: 10 });
    const gone = new AbortController();
    void ask(0);
    void ask(30_000, {}, gone.signal);
    void ask(5, {}, gone.signal);
    expect(readers.stats().waiting).toBe(2);
    gone.abort(new Error("gone"));
    expect(readers.stats().waiting).toBe(0);
    await time.turn();
    expect(came.map(({ after }) => after)).toEqual([30_000, 5]);
    table.answer(0);
    await time.turn();
    expect(table.pending).toEqual([]);
    expect(table.starts).toEqual([0]);
    await ask(0, {}, gone.signal);
    expect(came.at(-1)?.what).toEqual(new Error("gone"));
  });

  test("a read that nobody waits for is cut, but not while somebody rides on it", async () => {
    const { time, table, readers, ask, came } = setUp({ maxReads: 1 });
    const leader = new AbortController();
    const rider = new AbortController();
    void ask(0, {}, leader.signal);
    void ask(100, {}, rider.signal);
    leader.abort(new Error("leader"));
    await time.pass(5_000);
    expect(table.cut).toBe(0);
    rider.abort(new Error("rider"));
    await time.pass(900);
    void ask(200);
    await time.pass(5_000);
    expect(table.cut).toBe(0);
    table.answer(0);
    await time.turn();
    expect(came.at(-1)).toMatchObject({ after: 200, what: { firstVersion: 1 } });
    const last = new AbortController();
    readers.stop();
    const other = setUp({ maxReads: 1 });
    void other.ask(0, {}, last.signal);
    last.abort(new Error("last"));
    await other.time.pass(1_001);
    expect(other.table.cut).toBe(1);
    expect(other.readers.stats()).toMatchObject({ reading: 0, waiting: 0, errors: 0 });
    void other.ask(0);
    expect(other.table.pending.length).toBe(1);
  });

  test("after `stop` nobody waits, nothing is kept, and nothing is begun", async () => {
    const { time, table, readers, ask, came } = setUp({ maxReads: 1, versions: 50_000, pageEvents: 10 });
    void ask(0);
    table.answer(0);
    await time.turn();
    void ask(10_000);
    void ask(30_000);
    readers.stop();
    await ask(0);
    expect(came.slice(1).map(({ what }) => (what instanceof FeedError ? what.code : what))).toEqual([
      "DRAINING",
      "DRAINING",
      "DRAINING",
    ]);
    expect(readers.stats()).toMatchObject({ reading: 0, waiting: 0, cachedBytes: 0 });
    expect([table.cut, table.starts.length, time.pending]).toEqual([1, 2, 0]);
  });
});

describe("failures", () => {
  test("a database that is away is told to all that count on the read, and tried anew", async () => {
    const { time, table, readers, ask, came } = setUp({ maxReads: 1 });
    for (const after of [0, 10, 20]) {
      void ask(after);
    }
    table.fail(0, AWAY);
    await time.turn();
    expect(came.map(({ what }) => what)).toEqual([AWAY, AWAY, AWAY]);
    expect(readers.stats()).toMatchObject({ errors: 1, reading: 0, waiting: 0 });
    void ask(0);
    table.answer(0);
    await time.turn();
    expect(came[3]).toMatchObject({ after: 0, what: { firstVersion: 1 } });
  });

  test("rows that cannot be read are told to those who want them, not to those whose read only began there", async () => {
    const { time, table, ask, came } = setUp({ maxReads: 1 });
    const broken = new FeedError("INTERNAL", "A row is missing.", "Report it.");
    void ask(900);
    void ask(950);
    expect(table.starts).toEqual([512]);
    table.fail(0, broken);
    await time.turn();
    expect(table.starts).toEqual([512, 900]);
    table.fail(0, broken);
    await time.turn();
    expect(came).toEqual([{ after: 900, what: broken }]);
    table.fail(0, broken);
    await time.turn();
    table.answer(0);
    await time.turn();
    expect(came[1]).toMatchObject({ after: 950, what: { firstVersion: 951 } });
  });

  test("G1 HISTORY_LOST reaches those whose versions are gone, each with its own, and nobody else", async () => {
    const { time, table, ask, came } = setUp({ maxReads: 1 });
    const lost = new FeedError("HISTORY_LOST", "Version 513 is no longer kept.", "Start again.", {
      oldestVersion: 900,
    });
    for (const after of [950, 520, 899]) {
      void ask(after);
    }
    table.fail(0, lost);
    await time.turn();
    expect(came).toMatchObject([
      {
        after: 520,
        what: { code: "HISTORY_LOST", message: expect.stringContaining("521"), detail: { oldestVersion: 900 } },
      },
    ]);
    expect(table.starts).toEqual([512, 950]);
    table.answer(0);
    await time.turn();
    expect(table.starts.at(-1)).toBe(899);
    table.answer(0);
    await time.turn();
    expect(came.slice(1)).toMatchObject([
      { after: 950, what: { firstVersion: 951 } },
      { after: 899, what: { firstVersion: 900 } },
    ]);
  });

  test("G6 what is kept of versions that retention has dropped since is what they always were", async () => {
    const { time, table, ask, came } = setUp({ maxReads: 1 });
    void ask(0);
    table.answer(0);
    await time.turn();
    await ask(10);
    expect(came[1]?.what).toBe(came[0]?.what);
    expect(table.starts.length).toBe(1);
  });

  test("an epoch that is over is told to everybody, and its pages are given back", async () => {
    const { time, table, readers, ask, came } = setUp({ maxReads: 1, versions: 50_000 });
    const over = new EpochOver("Another epoch is in force.");
    void ask(0);
    table.answer(0);
    await time.turn();
    for (const after of [10_000, 10_001, 30_000]) {
      void ask(after);
    }
    table.fail(0, over);
    await time.turn();
    expect(came.slice(1).map(({ what }) => what)).toEqual([over, over, over]);
    expect(readers.stats()).toMatchObject({ cachedBytes: 0, waiting: 0, reading: 0 });
  });

  test("a store that answers with another page than it was asked for is refused", async () => {
    const { time, table, came } = setUp();
    const readers = createHistoryReaders(
      { readAfter: (_after, signal) => table.readAfter(0, signal) },
      { timers: time },
    );
    readers.readAfter(1_500, {}, never).catch((error: unknown) => came.push({ after: 1_500, what: error }));
    table.answer(0);
    await time.turn();
    table.answer(0);
    await time.turn();
    expect(came).toMatchObject([{ what: { code: "INTERNAL" } }]);
    readers.stop();
  });
});

test("a reader alone reads each version once, on from where its last page ended", async () => {
  const { time, table, readers } = setUp({ versions: 5_000, pageEvents: 300, cacheMaxBytes: 0 });
  const reader = {};
  let position = 0;
  while (position < table.head) {
    const reading = readers.readAfter(position, reader, never);
    table.answer(0);
    await time.turn();
    const page = await reading;
    expect(page?.firstVersion).toBe(position + 1);
    position = page === undefined ? position : pageEnd(page);
  }
  expect(table.starts.length).toBe(Math.ceil(5_000 / 300));
});
