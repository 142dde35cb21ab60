import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { FeedError } from "../../../src/core/errors.ts";
import type { Event } from "../../../src/core/event.ts";
import { EpochOver } from "../../../src/core/lineage.ts";
import type { Log } from "../../../src/core/log/log.ts";
import { warmLog } from "../../../src/core/log/log-warming.ts";
import { eventBytes, type Page, tickEnd } from "../../../src/core/page.ts";
import { emptyHistory, type MadeHistory, pageOf, settleTick } from "./history-maker.ts";
import { ManualTime } from "./manual-time.ts";
import { emit, follow, setUp } from "./memory-feed.ts";

const never = new AbortController().signal;
const MIB = 1_048_576;
const AWAY = new FeedError("DATABASE_UNAVAILABLE", "The database is away.", "Wait.");

interface World {
  readonly history: MadeHistory;
  readonly time: ManualTime;
  readonly reports: string[];
  /** Called before each read, with their number. */
  onRead?: (reads: number) => unknown;
  spoil?: (page: Page) => Page;
  readonly pageEvents: number;
  reads: number;
}

/** Ticks of these sizes, whose events are of 200 bytes and as many more as `weigh` says. */
function world(ticks: readonly number[], pageEvents = 100, weigh: (version: number) => number = () => 0): World {
  const history = emptyHistory();
  for (const size of ticks) {
    grow(history, size, weigh);
  }
  return { history, pageEvents, time: new ManualTime(), reports: [], reads: 0 };
}

function grow(history: MadeHistory, size: number, weigh: (version: number) => number = () => 0): void {
  const first = history.events.length + 1;
  settleTick(
    history,
    Array.from({ length: size }, (_, i) => "t".repeat(weigh(first + i))),
  );
}

function warm(of: World, warmBytes: number, options: { oldest?: number; head?: number; signal?: AbortSignal } = {}) {
  const { history, time, reports } = of;
  return warmLog({
    store: {
      readAfter: async (after, signal) => {
        of.reads += 1;
        await of.onRead?.(of.reads);
        signal.throwIfAborted();
        const page = pageOf(history, after, of.pageEvents);
        return page && (of.spoil?.(page) ?? page);
      },
      tickOf: async (version) => history.ticks.find((t) => t.firstVersion <= version && version <= tickEnd(t)),
    },
    bounds: { oldest: options.oldest ?? 1, head: options.head ?? history.events.length },
    logMaxBytes: 1_000 * MIB,
    warmBytes,
    warmMs: 1_000,
    clock: time,
    timers: time,
    report: (message, error) => reports.push(error === undefined ? message : `${message} ${String(error)}`),
    signal: options.signal ?? never,
  });
}

function eventsOf(log: Log): Event[] {
  const events: Event[] = [];
  for (let at = log.oldest - 1; at < log.head; ) {
    const page = log.read(at) ?? expect.unreachable();
    events.push(...page.events.slice(at + 1 - page.firstVersion));
    at = page.firstVersion + page.events.length - 1;
  }
  return events;
}

