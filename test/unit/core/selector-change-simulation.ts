import { type Cursor, encodeCursor } from "../../../src/core/cursor.ts";
import { FeedError } from "../../../src/core/errors.ts";
import { createFeed } from "../../../src/core/feed/feed-service.ts";
import type { EpochFeed, StreamRequest } from "../../../src/core/feed.ts";
import type { Frame } from "../../../src/core/frame.ts";
import type { Outlet, StreamControl } from "../../../src/core/outlet.ts";
import { tickEnd } from "../../../src/core/page.ts";
import type { PolicyKind } from "../../../src/core/policy/policy.ts";
import type { FeedStore, SnapshotReader, SnapshotRequest } from "../../../src/core/ports.ts";
import { createMemoryStore, type MemoryStore } from "../../../src/memory/store.ts";
import { createRandom, type Random } from "../../support/workload/random.ts";
import { ManualTime } from "./manual-time.ts";
import { inFrontOf, REQUEST } from "./memory-feed.ts";
import { Client, type Selection, selectorsOf, Truth, type Want } from "./selector-change-model.ts";

/** What is wrong with the world, on purpose. */
export type Fault =
  /** A snapshot of added rows misses one. */
  | "row_lost"
  /** A snapshot of added rows says that it is older than it is. */
  | "version_too_low"
  /** The client misses a frame. */
  | "frame_lost";

export interface SimulationOptions {
  readonly seed: number;
  readonly steps: number;
  readonly fault?: Fault;
  /** Default: BLOCK. */
  readonly policy?: PolicyKind;
}

export interface SimulationReport {
  readonly objections: readonly string[];
  readonly changes: number;
  readonly restarts: number;
  readonly cuts: number;
  readonly gaps: number;
}

const TOPICS = ["orders", "parcels.eu", "parcels.us"];
const PATTERNS = [["orders"], ["parcels.*"], ["parcels.eu"], ["orders", "parcels.us"], ["notes"], []];
const KEYS = ["a", "b", "c", "d", "e"];
const FIELDS = [undefined, undefined, undefined, ["id", "n"], ["id", "m"]];

/** One client, whose selectors change and whose calls are cut at random, beside writers; judged by the model. */
export async function simulateSelectorChanges(options: SimulationOptions): Promise<SimulationReport> {
  const simulation = new Simulation(options);
  try {
    return await simulation.run();
  } finally {
    await simulation.stop();
  }
}

class Simulation implements Outlet {
  readonly inline = false;
  readonly #options: SimulationOptions;
  readonly #random: Random;
  /** Frames that the client has and has not looked at. */
  readonly #frames: Frame[] = [];
  readonly #time = new ManualTime();
  readonly #memory: MemoryStore;
  readonly #feed: EpochFeed;
  readonly #truth = new Truth();
  readonly #client: Client;
  readonly #request: Omit<StreamRequest, "start" | "selectors">;
  #control: StreamControl | undefined;
  #streamId = "";
  #cursor: Cursor | undefined;
  #pending: Selection | undefined;
  #credit = 0;
  #cuts = 0;
  #faults = 0;
  #opening = false;
  #ended = false;

