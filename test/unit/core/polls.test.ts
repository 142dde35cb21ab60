import { describe, expect, test } from "vitest";
import { FeedError } from "../../../src/core/errors.ts";
import { createPolls } from "../../../src/core/poll/polls.ts";
import { emit, inFrontOf, type Setup, setUp } from "./memory-feed.ts";
import { during, following, of, POLL, pagesOf, seen } from "./polling.ts";

const nobody = new AbortController().signal;

async function polling(options: Parameters<typeof setUp>[0] = {}, overStore?: Parameters<typeof setUp>[1]) {
  const set = await setUp(options, overStore);
  return { ...set, polls: createPolls({ feed: set.feed, clock: set.time }) };
}

/** One transaction for each list, with an event for each topic in it. */
async function write({ memory, time }: Pick<Setup, "memory" | "time">, ...ticks: readonly string[][]): Promise<void> {
  for (const topics of ticks) {
    const transaction = memory.begin();
    for (const topic of topics) {
      transaction.emit({ topic, key: undefined, operation: "MESSAGE", payload: "{}", headers: {} });
    }
    transaction.commit();
    await time.pass(20);
  }
}

const versions = (page: { readonly events: readonly { readonly version: number }[] }) =>
  page.events.map(({ version }) => version);

describe("a page", () => {
  test("holds what is there, at once, and ends on a boundary at the head", async () => {
    const set = await polling();
    await write(set, ["a"], ["b", "b"]);
    const page = await during(set.time, set.polls.poll({ ...POLL, timeoutMs: 60_000 }, nobody));
    expect(versions(page)).toEqual([1, 2, 3]);
    expect(page).toMatchObject({ hasMore: false, complete: true, full: false, head: 3, cursor: { version: 3 } });
    expect(set.polls.stats()).toEqual({ waiting: 0, answered: { full: 0, partial: 1, empty: 0, failed: 0 } });
    await set.feed.stop();
  });

  test("is cut by the number of its events, says whether their tick goes on, and nothing of the head", async () => {
    const set = await polling();
    await write(set, ["a", "a"], ["a", "a"], ["a"]);
    const [first, second, ...rest] = await pagesOf(set.time, set.polls, { maxEvents: 2 });
    expect(first).toMatchObject({ full: true, hasMore: true, complete: true, head: undefined, cursor: { version: 2 } });
    expect(second).toMatchObject({ full: true, complete: true });
    expect(rest.map(versions)).toEqual([[5]]);
    const odd = await pagesOf(set.time, set.polls, { maxEvents: 3 });
    expect(odd.map(versions)).toEqual([
      [1, 2, 3],
      [4, 5],
    ]);
    expect(odd[0]).toMatchObject({ complete: false, cursor: { version: 3 } });
    // Each cursor still remembers the tick that it is in.
    expect(odd[0]?.cursor.fingerprint).toBe(second?.cursor.fingerprint);
    await set.feed.stop();
  });

  test("is cut by its bytes, but for a single event", async () => {
    const set = await polling();
    await write(set, ["a"], ["a"], ["a"]);
    const maxBytes =
      2 *
      POLL.codec.measure({
        ...({
          version: 1,
          topic: "a",
          key: undefined,
          operation: "MESSAGE",
          before: undefined,
          transaction: "1",
        } as const),
        ...{ after: new Uint8Array(2), occurredAtMicros: 0, headers: undefined },
      });
    const pages = await pagesOf(set.time, set.polls, { maxBytes });
    expect(pages.map(versions)).toEqual([[1, 2], [3]]);
    const single = await pagesOf(set.time, set.polls, { maxBytes: 1 });
    expect(single.map(versions)).toEqual([[1], [2], [3]]);
    await set.feed.stop();
  });

  test("counts what its selectors want, and ends at the end of a tick that has no more of it", async () => {
    const set = await polling();
    await write(set, ["a", "b"], ["b", "a", "b"], ["a"], ["b"]);
    const pages = await pagesOf(set.time, set.polls, { selectors: of("a"), maxEvents: 1 });
    expect(pages.map(versions)).toEqual([[1], [4], [6], []]);
    expect(pages.map(({ cursor }) => cursor.version)).toEqual([2, 5, 6, 7]);
    expect(pages.every(({ complete }) => complete)).toBe(true);
    await set.feed.stop();
  });

  test("that is empty has moved over what it looked through, and never beyond the head", async () => {
    const set = await polling({ limits: { logMaxBytes: 1, warmBytes: 0 } });
    await write(set, ...Array.from({ length: 30 }, () => ["b"]));
    const page = await during(set.time, set.polls.poll({ ...POLL, selectors: of("a") }, nobody));
    expect(page).toMatchObject({ events: [], hasMore: false, complete: true, cursor: { version: 30 }, head: 30 });
    const { reads } = set.feed.stats().history;
    const next = await during(set.time, set.polls.poll({ ...POLL, selectors: of("a"), ...following(page) }, nobody));
    expect(seen(next)).toBe(seen(page));
    expect(set.feed.stats().history.reads).toBe(reads);
    await set.feed.stop();
  });
});

