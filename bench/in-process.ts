// The feed without a wire: from the append of a page to the callback of a consumer in the same process, one event at a time
// and in pages as a busy tail brings them, beside Node's EventEmitter, which keeps nothing and promises nothing.
import { EventEmitter } from "node:events";
import { createFeed } from "../src/core/feed/feed-service.ts";
import type { EventsFrame } from "../src/core/frame.ts";
import type { Page } from "../src/core/page.ts";
import type { FeedStore, WakeUp } from "../src/core/ports.ts";
import { ChangeFeed } from "../src/in-process/change-feed.ts";
import { openMemoryFeed } from "../src/in-process/open-feed.ts";
import { createMemoryStore, type MemoryStore } from "../src/memory/store.ts";
import { medianOf } from "./load/contest.ts";
import { payload } from "./load/message.ts";
import { benchOptions, percentile, report } from "./report.ts";

const { seconds } = benchOptions(4);
const rounds = 3;
const signal = new AbortController().signal;
const text = payload(0n);

const fromCommit = await commitLatencies(Math.round(seconds * 10_000));
const singles = await preparePages(Math.round(seconds * 50_000), 1);
const pages = await preparePages(Math.round(seconds * 250_000), 1_000);
const fromAppend: number[] = [];
const fromAppend99: number[] = [];
const batched: number[] = [];
const emitted: number[] = [];
for (let round = 0; round < rounds; round += 1) {
  const taken = await appendLatencies(singles);
  fromAppend.push(percentile(taken, 0.5));
  fromAppend99.push(percentile(taken, 0.99));
  batched.push(await throughput(pages));
  emitted.push(emitterThroughput(pages));
}

report(
  "in-process",
  [
    {
      what: "append to callback, one event at a time, p50",
      value: medianOf(fromAppend),
      unit: "us",
      baseline: { what: "EventEmitter.emit", value: percentile(emitterLatencies(), 0.5) },
      target: "< 1 us",
      met: medianOf(fromAppend) < 1,
    },
    { what: "the same, p99", value: medianOf(fromAppend99), unit: "us" },
    {
      what: "commit to callback, tick of the store in memory included, p50",
      value: percentile(fromCommit, 0.5),
      unit: "us",
    },
    {
      what: "append to callback, in pages of 1,000",
      value: medianOf(batched),
      unit: "events/s",
      baseline: { what: "EventEmitter, an event each", value: medianOf(emitted) },
      target: ">= 10 M/s",
      met: medianOf(batched) >= 10_000_000,
    },
  ],
  `events of 250 B, one consumer in the same process, medians of ${rounds} rounds in turn`,
);

/** From commit to callback, in microseconds, of one event at a time. The tail sleeps before each. */
async function commitLatencies(count: number): Promise<number[]> {
  const memory = createMemoryStore();
  const taken: number[] = [];
  await using feed = await openMemoryFeed(memory);
  let committedAt = 0n;
  let received = Promise.withResolvers<void>();
  await consume(feed, () => {
    taken.push(Number(process.hrtime.bigint() - committedAt) / 1_000);
    received.resolve();
  });
  for (let i = 0; i < count; i += 1) {
    received = Promise.withResolvers();
    for (let turn = 0; turn < 3; turn += 1) await new Promise(setImmediate);
    const transaction = memory.begin();
    transaction.emit({ topic: "bench", key: "k", operation: "MESSAGE", payload: text, headers: {} });
    committedAt = process.hrtime.bigint();
    transaction.commit();
    await received.promise;
  }
  return taken.slice(count / 5);
}

/** From append to callback, in microseconds, of one event at a time, one after another. */
async function appendLatencies(all: readonly Page[]): Promise<number[]> {
  const taken: number[] = [];
  let appendedAt = 0n;
  await replay(
    all,
    () => {
      appendedAt = process.hrtime.bigint();
    },
    () => taken.push(Number(process.hrtime.bigint() - appendedAt) / 1_000),
  );
  return taken.slice(all.length / 5);
}

