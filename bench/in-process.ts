// The feed without a wire: from the append of a page to the callback of a consumer in the same process, one event at a time
// and in pages as a busy tail brings them, beside Node's EventEmitter, which keeps nothing and promises nothing.
import { EventEmitter } from "node:events";
import { createFeed } from "../src/core/feed-service.ts";
import type { Frame } from "../src/core/frame.ts";
import type { Outlet } from "../src/core/outlet.ts";
import { eventBytes, type Page } from "../src/core/page.ts";
import type { FeedStore } from "../src/core/ports.ts";
import { createMemoryStore, type MemoryStore } from "../src/memory/store.ts";
import { medianOf } from "./load/contest.ts";
import { payload } from "./load/message.ts";
import { benchOptions, percentile, report } from "./report.ts";

const { seconds } = benchOptions(4);
const rounds = 3;
const signal = new AbortController().signal;
const text = payload(0n);

const single = await latencies(Math.round(seconds * 25_000));
const batched: number[] = [];
const emitted: number[] = [];
const pages = await preparePages(Math.round(seconds * 250_000));
for (let round = 0; round < rounds; round += 1) {
  batched.push(await throughput(pages));
  emitted.push(emitterThroughput(pages));
}

report(
  "in-process",
  [
    {
      what: "append to callback, one event at a time, p50",
      value: percentile(single.fromAppend, 0.5),
      unit: "us",
      baseline: { what: "EventEmitter.emit", value: percentile(emitterLatencies(), 0.5) },
      target: "< 1 us",
      met: percentile(single.fromAppend, 0.5) < 1,
    },
    { what: "the same, p99", value: percentile(single.fromAppend, 0.99), unit: "us" },
    {
      what: "commit to callback, tick of the store in memory included, p50",
      value: percentile(single.fromCommit, 0.5),
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

/** In microseconds. */
interface Latencies {
  readonly fromCommit: number[];
  readonly fromAppend: number[];
}

async function latencies(count: number): Promise<Latencies> {
  const memory = createMemoryStore();
  let appendedAt = 0n;
  const store = delegating(memory, {
    async advance(after, until) {
      const page = await memory.advance(after, until);
      appendedAt = process.hrtime.bigint();
      return page;
    },
  });
  const fromCommit: number[] = [];
  const fromAppend: number[] = [];
  await using feed = await open(store, memory);
  let committedAt = 0n;
  let received = Promise.withResolvers<void>();
  await feed.consume(() => {
    const now = process.hrtime.bigint();
    fromAppend.push(Number(now - appendedAt) / 1_000);
    fromCommit.push(Number(now - committedAt) / 1_000);
    received.resolve();
  });
  for (let i = 0; i < count; i += 1) {
    received = Promise.withResolvers();
    // The tail goes to sleep first: what is measured is how it wakes.
    await new Promise(setImmediate);
    const transaction = memory.begin();
    transaction.emit({ topic: "bench", key: "k", operation: "MESSAGE", payload: text, headers: {} });
    committedAt = process.hrtime.bigint();
    transaction.commit();
    await received.promise;
  }
  return { fromCommit: fromCommit.slice(count / 5), fromAppend: fromAppend.slice(count / 5) };
}

async function preparePages(count: number): Promise<readonly Page[]> {
  const memory = createMemoryStore();
  for (let i = 0; i < count; i += 1_000) {
    const transaction = memory.begin();
    for (let j = 0; j < 1_000; j += 1) {
      transaction.emit({ topic: "bench", key: "k", operation: "MESSAGE", payload: text, headers: {} });
    }
    transaction.commit();
    await memory.advance(i, signal);
  }
  const made: Page[] = [];
  for (let after = 0; after < count; after += 1_000) {
    const page = await memory.readAfter(after, signal);
    if (page !== undefined) made.push(page);
  }
  return made;
}

/** Events per second from the first page's append to the last event's callback. */
async function throughput(all: readonly Page[]): Promise<number> {
  const memory = createMemoryStore();
  const count = all.reduce((sum, page) => sum + page.events.length, 0);
  let go = false;
  const store = delegating(memory, {
    // Pages are of the same shape in every store; these were settled by another one.
    advance: async (after) => (go ? all[Math.round(after / 1_000)] : undefined),
  });
  await using feed = await open(store, memory);
  const done = Promise.withResolvers<void>();
  let events = 0;
  await feed.consume((frame) => {
    if (frame.kind === "events") events += frame.events.length;
    if (events === count) done.resolve();
  });
  go = true;
  const begun = performance.now();
  memory.wakeUp.nudge();
  await done.promise;
  return count / ((performance.now() - begun) / 1_000);
}

interface OpenFeed extends AsyncDisposable {
  consume(onFrame: (frame: Frame) => void): Promise<void>;
}

async function open(store: FeedStore, { wakeUp }: MemoryStore): Promise<OpenFeed> {
  const feed = createFeed({ store, wakeUp });
  await feed.start(signal);
  const codec = { identity: "objects", measure: eventBytes };
  const request = {
    start: { kind: "now" },
    selectors: [],
    checkpointIntervalMs: 60_000,
    maxBatchBytes: 1 << 20,
  } as const;
  return {
    async consume(onFrame) {
      const stream = await feed.open({ ...request, codec, afterTransaction: undefined, deadlineMs: undefined }, signal);
      const outlet: Outlet = {
        ready: true,
        inline: true,
        write: (frame) => {
          if (frame.kind === "events") onFrame(frame);
        },
        end: () => undefined,
      };
      stream.attach(outlet);
    },
    [Symbol.asyncDispose]: () => feed.stop(),
  };
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
