// The core alone: what it costs to find out who wants an event, to make its frame and to hand it to many streams, without a
// wire and without a store. What a stream that has nothing to do costs in memory. Run with --expose-gc for the latter.
import { systemClock, systemTimers } from "../src/core/clock.ts";
import type { Event } from "../src/core/event.ts";
import { DEFAULT_LIMITS } from "../src/core/feed/feed-limits.ts";
import { StreamHost } from "../src/core/feed/stream-host.ts";
import type { OpenStream, StreamRequest } from "../src/core/feed.ts";
import { Log } from "../src/core/log/log.ts";
import type { Outlet } from "../src/core/outlet.ts";
import { eventBytes, type Page } from "../src/core/page.ts";
import { compileSelectors, type Selector } from "../src/core/selector/selector.ts";
import { systemRandomBytes } from "../src/core/stream/stream-directory.ts";
import { lifeOf } from "../src/core/stream/stream-life.ts";
import { benchOptions, type Measurement, percentile, report } from "./report.ts";

const { seconds } = benchOptions(2);
const payload = new Uint8Array(250);
const codec = { identity: "bench", measure: eventBytes };

/** Counts, and takes everything. */
class Sink implements Outlet {
  readonly ready = true;
  readonly inline: boolean;
  frames = 0;
  events = 0;

  constructor(inline: boolean) {
    this.inline = inline;
  }

  write(frame: Parameters<Outlet["write"]>[0]): void {
    this.frames += 1;
    this.events += frame.kind === "events" ? frame.events.length : 0;
  }

  end(): void {}
}

/** A log, its streams, and pages for it. */
class Core {
  readonly log = new Log({ maxBytes: 64 * 1024 * 1024, head: 0, tick: undefined });
  readonly host: StreamHost;
  #tick = 0;

  constructor() {
    const { log } = this;
    const view = { epoch: "e", log, stale: false, draining: false, oldest: 1, failure: undefined, over: false };
    const history = { readAfter: () => Promise.reject(new Error("the log holds everything")) };
    const none = () => Promise.reject(new Error("nothing is copied"));
    const store = { ...history, snapshot: none, tickOf: none };
    const limits = { ...DEFAULT_LIMITS, maxLanes: 20_000 };
    this.host = new StreamHost(view, {
      store,
      history,
      randomBytes: systemRandomBytes,
      limits,
      clock: systemClock,
      timers: systemTimers,
    });
    log.onAppend = (page) => this.host.appended(page);
  }

  open(selectors: readonly Selector[] = []): OpenStream {
    const request: StreamRequest = {
      start: { kind: "now" },
      selectors,
      checkpointIntervalMs: 60_000,
      maxBatchBytes: 1024 * 1024,
      codec,
      afterTransaction: undefined,
      deadlineMs: undefined,
    };
    this.host.enter(undefined);
    const version = this.log.head;
    const start = { position: { version, tick: this.log.tickOf(version) }, snapshot: undefined };
    const ending = new AbortController();
    const life = lifeOf(undefined, 0, systemClock);
    return this.host.open({ request, matcher: compileSelectors(selectors), start, ending, life });
  }

