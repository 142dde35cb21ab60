import type { Version } from "../../../src/core/event.ts";
import { createHistoryReaders, type HistoryReaders } from "../../../src/core/history/history-readers.ts";
import { eventBytes, type Page, pageEnd, tickIndexFrom } from "../../../src/core/page.ts";
import { emptyHistory, settleTick } from "./history-maker.ts";
import { ManualTime } from "./manual-time.ts";

/** A table whose answers come when they are let: `pending` is what was asked for. */
export class SlowTable {
  readonly #history = emptyHistory();
  readonly #pageEvents: (after: Version) => number;
  /** Where reads began, in the order in which they did. */
  readonly starts: Version[] = [];
  readonly pending: { readonly after: Version; answer(): void; fail(error: unknown): void }[] = [];
  /** Reads that were cut. */
  cut = 0;

  constructor(versions: number, tickEvents: number, pageEvents: (after: Version) => number) {
    for (let made = 0; made < versions; made += tickEvents) {
      const count = Math.min(tickEvents, versions - made);
      settleTick(
        this.#history,
        Array.from({ length: count }, () => "t"),
      );
    }
    this.#pageEvents = pageEvents;
  }

  get head(): Version {
    return this.#history.events.length;
  }

  readAfter(after: Version, signal: AbortSignal): Promise<Page | undefined> {
    this.starts.push(after);
    return new Promise((resolve, reject) => {
      const read = {
        after,
        answer: () => resolve(this.#page(after)),
        fail: reject,
      };
      this.pending.push(read);
      signal.addEventListener("abort", () => {
        this.cut += 1;
        this.#remove(read);
        reject(signal.reason);
      });
    });
  }

  answer(index: number): void {
    const [read] = this.pending.splice(index, 1);
    read?.answer();
  }

  fail(index: number, error: unknown): void {
    const [read] = this.pending.splice(index, 1);
    read?.fail(error);
  }

  #remove(read: (typeof this.pending)[number]): void {
    const at = this.pending.indexOf(read);
    if (at !== -1) {
      this.pending.splice(at, 1);
    }
  }

  #page(after: Version): Page | undefined {
    const events = this.#history.events.slice(after, after + this.#pageEvents(after));
    if (events.length === 0) {
      return undefined;
    }
    const { ticks } = this.#history;
    const to = tickIndexFrom(ticks, after + events.length) + 1;
    const page = { firstVersion: after + 1, events, ticks: ticks.slice(tickIndexFrom(ticks, after + 1), to) };
    return { ...page, bytes: events.reduce((sum, event) => sum + eventBytes(event), 0) };
  }
}

/** Chance that can be had again: mulberry32. */
export function seeded(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}

/** How a crowd of readers is put together. */
export interface Crowd {
  readonly seed: number;
  readonly readers: number;
  readonly versions: number;
  readonly pageEvents: number;
  /** Pages end early by chance, as events of many sizes make them. */
  readonly uneven: boolean;
  readonly maxReads: number;
  readonly cacheMaxBytes: number;
  /** Of 100 steps, how many cut a reader, which begins again; and how many let time pass. */
  readonly aborts: number;
  readonly pauses: number;
}

/** What is wrong with what stands between readers and table. */
export type Fault = (readers: HistoryReaders, table: SlowTable) => Pick<HistoryReaders, "readAfter">;

/** More turns of the event loop than it takes to answer everybody. */
const IDLE_TURNS = 1_000;

interface Walker {
  position: Version;
  readonly start: Version;
  readonly received: Version[];
  ending: AbortController;
  done: boolean;
}

/** What came of a crowd: what the judge objects to, and how often the table was read. */
export interface Outcome {
  readonly objections: string[];
  readonly reads: number;
  readonly cut: number;
  readonly shared: number;
}

/** Readers at random positions read to the head, in a random order of events; everything comes to its end. */
export async function playCrowd(crowd: Crowd, fault?: Fault): Promise<Outcome> {
  const chance = seeded(crowd.seed);
  const time = new ManualTime();
  const { pageEvents, uneven, maxReads, cacheMaxBytes } = crowd;
  const table = new SlowTable(crowd.versions, 7, (after) => (uneven ? 1 + ((after * 7919) % pageEvents) : pageEvents));
  const readers = createHistoryReaders(table, {
    maxReads,
    cacheMaxBytes,
    clock: time,
    timers: time,
  });
  const asked = fault?.(readers, table) ?? readers;
  const objections: string[] = [];
  const walkers = Array.from({ length: crowd.readers }, (): Walker => {
    const start = chance(crowd.versions);
    return { start, position: start, received: [], ending: new AbortController(), done: false };
  });
  const walking = walkers.map((walker) => walk(walker, asked, table, objections));
  for (let idle = 0; walkers.some(({ done }) => !done) && objections.length === 0; idle++) {
    await time.turn();
    if (table.pending.length > maxReads && fault === undefined) {
      objections.push(`${table.pending.length} reads at once`);
    }
    const dice = chance(100);
    if (dice < crowd.aborts) {
      walkers[chance(walkers.length)]?.ending.abort(new Error("cut"));
    } else if (dice < crowd.aborts + crowd.pauses) {
      await time.pass(3_000);
    } else if (table.pending.length > 0) {
      table.answer(chance(table.pending.length));
      idle = 0;
    } else if (idle > IDLE_TURNS) {
      objections.push("somebody waits for ever");
    }
  }
  readers.stop();
  if (objections.length === 0) {
    await Promise.all(walking);
    judge(walkers, table.head, objections);
  }
  const { waiting, reading, cachedBytes } = readers.stats();
  if (waiting + reading + cachedBytes + time.pending > 0) {
    objections.push(`left behind: ${waiting} waiting, ${reading} reading, ${cachedBytes} B, ${time.pending} timers`);
  }
  return { objections, reads: table.starts.length, cut: table.cut, shared: readers.stats().shared };
}

/** A stream in small: it holds its position, and when it is cut it begins again there, as somebody else. */
async function walk(
  walker: Walker,
  readers: Pick<HistoryReaders, "readAfter">,
  table: SlowTable,
  objections: string[],
): Promise<void> {
  while (!walker.done && walker.position < table.head) {
    try {
      const page = await readers.readAfter(walker.position, walker.ending, walker.ending.signal);
      const at = walker.position + 1 - (page?.firstVersion ?? 0);
      if (page === undefined || at < 0 || walker.position + 1 > pageEnd(page)) {
        objections.push(`a page from ${page?.firstVersion} for whoever stands at ${walker.position}`);
        break;
      }
      for (const event of page.events.slice(at)) {
        walker.received.push(event.version);
      }
      walker.position = pageEnd(page);
    } catch (error) {
      if (!walker.ending.signal.aborted) {
        objections.push(String(error));
        break;
      }
      walker.ending = new AbortController();
    }
  }
  walker.done = true;
}

function judge(walkers: readonly Walker[], head: Version, objections: string[]): void {
  for (const { start, received } of walkers) {
    const wrong = received.findIndex((version, i) => version !== start + 1 + i);
    if (wrong !== -1) {
      objections.push(`from ${start}: ${received[wrong]} in the place of ${start + 1 + wrong}`);
    } else if (objections.length === 0 && start + received.length !== head) {
      objections.push(`from ${start}: ends at ${start + received.length}`);
    }
  }
}
