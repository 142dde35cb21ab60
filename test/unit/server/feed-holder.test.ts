import pino from "pino";
import { describe, expect, test } from "vitest";
import { FeedError } from "../../../src/core/errors.ts";
import type { EpochFeed, FeedFailure } from "../../../src/core/feed.ts";
import { nextWake, WakeSet } from "../../../src/core/wake-set.ts";
import { createMemoryStore, type MemoryStore } from "../../../src/memory/store.ts";
import { FeedHolder, type OpenedFeed, type OpenFeed } from "../../../src/server/feed-holder.ts";
import { createFeedSlot } from "../../../src/server/feed-slot.ts";
import { startedFeed } from "./started-feed.ts";

/** One opening that was asked for: what becomes of it is up to the test. */
interface Asked {
  readonly signal: AbortSignal;
  readonly onOver: (reason: FeedError) => void;
  readonly answer: (opened: OpenedFeed) => void;
  readonly refuse: (error: Error) => void;
}

const away = new FeedError("DATABASE_UNAVAILABLE", "Nobody answers.", "Wait.");
const over = new FeedError("EPOCH_CHANGED", "Another epoch is in force.", "Reconnect.");

/** A holder whose openings the test answers, one after the other. */
function holding(stopMs?: number) {
  const { signal } = new AbortController();
  const asked: Asked[] = [];
  const waiting: ((one: Asked) => void)[] = [];
  const open: OpenFeed = (signal, onOver) => {
    const { promise, resolve, reject } = Promise.withResolvers<OpenedFeed>();
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
    const one: Asked = { signal, onOver, answer: resolve, refuse: reject };
    const waiter = waiting.shift();
    if (waiter === undefined) asked.push(one);
    else waiter(one);
    return promise;
  };
  const next = (): Promise<Asked> => {
    const one = asked.shift();
    return one === undefined ? new Promise((resolve) => waiting.push(resolve)) : Promise.resolve(one);
  };
  const logged: string[] = [];
  const heard = new WakeSet();
  const log = pino(
    { level: "debug" },
    {
      write: (line: string) => {
        const { msg } = JSON.parse(line) as { readonly msg: string };
        logged.push(msg);
        heard.wakeAll();
      },
    },
  );
  /** Until this has been logged so many times. */
  const says = async (message: string, times = 1): Promise<void> => {
    while (logged.filter((one) => one === message).length < times) await nextWake(heard, signal);
  };
  const slot = createFeedSlot();
  const holder = new FeedHolder(open, slot, log, stopMs);
  const told: FeedFailure[] = [];
  const start = () => holder.start({ signal, logLevel: "debug", onWait: (failure) => told.push(failure) });
  return { holder, slot, next, says, told, start };
}

interface Scripted extends OpenedFeed {
  readonly ends: FeedError[];
  readonly stops: () => number;
}

/** An opened feed over memory that remembers what it was told. */
async function scripted(stop: () => Promise<void> = async () => undefined, store?: MemoryStore): Promise<Scripted> {
  const feed = await startedFeed(store);
  const ends: FeedError[] = [];
  let stops = 0;
  const end = feed.end.bind(feed);
  const overheard: EpochFeed = Object.assign(feed, {
    end: (reason: FeedError) => {
      ends.push(reason);
      end(reason);
    },
  });
  return {
    feed: overheard,
    lineage: [],
    problems: () => [],
    ends,
    stops: () => stops,
    stop: async () => {
      stops += 1;
      await feed.stop();
      await stop();
    },
  };
}