  page(count: number, key = "k"): Page {
    const firstVersion = this.log.head + 1;
    this.#tick += 1;
    const tick = { tick: this.#tick, firstVersion, count, timeMicros: this.#tick, fingerprint: this.#tick };
    const events = Array.from({ length: count }, (_, i) => eventOf(firstVersion + i, key));
    return { firstVersion, events, ticks: [tick], bytes: count * 460 };
  }
}

function eventOf(version: number, key: string): Event {
  return {
    version,
    topic: "orders",
    key,
    operation: "INSERT",
    before: undefined,
    after: payload,
    transaction: "1",
    occurredAtMicros: 0,
    headers: undefined,
  };
}

/** Runs it, and answers how many seconds of one core that took: other work on the machine does not count. */
async function cpuSeconds(work: () => unknown): Promise<number> {
  const before = process.cpuUsage();
  await work();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1e6;
}

const turn = () => new Promise((resolve) => setImmediate(resolve));

/** Deliveries per second to so many streams of one lane, by pages of so many events. */
async function fanOut(streams: number, inline: boolean, count: number): Promise<number> {
  const core = new Core();
  const sink = new Sink(inline);
  for (let i = 0; i < streams; i++) {
    core.open().attach(sink);
  }
  await turn();
  let appends = 0;
  const cost = await cpuSeconds(async () => {
    const begunMs = performance.now();
    while (performance.now() - begunMs < seconds * 1_000) {
      core.log.append(core.page(count));
      appends += 1;
      while (sink.events < appends * count * streams) {
        await turn();
      }
    }
  });
  return sink.events / cost;
}

/** Nanoseconds from before the append to the callback, of one stream. */
function latencies(): readonly number[] {
  const core = new Core();
  const taken: number[] = [];
  let begun = 0n;
  core.open().attach({
    ready: true,
    inline: true,
    write: () => taken.push(Number(process.hrtime.bigint() - begun)),
    end: () => undefined,
  });
  for (let i = 0; i < 200_000; i++) {
    const page = core.page(1);
    begun = process.hrtime.bigint();
    core.log.append(page);
  }
  return taken.slice(50_000);
}

/** Events per second into one consumer, pages prepared. */
async function batched(): Promise<number> {
  let best = 0;
  for (let round = 0; round < 5; round++) {
    const core = new Core();
    const source = new Core();
    const pages: Page[] = [];
    for (let i = 0; i < 500; i++) {
      const page = source.page(1_000);
      source.log.append(page);
      pages.push(page);
    }
    const sink = new Sink(true);
    core.open().attach(sink);
    const cost = await cpuSeconds(() => {
      for (const page of pages) {
        core.log.append(page);
      }
    });
    best = Math.max(best, sink.events / cost);
  }
  return best;
}

/** Lanes of a key each: microseconds to open one, and to append an event that one of them wants. */
async function keyed(lanes: number): Promise<{ readonly openUs: number; readonly appendUs: number }> {
  const core = new Core();
  const sink = new Sink(true);
  const opening = await cpuSeconds(() => {
    for (let i = 0; i < lanes; i++) {
      core.open([{ topics: ["orders"], keys: [`${i}`], operations: [] }]).attach(sink);
      if (i % 10 === 0) {
        core.log.append(core.page(1, "0"));
      }
    }
  });
  await turn();
  const appends = 100_000;
  const appending = await cpuSeconds(() => {
    for (let i = 0; i < appends; i++) {
      core.log.append(core.page(1, `${i % lanes}`));
    }
  });
  return { openUs: (opening * 1e6) / lanes, appendUs: (appending * 1e6) / appends };
}

/** Bytes of heap for each stream that has delivered something and waits. */
async function idleBytes(streams: number): Promise<number> {
  const core = new Core();
  const sink = new Sink(false);
  const before = await heap();
  for (let i = 0; i < streams; i++) {
    core.open().attach(sink);
  }
  await turn();
  core.log.append(core.page(1));
  await turn();
  await turn();
  const bytes = ((await heap()) - before) / streams;
  return sink.frames === streams && core.host.size === streams ? bytes : Number.NaN;
}

async function heap(): Promise<number> {
  for (let i = 0; i < 4; i++) {
    globalThis.gc?.();
    await turn();
  }
  return process.memoryUsage().heapUsed;
}

const lines: Measurement[] = [];
const add = (what: string, value: number, unit: string, reach?: { readonly target: string; readonly met: boolean }) =>
  lines.push({ what, value, unit, ...reach });

// First, while the heap holds nothing else.
const bytes = await idleBytes(10_000);
if (globalThis.gc !== undefined) {
  add("heap of a stream that waits, of 10,000", bytes, "B", { target: "<= 1.5 kB", met: bytes <= 1_536 });
}
const shared = await fanOut(1_000, false, 1);
add("1,000 streams of one lane, an event each", shared, "deliveries/s", { target: ">= 3 M/s", met: shared >= 3e6 });
add("the same, in the append itself", await fanOut(1_000, true, 1), "deliveries/s");
add("10,000 streams of one lane", await fanOut(10_000, false, 1), "deliveries/s");
const single = latencies();
const p50 = percentile(single, 0.5) / 1_000;
add("append to callback, p50", p50, "us", { target: "< 1 us", met: p50 < 1 });
add("append to callback, p99", percentile(single, 0.99) / 1_000, "us");
const pages = await batched();
add("append to callback, pages of 1,000", pages, "events/s", { target: ">= 10 M/s", met: pages >= 1e7 });
const { openUs, appendUs } = await keyed(10_000);
add("10,000 lanes of a key each: open one, with appends in between", openUs, "us");
add("the same: append an event that one of them wants", appendUs, "us");
report("in-core", lines, "no store and no wire; events of 250 B; rates by CPU time of all threads");
// Streams wait for their next checkpoints.
process.exit(0);