describe("a poll that waits", () => {
  test("gets the first tick that has something, whole, and nothing after it", async () => {
    const set = await polling();
    await write(set, ["a"]);
    const [first] = await pagesOf(set.time, set.polls, {});
    const waiting = set.polls.poll({ ...POLL, ...following(first ?? { cursor: never() }), timeoutMs: 60_000 }, nobody);
    await set.time.pass(100);
    expect(set.polls.stats().waiting).toBe(1);
    emit(set.memory, 2);
    emit(set.memory, 1);
    const page = await during(set.time, waiting);
    // The store settles both transactions in ticks of its own, or in one: the page is the first of them.
    const tick = page.cursor.version;
    expect(versions(page)).toEqual([2, 3, 4].filter((version) => version <= tick));
    expect(page).toMatchObject({ complete: true, full: false, hasMore: false, head: tick });
    expect(set.polls.stats().waiting).toBe(0);
    await set.feed.stop();
  });

  test("is told the same as everybody who waits with that cursor, also when more has come before its turn", async () => {
    const set = await polling();
    await write(set, ["b"]);
    const [start] = await pagesOf(set.time, set.polls, {});
    const request = { ...POLL, ...following(start ?? { cursor: never() }), selectors: of("a"), timeoutMs: 60_000 };
    const waiting = Array.from({ length: 5 }, () => set.polls.poll(request, nobody));
    await set.time.pass(50);
    await write(set, ["b"], ["a", "b"], ["a"], ["a"]);
    const pages = await Promise.all(waiting.map((poll) => during(set.time, poll)));
    expect(new Set(pages.map(seen)).size).toBe(1);
    expect(pages[0]).toMatchObject({ cursor: { version: 4 }, head: 4, hasMore: false });
    await set.feed.stop();
  });

  test("is answered with an empty page exactly when its time is over, and a cursor that has moved on", async () => {
    const set = await polling();
    const begunMs = set.time.monotonic();
    const waiting = set.polls.poll({ ...POLL, start: { kind: "now" }, selectors: of("a"), timeoutMs: 20_000 }, nobody);
    await write(set, ...Array.from({ length: 20 }, () => ["b"]));
    const page = await during(set.time, waiting);
    expect(set.time.monotonic() - begunMs).toBeGreaterThanOrEqual(20_000);
    expect(set.time.monotonic() - begunMs).toBeLessThan(20_010);
    expect(page).toMatchObject({ events: [], complete: true, cursor: { version: 20 }, hasMore: false });
    expect(set.polls.stats().answered).toEqual({ full: 0, partial: 0, empty: 1, failed: 0 });
    await set.feed.stop();
  });

  test("is answered a moment before the call's own deadline", async () => {
    const set = await polling();
    const deadlineMs = set.time.monotonic() + 10_000;
    const poll = set.polls.poll({ ...POLL, start: { kind: "now" }, timeoutMs: 60_000, deadlineMs }, nobody);
    const page = await during(set.time, poll);
    expect(page.events).toEqual([]);
    expect(set.time.monotonic()).toBeLessThan(deadlineMs);
    expect(set.time.monotonic()).toBeGreaterThan(deadlineMs - 1_000);
    await set.feed.stop();
  });

  test("is answered at once when the server goes down, with what is there", async () => {
    const set = await polling();
    await write(set, ["b"]);
    const poll = set.polls.poll({ ...POLL, start: { kind: "now" }, timeoutMs: 60_000 }, nobody);
    await set.time.pass(10);
    const drained = set.feed.drain(10_000);
    const page = await during(set.time, poll);
    await during(set.time, drained);
    expect(page).toMatchObject({ events: [], cursor: { version: 1 } });
    await expect(set.polls.poll(POLL, nobody)).rejects.toMatchObject({ code: "DRAINING" });
    await set.feed.stop();
  });

  test("leaves nothing behind when its caller goes", async () => {
    const set = await polling();
    const gone = new AbortController();
    const poll = set.polls.poll({ ...POLL, start: { kind: "now" }, timeoutMs: 60_000 }, gone.signal);
    await set.time.pass(10);
    expect(set.feed.status().streams).toBe(1);
    gone.abort(new Error("gone"));
    await expect(poll).rejects.toThrow("gone");
    expect(set.feed.status().streams).toBe(0);
    expect(set.polls.stats()).toEqual({ waiting: 0, answered: { full: 0, partial: 0, empty: 0, failed: 1 } });
    await set.feed.stop();
  });

  test("is an idle stream: a thousand ask the store nothing, and share one lane", async () => {
    let questions = 0;
    const counted = new Set(["bounds", "tickOf", "tickAt", "readAfter"]);
    const set = await polling({}, (store) =>
      inFrontOf(
        store,
        Object.fromEntries(
          [...counted].map((name) => [
            name,
            (...args: unknown[]) => {
              questions += 1;
              return Reflect.apply(Reflect.get(store, name), store, args);
            },
          ]),
        ),
      ),
    );
    await write(set, ["b"]);
    const [start] = await pagesOf(set.time, set.polls, {});
    expect(questions).toBeGreaterThan(0);
    questions = 0;
    const request = { ...POLL, ...following(start ?? { cursor: never() }), timeoutMs: 60_000 };
    const waiting = Array.from({ length: 1_000 }, () => set.polls.poll(request, nobody));
    await set.time.pass(1_000);
    expect(set.polls.stats().waiting).toBe(1_000);
    expect(set.feed.stats().lanes).toBe(1);
    expect(questions).toBe(0);
    await write(set, ["a"]);
    const pages = await Promise.all(waiting.map((poll) => during(set.time, poll)));
    expect(new Set(pages.map(seen)).size).toBe(1);
    expect(questions).toBe(0);
    await set.feed.stop();
  });

  test("counts as a stream for the limits", async () => {
    const set = await polling({ limits: { maxStreamsPerPeer: 2 } });
    const request = { ...POLL, start: { kind: "now" }, timeoutMs: 1_000, peer: "somebody" } as const;
    const waiting = [set.polls.poll(request, nobody), set.polls.poll(request, nobody)];
    await set.time.pass(1);
    await expect(set.polls.poll(request, nobody)).rejects.toMatchObject({ code: "LIMIT_EXCEEDED" });
    await during(set.time, Promise.all(waiting));
    await set.feed.stop();
  });
});

describe("a poll of history", () => {
  test("that cannot be read is refused, and not answered with nothing", async () => {
    const set = await polling({ limits: { logMaxBytes: 1, warmBytes: 0 } });
    await write(set, ["a"], ["a"], ["a"]);
    const [first] = await pagesOf(set.time, set.polls, { maxEvents: 1 });
    set.memory.outage.refuse();
    const poll = set.polls.poll({ ...POLL, ...following(first ?? { cursor: never() }) }, nobody);
    const error = await during(
      set.time,
      poll.then(
        () => undefined,
        (thrown: unknown) => thrown,
      ),
    );
    expect(error).toBeInstanceOf(FeedError);
    expect(error).toMatchObject({ code: "DATABASE_UNAVAILABLE" });
    await set.feed.stop();
  });
});

function never(): never {
  throw new Error("there was no page");
}