describe("the holder of a feed", () => {
  test("an opening that fails is tried again, and callers are told why until one succeeds", async () => {
    const { holder, slot, next, told, start } = holding();
    const starting = start();
    (await next()).refuse(away);
    const opened = await scripted();
    (await next()).answer(opened);
    await starting;
    expect(told).toEqual([away]);
    expect(slot.status()).toMatchObject({ state: "LIVE", epoch: opened.feed.status().epoch });
    await holder.stop();
    expect(opened.stops()).toBe(1);
  });

  test("what time does not mend fails the start at once", async () => {
    const { holder, next, start } = holding();
    const starting = start();
    const wrong = new FeedError("INVALID_REQUEST", "The password is wrong.", "Give another.");
    (await next()).refuse(wrong);
    await expect(starting).rejects.toBe(wrong);
    await holder.stop();
  });

  test("a feed that is over at once is replaced, its streams end after that, and it is stopped", async () => {
    const { holder, slot, next, says, start } = holding();
    const starting = start();
    const first = await scripted();
    const { onOver, answer } = await next();
    onOver(over);
    answer(first);
    await starting;
    const again = await next();
    expect(first.ends).toEqual([]);
    again.refuse(away);
    const retry = await next();
    expect(slot.status().failure).toBe(away);
    expect(first.ends).toEqual([]);
    const second = await scripted();
    retry.answer(second);
    await says("the feed moves again");
    const { epoch } = second.feed.status();
    expect(slot.status()).toMatchObject({ epoch, failure: undefined });
    expect(first.ends).toMatchObject([{ code: "EPOCH_CHANGED", detail: { epoch } }]);
    await holder.stop();
    expect([first.stops(), second.stops()]).toEqual([1, 1]);
  });

  test("streams do not wait for a replacement that needs a hand: they end with what the feed was over for", async () => {
    const { holder, slot, next, start } = holding();
    const starting = start();
    const first = await scripted();
    const { onOver, answer } = await next();
    answer(first);
    await starting;
    onOver(over);
    const newer = new FeedError("INVALID_REQUEST", "The schema is newer.", "Update Millrace.");
    (await next()).refuse(newer);
    await next();
    expect(first.ends).toEqual([over]);
    expect(slot.status().failure).toBe(newer);
    await holder.stop();
  });

  test("a replaced feed that does not end in order is said, and keeps neither the new one nor the stop", async () => {
    const { holder, slot, next, says, start } = holding();
    const starting = start();
    const first = await scripted(() => Promise.reject(new Error("the connection is gone")));
    const { onOver, answer } = await next();
    answer(first);
    await starting;
    onOver(over);
    const second = await scripted();
    (await next()).answer(second);
    await says("the feed that was replaced did not end in order");
    expect(slot.status()).toMatchObject({ state: "LIVE", epoch: second.feed.status().epoch });
    await holder.stop();
    expect([first.stops(), second.stops()]).toEqual([1, 1]);
  });

  test("a replaced feed that hangs at its end keeps no other feed from being replaced", async () => {
    const { holder, slot, next, says, start } = holding();
    const starting = start();
    const hanging = Promise.withResolvers<void>();
    const first = await scripted(() => hanging.promise);
    const opening = await next();
    opening.answer(first);
    await starting;
    opening.onOver(over);
    const second = await scripted();
    const reopening = await next();
    reopening.answer(second);
    await says("the feed moves again");
    reopening.onOver(over);
    const third = await scripted();
    (await next()).answer(third);
    await says("the feed moves again", 2);
    expect(slot.status().epoch).toBe(third.feed.status().epoch);
    const stopping = holder.stop();
    hanging.resolve();
    await stopping;
    expect([first.stops(), second.stops(), third.stops()]).toEqual([1, 1, 1]);
  });

  test("a feed that does not end is left after a while, and it is said", async () => {
    const { holder, next, says, start } = holding(100);
    const starting = start();
    (await next()).answer(await scripted(() => new Promise(() => undefined)));
    await starting;
    await holder.stop();
    await says("the feed did not end in time, and is left");
  });

  test("a feed that stands still whatever is restarted of it is opened anew, and its streams are told to reconnect", async () => {
    const { holder, next, says, start } = holding();
    const starting = start();
    const store = createMemoryStore();
    const first = await scripted(undefined, store);
    const { onOver, answer } = await next();
    answer(first);
    await starting;
    onOver(away);
    await says("the feed stands still whatever is restarted of it: opening it anew");
    (await next()).answer(await scripted(undefined, store));
    await says("the feed moves again");
    expect(first.ends.map(({ code }) => code)).toEqual(["DATABASE_UNAVAILABLE"]);
    await holder.stop();
  });

  test("streams of a feed that is opened again in the same epoch are told to reconnect", async () => {
    const { holder, next, says, start } = holding();
    const starting = start();
    const store = createMemoryStore();
    const first = await scripted(undefined, store);
    const { onOver, answer } = await next();
    answer(first);
    await starting;
    onOver(over);
    (await next()).answer(await scripted(undefined, store));
    await says("the feed moves again");
    expect(first.ends).toMatchObject([
      { code: "DATABASE_UNAVAILABLE", action: expect.stringContaining("last cursor") },
    ]);
    await holder.stop();
  });

  test("a stop in the middle of a replacement ends the opening and the feed that is held", async () => {
    const { holder, next, start } = holding();
    const starting = start();
    const first = await scripted();
    const { onOver, answer } = await next();
    answer(first);
    await starting;
    onOver(over);
    const { signal } = await next();
    expect(signal.aborted).toBe(false);
    await holder.stop();
    expect(signal.aborted).toBe(true);
    expect([first.ends, first.stops()]).toEqual([[], 1]);
  });
});
