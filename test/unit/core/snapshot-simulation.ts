import fc from "fast-check";
import { encodeCursor } from "../../../src/core/cursor.ts";
import { FeedError } from "../../../src/core/errors.ts";
import type { Event } from "../../../src/core/event.ts";
import type { Frame } from "../../../src/core/frame.ts";
import { Log } from "../../../src/core/log/log.ts";
import { eventBytes, type Page } from "../../../src/core/page.ts";
import type { FeedStore, SnapshotReader, SnapshotRequest } from "../../../src/core/ports.ts";
import { compileSelectors, type Selector } from "../../../src/core/selector/selector.ts";
import type { SnapshotRun } from "../../../src/core/snapshot/snapshot-run.ts";
import { resolveStart } from "../../../src/core/stream/start.ts";
import { Stream } from "../../../src/core/stream/stream.ts";
import { ENDLESS } from "../../../src/core/stream/stream-life.ts";
import { createMemoryStore, type MemoryStore } from "../../../src/memory/store.ts";
import { HeldState } from "../../contract/held-state.ts";
import { lanesOf } from "./test-lanes.ts";

/** One change in a transaction. */
export type Write =
  | { readonly do: "put"; readonly topic: string; readonly key: string }
  | { readonly do: "remove"; readonly topic: string; readonly key: string }
  | { readonly do: "truncate"; readonly topic: string }
  | { readonly do: "emit" };

/** One thing that happens while a snapshot comes. */
export type Happening =
  | { readonly what: "commit"; readonly writes: readonly Write[] }
  | { readonly what: "take"; readonly frames: number }
  /** The call is cut after one of the last frames, and resumed from its cursor. */
  | { readonly what: "cut"; readonly framesBack: number }
  /** Everything settled so far is forgotten. */
  | { readonly what: "forget" }
  | { readonly what: "time"; readonly ms: number };

export interface Scenario {
  readonly before: readonly (readonly Write[])[];
  readonly happenings: readonly Happening[];
  readonly selectors: readonly Selector[];
  readonly logMaxBytes: number;
  readonly maxBatchBytes: number;
  readonly pageEvents: number;
  readonly batchRows: number;
  /** Rows of one reader; infinity for all. */
  readonly maxRows: number;
  readonly unordered: readonly string[];
}

/** What is wrong with the store, to see whether the judge sees it. */
export interface Fault {
  readonly request?: (request: SnapshotRequest) => SnapshotRequest;
  readonly reader?: (reader: SnapshotReader) => Partial<SnapshotReader>;
}

const SOURCES = ["orders", "parcels.{region}", "returns"];
const key = fc.constantFrom("a", "b", "c", "d", "e");
const place = fc.record({ topic: fc.constantFrom("orders", "parcels.eu", "parcels.us", "returns"), key });
const write: fc.Arbitrary<Write> = fc.oneof(
  { weight: 8, arbitrary: place.map((where): Write => ({ do: "put", ...where })) },
  { weight: 3, arbitrary: place.map((where): Write => ({ do: "remove", ...where })) },
  { weight: 1, arbitrary: fc.constantFrom(...SOURCES).map((topic): Write => ({ do: "truncate", topic })) },
  { weight: 2, arbitrary: fc.constant<Write>({ do: "emit" }) },
);
const writes = fc.array(write, { minLength: 1, maxLength: 6 });
const happening: fc.Arbitrary<Happening> = fc.oneof(
  { weight: 5, arbitrary: fc.record({ what: fc.constant("commit"), writes }) },
  { weight: 6, arbitrary: fc.record({ what: fc.constant("take"), frames: fc.integer({ min: 1, max: 6 }) }) },
  { weight: 4, arbitrary: fc.record({ what: fc.constant("cut"), framesBack: fc.nat(3) }) },
  { weight: 1, arbitrary: fc.record({ what: fc.constant("forget") }) },
  { weight: 2, arbitrary: fc.record({ what: fc.constant("time"), ms: fc.integer({ min: 1, max: 15_000 }) }) },
);
const selector = (topics: readonly string[], keys: readonly string[] = []): Selector => ({
  topics,
  keys,
  operations: [],
});

export const scenarios: fc.Arbitrary<Scenario> = fc
  .record({
    before: fc.array(writes, { minLength: 3, maxLength: 6 }),
    happenings: fc.array(happening, { maxLength: 30 }),
    selectors: fc.constantFrom(
      [],
      [selector(["orders", "parcels.>"])],
      [selector(["parcels.us"]), selector(["returns", "notes"])],
      [selector(["orders"], ["b", "c"]), selector(["returns"], ["a", "e"]), selector(["notes"])],
    ),
    logMaxBytes: fc.constantFrom(1, 1_000_000),
    maxBatchBytes: fc.constantFrom(1, 700, 1_000_000),
    pageEvents: fc.integer({ min: 1, max: 7 }),
    batchRows: fc.integer({ min: 1, max: 4 }),
    maxRows: fc.constantFrom(2, 5, Number.POSITIVE_INFINITY),
    unordered: fc.subarray(SOURCES, { maxLength: 1 }),
  })
  // Without an order, too little room is an error, and rightly.
  .map((scenario) => ({ ...scenario, unordered: scenario.maxRows < 100 ? [] : scenario.unordered }));