/** Pages as a tail would get them, a tick each. */
async function preparePages(count: number, pageEvents: number): Promise<readonly Page[]> {
  const memory = createMemoryStore({ pageEvents });
  for (let i = 0; i < count; i += pageEvents) {
    const transaction = memory.begin();
    for (let j = 0; j < pageEvents; j += 1) {
      transaction.emit({ topic: "bench", key: "k", operation: "MESSAGE", payload: text, headers: {} });
    }
    transaction.commit();
    await memory.advance(i, signal);
  }
  const made: Page[] = [];
  for (let after = 0; after < count; after += pageEvents) {
    const page = await memory.readAfter(after, signal);
    if (page !== undefined) made.push(page);
  }
  return made;
}

/** Events per second from the first page's append to the last event's callback. */
async function throughput(all: readonly Page[]): Promise<number> {
  let events = 0;
  const begun = performance.now();
  await replay(
    all,
    () => undefined,
    (frame) => {
      events += frame.events.length;
    },
  );
  return events / ((performance.now() - begun) / 1_000);
}

/** Hands the feed one page after another, without a pause, and resolves with the callback for the last event. */
async function replay(
  all: readonly Page[],
  onAppend: () => void,
  onFrame: (frame: EventsFrame) => void,
): Promise<void> {
  const memory = createMemoryStore();
  let next = 0;
  let running = false;
  const store = delegating(memory, {
    advance: async () => {
      const page = running ? all[next] : undefined;
      next += page === undefined ? 0 : 1;
      onAppend();
      return page;
    },
  });
  const wakeUp: WakeUp = {
    // A consumer in this process has its events by then: there is nobody to give way to.
    wait: (found, until) => (found ? Promise.resolve() : memory.wakeUp.wait(found, until)),
    nudge: () => memory.wakeUp.nudge(),
  };
  const count = all.reduce((sum, page) => sum + page.events.length, 0);
  const done = Promise.withResolvers<void>();
  let events = 0;
  await using feed = await open(store, wakeUp);
  await consume(feed, (frame) => {
    events += frame.events.length;
    onFrame(frame);
    if (events === count) done.resolve();
  });
  running = true;
  wakeUp.nudge();
  await done.promise;
}

async function open(store: FeedStore, wakeUp: WakeUp): Promise<ChangeFeed> {
  const feed = createFeed({ store, wakeUp });
  await feed.start(new AbortController().signal);
  return new ChangeFeed(feed, () => feed.stop());
}

/** Hands over the events alone. */
async function consume(feed: ChangeFeed, onEvents: (frame: EventsFrame) => void): Promise<void> {
  await feed.follow({ from: "now" }, (frame) => {
    if (frame.kind === "events") onEvents(frame);
  });
}

function delegating(memory: MemoryStore, own: Pick<FeedStore, "advance">): FeedStore {
  return {
    epoch: memory.epoch,
    lineage: memory.lineage,
    bounds: (until) => memory.bounds(until),
    readAfter: (after, until) => memory.readAfter(after, until),
    tickOf: (version, until) => memory.tickOf(version, until),
    tickAt: (time, until) => memory.tickAt(time, until),
    snapshot: (request, until) => memory.snapshot(request, until),
    publish: (request, until) => memory.publish(request, until),
    settled: (xid, until) => memory.settled(xid, until),
    ...own,
  };
}

function emitterLatencies(): number[] {
  const emitter = new EventEmitter();
  const taken: number[] = [];
  let begun = 0n;
  emitter.on("event", () => taken.push(Number(process.hrtime.bigint() - begun) / 1_000));
  for (let i = 0; i < 100_000; i += 1) {
    begun = process.hrtime.bigint();
    emitter.emit("event", text);
  }
  return taken.slice(20_000);
}

function emitterThroughput(all: readonly Page[]): number {
  const emitter = new EventEmitter();
  let events = 0;
  emitter.on("event", () => (events += 1));
  const begun = performance.now();
  for (const page of all) for (const event of page.events) emitter.emit("event", event);
  return events / ((performance.now() - begun) / 1_000);
}