  constructor(options: SimulationOptions) {
    this.#options = options;
    this.#random = createRandom(options.seed);
    const time = this.#time;
    this.#memory = createMemoryStore({
      clock: time,
      sources: ["orders", "parcels.{region}"],
      pageEvents: this.#one([2, 5, 100]),
      snapshotRows: this.#one([1, 3, 100]),
      ...(this.#random.next() < 0.3 ? { snapshotMaxRows: 4 } : {}),
    });
    const store = inFrontOf(this.#memory, { snapshot: (request, signal) => this.#snapshot(request, signal) });
    const wakeUp = {
      nudge: () => undefined,
      wait: (_found: boolean, signal: AbortSignal) =>
        new Promise<void>((resolve) => {
          const cancel = time.after(10, resolve);
          signal.addEventListener("abort", () => [cancel(), resolve()], { once: true });
        }),
    };
    const limits = { logMaxBytes: this.#one([1, 2_000, 1_000_000]) };
    this.#feed = createFeed({ store, wakeUp, clock: time, timers: time, limits });
    this.#client = new Client(this.#selection(), () => this.#truth, options.policy !== undefined);
    const batches = this.#one([1, 3, undefined]);
    this.#request = {
      ...REQUEST,
      ...(options.policy === undefined ? {} : { policy: { kind: options.policy, maxLagEvents: 6, sampleEvery: 2 } }),
      checkpointIntervalMs: this.#one([20, 200]),
      checkpointEveryTick: this.#random.next() < 0.3,
      maxBatchDelayMs: this.#one([0, 0, 30]),
      ...(batches === undefined ? {} : { maxBatchEvents: batches }),
      ...(this.#random.next() < 0.2 ? { maxEventsPerSecond: 50 } : {}),
    };
  }

  get ready(): boolean {
    return this.#credit > 0;
  }

  write(frame: Frame): void {
    this.#credit -= 1;
    const { fault } = this.#options;
    if (fault === "frame_lost" && frame.kind === "events" && this.#faults++ === 5) {
      return;
    }
    this.#frames.push(frame);
  }

  /** The client looks at what it has got; the whole history is known by then. */
  async #look(): Promise<void> {
    const { signal } = new AbortController();
    for (let page = await this.#history(signal); page !== undefined; page = await this.#history(signal)) {
      for (const event of page.events) {
        this.#truth.add(event);
      }
      for (const tick of page.ticks) {
        this.#truth.boundaries.add(tickEnd(tick));
      }
    }
    for (const frame of this.#frames.splice(0)) {
      this.#cursor = frame.cursor;
      if (frame.kind === "selectors_changed") {
        this.#pending = undefined;
      }
      this.#client.take(frame);
    }
  }