describe("a warm log", () => {
  test("G1 G3 holds the newest versions without a hole, up to the head, within its bytes", async () => {
    const ticks = fc.array(fc.integer({ min: 1, max: 60 }), { minLength: 1, maxLength: 60 });
    const settled = fc.array(fc.integer({ min: 1, max: 40 }), { maxLength: 5 });
    const sizes = fc.constantFrom(
      () => 0,
      (version: number) => (version % 13 === 0 ? 5_000 : 10),
    );
    await fc.assert(
      fc.asyncProperty(
        fc.record({ ticks, settled, weigh: sizes, page: fc.integer({ min: 1, max: 90 }), drop: fc.nat(50) }),
        fc.constantFrom(0, 100, 3_000, 40_000, 10 * MIB),
        async ({ ticks, settled, weigh, page, drop }, warmBytes) => {
          const made = world(ticks, page, weigh);
          const head = made.history.events.length;
          const oldest = Math.min(drop + 1, head + 1);
          const meanwhile = [...settled];
          made.onRead = () => {
            const size = meanwhile.pop();
            if (size !== undefined) {
              grow(made.history, size, weigh);
            }
          };
          const log = await warm(made, warmBytes, { oldest, head });
          const { events } = made.history;
          expect(log.oldest).toBeGreaterThanOrEqual(oldest);
          expect(eventsOf(log)).toEqual(events.slice(log.oldest - 1, log.head));
          expect(log.head).toBe(log.events === 0 ? head : events.length);
          const before = made.history.ticks.find((t) => t.firstVersion < log.oldest && log.oldest <= tickEnd(t) + 1);
          expect(log.tickOf(log.oldest - 1)).toEqual(before);
          const old = eventsOf(log).filter(({ version }) => version <= head);
          expect(old.reduce((sum, event) => sum + eventBytes(event), 0)).toBeLessThanOrEqual(warmBytes);
          if (warmBytes === 10 * MIB) {
            expect(log.oldest).toBe(oldest);
          }
          expect(made.time.pending).toBe(0);
        },
      ),
    );
  });

  test("fills most of its bytes, by few more reads than it has pages", async () => {
    const made = world(
      Array.from({ length: 3_000 }, () => 7),
      500,
    );
    const log = await warm(made, 2 * MIB);
    expect(log.bytes).toBeGreaterThan(1.9 * MIB);
    expect(made.reads).toBeLessThanOrEqual(2 * Math.ceil(log.events / 500) + 4);
    expect(made.reports).toEqual([`The log begins with the newest ${log.events} events, 2 MiB, read in 0 ms.`]);
  });

  test("begins with the newest of what has been read when its time is over", async () => {
    const made = world(
      Array.from({ length: 300 }, () => 10),
      10,
    );
    made.onRead = (reads) => (reads === 20 ? made.time.pass(1_001) : undefined);
    const log = await warm(made, 10 * MIB);
    expect(log.head).toBe(3_000);
    expect(log.events).toBeGreaterThan(0);
    expect(log.events).toBeLessThan(3_000);
    expect(made.reports.length).toBe(1);
    expect(eventsOf(log)).toEqual(made.history.events.slice(log.oldest - 1));
  });

  test("keeps what it has when the database goes away or has dropped the rest, and says so", async () => {
    const made = world(
      Array.from({ length: 300 }, () => 10),
      10,
    );
    made.onRead = (reads) => {
      if (reads > 20) {
        throw AWAY;
      }
    };
    const log = await warm(made, 10 * MIB);
    expect([log.head, log.events > 0]).toEqual([3_000, true]);
    expect(eventsOf(log)).toEqual(made.history.events.slice(log.oldest - 1));
    expect(made.reports[0]).toMatch(/less than it might hold.*is away/);
  });

  test("G3 begins empty at the head when what was read has a hole", async () => {
    const made = world(
      Array.from({ length: 30 }, () => 10),
      10,
    );
    made.spoil = (page) => ({ ...page, events: page.events.filter((_, i) => i !== 3) });
    const log = await warm(made, 10 * MIB);
    expect([log.head, log.events]).toEqual([300, 0]);
    expect(log.tickOf(300)).toEqual(made.history.ticks.at(-1));
    expect(made.reports.join()).toMatch(/less than it might hold/);
  });

  test("fails only with its signal, and with an epoch that is over", async () => {
    const made = world(
      Array.from({ length: 30 }, () => 10),
      10,
    );
    const gone = new AbortController();
    made.onRead = (reads) => {
      if (reads === 3) {
        gone.abort(new Error("stopped"));
      }
    };
    await expect(warm(made, 10 * MIB, { signal: gone.signal })).rejects.toThrow("stopped");
    const over = new EpochOver("Another epoch is in force.");
    made.onRead = () => {
      throw over;
    };
    await expect(warm(made, 10 * MIB)).rejects.toBe(over);
    expect(made.time.pending).toBe(0);
  });
});

test("G8 a stream that resumes after a restart finds in memory what it missed", async () => {
  const first = await setUp();
  emit(first.memory, 40);
  await first.time.pass(50);
  await first.feed.stop();
  let reads = 0;
  const second = await setUp({}, () => {
    const { memory } = first;
    return new Proxy(memory, {
      get: (target, name) => {
        reads += name === "readAfter" ? 1 : 0;
        const value: unknown = Reflect.get(target, name);
        return typeof value === "function" ? value.bind(target) : value;
      },
    });
  });
  const before = reads;
  const { frames, ended } = follow(second.feed, never, { start: { kind: "oldest" } } as object);
  await second.time.pass(50);
  expect(frames.flatMap((frame) => (frame.kind === "events" ? frame.events : [])).length).toBe(40);
  expect(reads).toBe(before);
  await second.feed.stop();
  await second.time.pass(10);
  await ended;
});