/** Plays a scenario to its end, where the client holds what the tables hold; answers what the judge objects to. */
export async function simulate(scenario: Scenario, fault: Fault = {}): Promise<string[]> {
  const simulation = new Simulation(scenario, fault);
  try {
    await simulation.run();
  } catch (error) {
    simulation.objections.push(String(error));
  }
  return simulation.objections;
}

const { signal } = new AbortController();

class Simulation {
  readonly objections: string[] = [];
  readonly #scenario: Scenario;
  readonly #memory: MemoryStore;
  readonly #store: FeedStore;
  readonly #log: Log;
  /** Every event since the first version, whatever the store has forgotten. */
  readonly #events: Event[] = [];
  #frames: Frame[] = [];
  #stream: Stream | undefined;
  #run: SnapshotRun | undefined;
  #nowMs = 0;
  #writes = 0;
  #lost = false;

  constructor(scenario: Scenario, fault: Fault) {
    this.#scenario = scenario;
    const clock = { now: () => this.#nowMs, monotonic: () => this.#nowMs, random: () => 0.5 };
    this.#memory = createMemoryStore({
      sources: SOURCES,
      pageEvents: scenario.pageEvents,
      snapshotRows: scenario.batchRows,
      snapshotMaxRows: scenario.maxRows,
      unordered: scenario.unordered,
      clock,
    });
    this.#store = withFault(this.#memory, fault);
    this.#log = new Log({ maxBytes: scenario.logMaxBytes, head: 0, tick: undefined });
  }

  async run(): Promise<void> {
    for (const transaction of this.#scenario.before) {
      await this.#commit(transaction);
    }
    await this.#open({ kind: "snapshot" });
    for (const happening of this.#scenario.happenings) {
      await this.#happen(happening);
    }
    await this.#finish();
  }

  get #isComplete(): boolean {
    return this.#frames.some(({ kind }) => kind === "snapshot_complete");
  }

  async #happen(happening: Happening): Promise<void> {
    switch (happening.what) {
      case "commit":
        await this.#commit(happening.writes);
        break;
      case "take":
        if (!this.#isComplete) {
          await this.#take(happening.frames);
        }
        break;
      case "cut":
        await this.#cut(happening.framesBack);
        break;
      case "forget":
        this.#memory.retainFrom(this.#events.length + 1);
        break;
      case "time":
        this.#nowMs += happening.ms;
        break;
    }
  }

  async #commit(changes: readonly Write[]): Promise<void> {
    const transaction = this.#memory.begin();
    for (const change of changes) {
      const json = JSON.stringify({ n: ++this.#writes });
      if (change.do === "put") {
        await transaction.put(change.topic, change.key, json);
      } else if (change.do === "remove") {
        await transaction.remove(change.topic, change.key);
      } else if (change.do === "truncate") {
        await transaction.truncate(change.topic);
      } else {
        transaction.emit({ topic: "notes", key: undefined, operation: "MESSAGE", payload: json, headers: {} });
      }
    }
    transaction.commit();
    for (;;) {
      const page = await this.#memory.advance(this.#log.head, signal);
      if (page === undefined) {
        return;
      }
      this.#events.push(...page.events);
      this.#log.append(page);
    }
  }

  async #open(start: Parameters<typeof resolveStart>[0]): Promise<void> {
    const matcher = compileSelectors(this.#scenario.selectors);
    const { wakeUp } = this.#memory;
    const context = { store: this.#store, log: this.#log, wakeUp, matcher, oldest: 1, failure: () => undefined };
    const { position, snapshot } = await resolveStart(start, context, signal);
    const view = { epoch: this.#memory.epoch, log: this.#log, stale: false, draining: false, oldest: 1 };
    const batch = { maxEvents: Number.POSITIVE_INFINITY, maxBytes: this.#scenario.maxBatchBytes };
    const codec = { identity: "test", measure: eventBytes };
    const lane = lanesOf(view).acquire({ matcher, codec, batch });
    const clock = { now: () => this.#nowMs, monotonic: () => this.#nowMs, random: () => 0.5 };
    const options = { lane, checkpointIntervalMs: 10_000, life: ENDLESS };
    this.#stream = new Stream(position, view, options, clock);
    this.#run = snapshot?.run;
    if (snapshot === undefined) {
      this.#stream.begin();
    } else {
      this.#stream.beginSnapshot(snapshot.started);
    }
  }

  /** Takes frames until there are so many, or the stream waits. */
  async #take(frames: number): Promise<"took" | "waits" | "ended"> {
    const stream = this.#stream;
    for (let taken = 0, steps = 0; stream !== undefined && taken < frames; steps++) {
      if (this.#lost) {
        return "ended";
      }
      if (steps > 10_000) {
        throw new Error("the stream goes round in circles");
      }
      const action = stream.step(this.#nowMs);
      if (action.kind === "emit") {
        this.#judge(action.frame);
        taken += 1;
      } else if (action.kind === "snapshot") {
        stream.supplySnapshot(await this.#run?.next());
      } else if (action.kind === "read") {
        stream.supply(await this.#history(action.after));
      } else if (action.kind === "wait") {
        return "waits";
      }
    }
    return "took";
  }

  /** Past the snapshot a stream needs the history that it has not passed, and ends without. */
  async #history(after: number): Promise<Page | undefined> {
    try {
      return await this.#store.readAfter(after, signal);
    } catch (error) {
      if (!(error instanceof FeedError && error.code === "HISTORY_LOST")) {
        throw error;
      }
      this.#lost = true;
      return undefined;
    }
  }

  async #cut(framesBack: number): Promise<void> {
    const at = this.#frames.length - 1 - framesBack;
    const from = this.#frames[at];
    if (from === undefined || !("cursor" in from) || this.#isComplete) {
      return;
    }
    await this.#run?.close();
    this.#frames = this.#frames.slice(0, at + 1);
    await this.#open({ kind: "cursor", cursor: encodeCursor(from.cursor) });
  }

  async #finish(): Promise<void> {
    while ((await this.#take(1_000)) === "took") {
      // More to come.
    }
    if (this.#lost) {
      return;
    }
    const held = new HeldState().take(this.#frames);
    const end = this.#events.length;
    this.#expectRows(held, end, () => true, "at the end");
    const began =
      this.#frames.findLast((frame) => frame.kind === "snapshot_started" && !frame.resumed) ?? this.#frames[0];
    const after = began !== undefined && "version" in began ? began.version : 0;
    const { matches } = compileSelectors(this.#scenario.selectors);
    const messages = this.#events.filter((event) => event.operation === "MESSAGE" && matches(event));
    const wanted = messages.map(({ version }) => version).filter((version) => version > after);
    if (wanted.join() !== held.messages.join()) {
      this.objections.push(`got the messages ${held.messages.join()} instead of ${wanted.join()}`);
    }
  }

  /** Everything that the frame's cursor covers, and nothing else, is held as it was at the cursor's version. */
  #judge(frame: Frame): void {
    this.#frames.push(frame);
    const held = new HeldState().take(this.#frames);
    this.objections.push(...held.objections);
    if (!("cursor" in frame) || frame.cursor.snapshot === "anew") {
      return;
    }
    const { snapshot, version } = frame.cursor;
    const topics = SOURCES.filter(compileSelectors(this.#scenario.selectors).wantsSource);
    const covered = (topic: string, rowKey: string): boolean => {
      const [table = ""] = topic.split(".");
      const source = topics.findIndex((one) => one.startsWith(table));
      if (snapshot === undefined || source < snapshot.sources) {
        return true;
      }
      return source === snapshot.sources && snapshot.key !== undefined && rowKey <= snapshot.key;
    };
    this.#expectRows(held, version, covered, `at a frame of kind ${frame.kind}`);
  }

  #expectRows(held: HeldState, version: number, covered: (topic: string, key: string) => boolean, where: string): void {
    const { matches } = compileSelectors(this.#scenario.selectors);
    const events = this.#events.filter((event) => event.version <= version && event.operation !== "MESSAGE");
    const table = new HeldState();
    for (const event of events) {
      table.take([{ kind: "events", events: [event], cursor: NO_CURSOR, complete: false }]);
    }
    const wanted = [...table.rows].filter(([name]) => {
      const [topic = "", rowKey = ""] = name.split("/");
      const row = { topic, key: rowKey, operation: "SNAPSHOT" as const, version, ...EMPTY };
      return matches(row) && covered(topic, rowKey);
    });
    const [got, due] = [[...held.rows].sort(), wanted.sort()].map((rows) => JSON.stringify(rows));
    if (got !== due) {
      this.objections.push(`${where}, as of ${version}: holds ${got} instead of ${due}`);
    }
  }
}

const NO_CURSOR = { epoch: "", version: 0, fingerprint: 0, snapshot: undefined };
const EMPTY = { before: undefined, after: undefined, transaction: "", occurredAtMicros: 0, headers: undefined };

function withFault(store: MemoryStore, fault: Fault): FeedStore {
  return inFrontOf<FeedStore>(store, {
    snapshot: async (request, ending) => {
      const reader = await store.snapshot(fault.request?.(request) ?? request, ending);
      return fault.reader === undefined ? reader : inFrontOf(reader, fault.reader(reader));
    },
  });
}

/** The same object with some members in front of its own. */
function inFrontOf<T extends object>(object: T, members: Partial<T>): T {
  return new Proxy(object, {
    get: (target, name) => {
      const value: unknown = Reflect.get(members, name) ?? Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}
