import fc from "fast-check";
import { expect, test } from "vitest";
import { createFeed } from "../../../src/core/feed/feed-service.ts";
import type { Feed } from "../../../src/core/feed.ts";
import { createPolls } from "../../../src/core/poll/polls.ts";
import { createMemoryStore, type MemoryStore } from "../../../src/memory/store.ts";
import { ManualTime } from "./manual-time.ts";
import { during, following, of, POLL, pagesOf, seen } from "./polling.ts";

const nobody = new AbortController().signal;
const TOPICS = ["a", "b", "c"] as const;

/** What one run of the property writes, and how it asks. */
const story = fc.record({
  /** Ticks of so many events, each of one of the topics and with so many bytes. */
  ticks: fc.array(
    fc.array(fc.record({ topic: fc.constantFrom(...TOPICS), bytes: fc.constantFrom(2, 2, 10, 900) }), {
      minLength: 1,
      maxLength: 9,
    }),
    { minLength: 1, maxLength: 60 },
  ),
  wanted: fc.constantFrom([], of("a"), of("a", "b"), of("c")),
  maxEvents: fc.integer({ min: 1, max: 40 }),
  maxBytes: fc.constantFrom(1, 500, 3_000, 1_048_576),
  pageEvents: fc.integer({ min: 1, max: 50 }),
  logMaxBytes: fc.constantFrom(1, 3_000, 20_000),
  /** After which tick the replica that begins in the middle begins. */
  begins: fc.nat({ max: 60 }),
});

/** Among the ticks that there are. */
const beginning = ({ ticks, begins }: { readonly ticks: readonly unknown[]; readonly begins: number }) =>
  begins % ticks.length;

interface Replica {
  readonly feed: Feed;
  readonly polls: ReturnType<typeof createPolls>;
}

/** @param idleMs - after which it looks again: one that looks seldom gets several ticks of another at once */
async function replicaOf(store: MemoryStore, time: ManualTime, logMaxBytes: number, idleMs = 10): Promise<Replica> {
  const wakeUp = {
    nudge: () => undefined,
    wait: (_found: boolean, signal: AbortSignal) =>
      new Promise<void>((resolve) => {
        const cancel = time.after(idleMs, resolve);
        signal.addEventListener("abort", () => [cancel(), resolve()], { once: true });
      }),
  };
  const feed = createFeed({ store, wakeUp, clock: time, timers: time, limits: { logMaxBytes, warmBytes: 0 } });
  await feed.start(nobody);
  return { feed, polls: createPolls({ feed, clock: time }) };
}

async function write(
  store: MemoryStore,
  time: ManualTime,
  ticks: readonly (readonly { topic: string; bytes: number }[])[],
) {
  for (const events of ticks) {
    const transaction = store.begin();
    for (const { topic, bytes } of events) {
      const payload = JSON.stringify("x".repeat(bytes - 2));
      transaction.emit({ topic, key: undefined, operation: "MESSAGE", payload, headers: {} });
    }
    transaction.commit();
    await time.pass(20);
  }
}

/** A replica that is behind answers with what it has, which is another page than the last one of a replica that is not. */
async function settled(time: ManualTime, versions: number, ...replicas: readonly Replica[]): Promise<void> {
  while (replicas.some(({ feed }) => feed.status().head < versions)) await time.pass(10);
}

test("G8 full pages are the same from memory and from the table, on every replica, and after a restart", async () => {
  await fc.assert(
    fc.asyncProperty(story, async ({ ticks, wanted, maxEvents, maxBytes, pageEvents, logMaxBytes, begins: at }) => {
      const begins = beginning({ ticks, begins: at });
      const time = new ManualTime();
      const store = createMemoryStore({ clock: time, pageEvents });
      const all = await replicaOf(store, time, 64 * 1024 * 1024);
      await write(store, time, ticks.slice(0, begins));
      const some = await replicaOf(store, time, logMaxBytes);
      await write(store, time, ticks.slice(begins));
      const restarted = await replicaOf(store, time, 1);
      await settled(time, ticks.flat().length, all, some, restarted);
      const request = { selectors: wanted, maxEvents, maxBytes };
      const first = await pagesOf(time, all.polls, request);
      for (const { polls } of [some, restarted]) {
        const others = await pagesOf(time, polls, request);
        expect(others.map(seen)).toEqual(first.map(seen));
      }
      const topics = wanted[0]?.topics ?? TOPICS;
      const expected = ticks.flat().flatMap(({ topic }, index) => (topics.includes(topic) ? [index + 1] : []));
      expect(first.flatMap(({ events }) => events.map(({ version }) => version))).toEqual(expected);
      // And the same again later, when more has been settled: all but the last were full.
      await write(store, time, [[{ topic: "a", bytes: 2 }]]);
      for (const [index, page] of first.slice(0, -1).entries()) {
        expect(page.full).toBe(true);
        const start = index === 0 ? {} : following(first[index - 1] ?? page);
        const later = await during(time, some.polls.poll({ ...POLL, ...request, ...start }, nobody));
        expect(seen(later)).toBe(seen(page));
      }
      for (const { feed } of [all, some, restarted]) await feed.stop();
    }),
    { numRuns: 150 },
  );
}, 120_000);

test("G8 two who wait with one cursor get the same on two replicas, however the ticks reach them", async () => {
  await fc.assert(
    fc.asyncProperty(story, async ({ ticks, wanted, maxEvents, maxBytes, pageEvents, begins: at }) => {
      const begins = beginning({ ticks, begins: at });
      const time = new ManualTime();
      const store = createMemoryStore({ clock: time, pageEvents });
      const one = await replicaOf(store, time, 64 * 1024 * 1024);
      const two = await replicaOf(store, time, 64 * 1024 * 1024, 45);
      await write(store, time, ticks.slice(0, begins));
      const request = { ...POLL, selectors: wanted, maxEvents, maxBytes, timeoutMs: 1_500 };
      await settled(time, ticks.slice(0, begins).flat().length, one, two);
      const start = { kind: "version", version: one.feed.status().head, epoch: undefined } as const;
      const waiting = [one, one, two].map(({ polls }) => polls.poll({ ...request, start }, nobody));
      await time.pass(5);
      // All at once: one replica may get several ticks together that another gets one after the other.
      for (const tick of ticks.slice(begins)) {
        const transaction = store.begin();
        for (const { topic } of tick) {
          transaction.emit({ topic, key: undefined, operation: "MESSAGE", payload: "{}", headers: {} });
        }
        transaction.commit();
        if (tick.length % 2 === 0) await time.pass(7);
      }
      const pages = await Promise.all(waiting.map((poll) => during(time, poll)));
      const told = new Set(pages.filter(({ events }) => events.length > 0).map(seen));
      expect(told.size).toBeLessThanOrEqual(1);
      expect(pages.map(({ events }) => events.length)).toEqual(pages.map(() => pages[0]?.events.length));
      for (const { events, cursor } of pages) {
        expect(events.every(({ version }) => version <= cursor.version)).toBe(true);
      }
      for (const { feed } of [one, two]) await feed.stop();
    }),
    { numRuns: 60 },
  );
}, 120_000);