  #history(signal: AbortSignal) {
    return this.#memory.readAfter(this.#truth.head, signal);
  }

  end(error: unknown): void {
    if (error !== undefined && error !== "cut") {
      this.#ended = true;
      this.#client.objections.push(`the stream ended with ${String(error)}`);
    }
  }

  async run(): Promise<SimulationReport> {
    await this.#feed.start(new AbortController().signal);
    await this.#writeSome();
    await this.#open({ kind: "snapshot" });
    for (let step = 0; step < this.#options.steps && !this.#ended; step++) {
      await this.#step();
    }
    await this.#comeToRest();
    const { objections, changes, restarts, gaps } = this.#client;
    return { objections, changes, restarts, gaps, cuts: this.#cuts };
  }

  async stop(): Promise<void> {
    await this.#feed.stop();
  }

  async #step(): Promise<void> {
    const dice = this.#random.next();
    if (dice < 0.3) {
      await this.#writeSome();
    } else if (dice < 0.4) {
      await this.#update(this.#selection());
    } else if (dice < 0.46) {
      await this.#cut();
    } else if (dice < 0.75) {
      this.#give(this.#one([1, 1, 1, 2, 5]));
    } else {
      await this.#time.pass(this.#one([0, 1, 5, 10, 50]));
    }
    if (this.#random.next() < 0.5) {
      await this.#time.turn();
    }
    await this.#look();
  }

  /** Everything is settled, and everything comes. */
  async #comeToRest(): Promise<void> {
    const rests = () => this.#pending === undefined && this.#cursor?.version === this.#feed.status().head;
    for (let round = 0; round < 400 && (round < 10 || !rests()); round++) {
      this.#give(1_000);
      await this.#time.pass(50);
      await this.#look();
    }
    if (this.#pending !== undefined) {
      this.#client.objections.push("a change never took effect");
    }
    const { head } = this.#feed.status();
    if (this.#cursor?.version !== head && this.#client.objections.length === 0) {
      this.#client.objections.push(`the stream rests at ${this.#cursor?.version}, and ${head} is settled`);
    }
  }

  async #open(start: StreamRequest["start"]): Promise<void> {
    const selectors = selectorsOf(this.#client.selection);
    const opening = this.#feed.open({ ...this.#request, start, selectors }, new AbortController().signal);
    let settled = false;
    const done = () => {
      settled = true;
    };
    this.#opening = true;
    opening.then(done, done);
    while (!settled) {
      await this.#time.pass(5);
    }
    const stream = await opening;
    this.#opening = false;
    this.#credit = 0;
    if (stream.opened.kind === "opened") {
      this.#streamId = stream.opened.streamId;
      this.#cursor = stream.opened.cursor;
    }
    this.#control = stream.attach(this);
  }

  async #cut(): Promise<void> {
    this.#control?.cancel("cut");
    await this.#look();
    if (this.#cursor === undefined) {
      return;
    }
    this.#cuts += 1;
    this.#client.reconnected();
    await this.#open({ kind: "cursor", cursor: encodeCursor(this.#cursor) });
    if (this.#pending !== undefined) {
      await this.#update(this.#pending);
    }
  }

  async #update(selection: Selection): Promise<void> {
    this.#pending = selection;
    const update = { streamId: this.#streamId, selectors: selectorsOf(selection) };
    this.#client.asked(await this.#feed.update(update, new AbortController().signal), selection);
  }

  #give(frames: number): void {
    this.#credit += frames;
    this.#control?.resume();
  }

  async #writeSome(): Promise<void> {
    for (let transactions = this.#one([1, 1, 2, 4]); transactions > 0; transactions--) {
      const transaction = this.#memory.begin();
      for (let writes = this.#one([1, 2, 5]); writes > 0; writes--) {
        await this.#writeOne(transaction);
      }
      transaction.commit();
    }
  }

  async #writeOne(transaction: ReturnType<MemoryStore["begin"]>): Promise<void> {
    const [topic, key] = [this.#one(TOPICS), this.#one(KEYS)];
    const dice = this.#random.next();
    if (dice < 0.7) {
      const row = { id: key, n: this.#random.below(4), m: this.#random.below(1_000) };
      await transaction.put(topic, key, JSON.stringify(row));
    } else if (dice < 0.88) {
      await transaction.remove(topic, key);
    } else if (dice < 0.98) {
      transaction.emit({ topic: "notes", key: undefined, operation: "MESSAGE", payload: "{}", headers: {} });
    } else {
      await transaction.truncate(this.#one(["orders", "parcels.{region}"]));
    }
  }

  async #snapshot(...[request, signal]: Parameters<FeedStore["snapshot"]>): Promise<SnapshotReader> {
    await this.#idle(this.#one([0, 0, 15, 40]));
    if (this.#random.next() < 0.2 && isOfAddition(request)) {
      const code = this.#one(["DATABASE_UNAVAILABLE", "LIMIT_EXCEEDED"] as const);
      throw new FeedError(code, "No snapshot now.", "Try again.", { retryAfterMs: 10 });
    }
    const reader = await this.#memory.snapshot(request, signal);
    await this.#idle(this.#one([0, 0, 15, 40]));
    return this.#opening ? reader : spoilt(reader, this.#options.fault);
  }

  #idle(ms: number): Promise<void> {
    return ms === 0 ? Promise.resolve() : new Promise((resolve) => void this.#time.after(ms, resolve));
  }

  #selection(): Selection {
    const wants = Array.from({ length: this.#one([1, 1, 2]) }, (): Want => {
      const keys = this.#random.next() < 0.3 ? [this.#one(KEYS), this.#one(KEYS)] : [];
      return { topics: this.#one(PATTERNS), keys, least: this.#random.next() < 0.4 ? this.#one([1, 2, 3]) : undefined };
    });
    return { wants, fields: this.#one(FIELDS) };
  }

  #one<T>(of: readonly T[]): T {
    return of[this.#random.below(of.length)] as T;
  }
}

function spoilt(reader: SnapshotReader, fault: Fault | undefined): SnapshotReader {
  if (fault === "version_too_low") {
    const { tick } = reader;
    return inFront(reader, { tick: { ...tick, firstVersion: Math.max(1, tick.firstVersion - 1) } });
  }
  return fault === "row_lost" ? inFront(reader, { rows: () => withoutFirst(reader) }) : reader;
}

async function* withoutFirst(reader: SnapshotReader) {
  let lost = false;
  for await (const { part, events } of reader.rows()) {
    yield { part, events: lost ? events : events.slice(1) };
    lost ||= events.length > 0;
  }
}

function inFront(reader: SnapshotReader, members: Partial<SnapshotReader>): SnapshotReader {
  return new Proxy(reader, {
    get: (target, name) => {
      const value: unknown = Reflect.get(members, name) ?? Reflect.get(target, name);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

/** The first copy of rows that a change adds: what is not there for it may be there later. */
function isOfAddition({ selection = "", after }: SnapshotRequest): boolean {
  const texts: readonly string[] = selection === "" ? [] : JSON.parse(selection);
  return after === undefined && texts.some((text) => text === "" || text.startsWith('["'));
}
