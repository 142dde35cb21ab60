import fc from "fast-check";
import type { Cursor } from "../../../src/core/cursor.ts";
import type { Frame } from "../../../src/core/frame.ts";
import type { Lane } from "../../../src/core/lane/lane.ts";
import type { LaneTable } from "../../../src/core/lane/lane-table.ts";
import { Log } from "../../../src/core/log/log.ts";
import { eventBytes, type Page, tickEnd } from "../../../src/core/page.ts";
import { compileSelectors } from "../../../src/core/selector/selector.ts";
import type { Position } from "../../../src/core/stream/scan.ts";
import { type FeedView, Stream } from "../../../src/core/stream/stream.ts";
import { ENDLESS } from "../../../src/core/stream/stream-life.ts";
import { emptyHistory, type MadeHistory, pageOf, settleTick } from "./history-maker.ts";
import { lanesOf } from "./test-lanes.ts";

/** One thing that happens to a feed and its one stream. */
export type Happening =
  | { readonly what: "settle"; readonly topics: readonly string[] }
  /** The tail appends its next page to the log. */
  | { readonly what: "tail"; readonly maxEvents: number }
  /** The client takes so many frames, if there are any. */
  | { readonly what: "take"; readonly frames: number }
  /** The database answers the read that is under way. */
  | { readonly what: "answer"; readonly maxEvents: number }
  | { readonly what: "read_fails" }
  | { readonly what: "forget" }
  | { readonly what: "time"; readonly ms: number }
  | { readonly what: "stale"; readonly stale: boolean }
  /** The call is cut after one of the last frames, and resumed from its cursor. */
  | { readonly what: "cut"; readonly framesBack: number };

export interface Scenario {
  readonly happenings: readonly Happening[];
  readonly logMaxBytes: number;
  readonly maxBatchBytes: number;
  readonly wanted: readonly string[];
  readonly start: number;
}

/** What is wrong with the parts around the stream, to see whether the judge sees it. */
export interface Fault {
  readonly log?: (options: ConstructorParameters<typeof Log>[0]) => Log;
  readonly page?: (page: Page) => Page;
  readonly resume?: (cursor: Cursor) => number;
}

const EPOCH = "7a0c4e9e-2f6e-4a55-9f5e-0c8a3b1d2e4f";
const TICK_ZERO = { tick: 0, firstVersion: 1, count: 0, timeMicros: 0, fingerprint: 99 };

const topic = fc.constantFrom("a", "b", "c");
const happening: fc.Arbitrary<Happening> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ what: fc.constant("settle"), topics: fc.array(topic, { minLength: 1, maxLength: 7 }) }),
  },
  { weight: 4, arbitrary: fc.record({ what: fc.constant("tail"), maxEvents: fc.integer({ min: 1, max: 9 }) }) },
  { weight: 5, arbitrary: fc.record({ what: fc.constant("take"), frames: fc.integer({ min: 1, max: 5 }) }) },
  { weight: 4, arbitrary: fc.record({ what: fc.constant("answer"), maxEvents: fc.integer({ min: 1, max: 9 }) }) },
  { weight: 1, arbitrary: fc.record({ what: fc.constant("read_fails") }) },
  { weight: 1, arbitrary: fc.record({ what: fc.constant("forget") }) },
  { weight: 2, arbitrary: fc.record({ what: fc.constant("time"), ms: fc.integer({ min: 1, max: 25_000 }) }) },
  { weight: 1, arbitrary: fc.record({ what: fc.constant("stale"), stale: fc.boolean() }) },
  { weight: 1, arbitrary: fc.record({ what: fc.constant("cut"), framesBack: fc.nat(4) }) },
);

export const scenarios: fc.Arbitrary<Scenario> = fc.record({
  happenings: fc.array(happening, { maxLength: 60 }),
  logMaxBytes: fc.constantFrom(1, 500, 2_000, 1_000_000),
  maxBatchBytes: fc.constantFrom(1, 450, 1_000, 1_000_000),
  wanted: fc.subarray(["a", "b", "c"]),
  start: fc.nat(10),
});

/** Plays a scenario to its end, where everything settled is delivered; answers what the judge objects to. */
export function simulate(scenario: Scenario, fault: Fault = {}): string[] {
  const simulation = new Simulation(scenario, fault);
  try {
    for (const each of scenario.happenings) {
      simulation.happen(each);
    }
    simulation.finish();
  } catch (error) {
    simulation.objections.push(String(error));
  }
  return simulation.objections;
}

class Simulation {
  readonly objections: string[] = [];
  readonly #scenario: Scenario;
  readonly #fault: Fault;
  readonly #history: MadeHistory = emptyHistory();
  readonly #log: Log;
  readonly #view: { stale: boolean } & FeedView;
  #nowMs = 0;
  readonly #lanes: LaneTable;
  #lane: Lane | undefined;
  #stream: Stream;
  #reading: number | undefined;
  #start: number;
  /** The frames of this stream, cuts joined, with the versions received up to and including each. */
  #frames: { readonly frame: Frame; readonly received: readonly number[] }[] = [];

  constructor(scenario: Scenario, fault: Fault) {
    this.#scenario = scenario;
    this.#fault = fault;
    const options = { maxBytes: scenario.logMaxBytes, head: 0, tick: TICK_ZERO };
    this.#log = fault.log?.(options) ?? new Log(options);
    this.#view = { epoch: EPOCH, log: this.#log, stale: false, draining: false, oldest: 1 };
    this.#lanes = lanesOf(this.#view);
    settleTick(
      this.#history,
      Array.from({ length: 6 }, (_, i) => "abc"[i % 3] ?? "a"),
    );
    settleTick(this.#history, ["a", "a", "b", "c"]);
    this.#start = scenario.start;
    this.#stream = this.#open(scenario.start);
  }

  happen(happening: Happening): void {
    switch (happening.what) {
      case "settle":
        settleTick(this.#history, happening.topics);
        break;
      case "tail":
        this.#tail(happening.maxEvents);
        break;
      case "take":
        this.#take(happening.frames);
        break;
      case "answer":
        this.#answer(happening.maxEvents);
        break;
      case "read_fails":
        if (this.#reading !== undefined) {
          this.#reading = undefined;
          this.#stream.supply(undefined);
        }
        break;
      case "forget":
        this.#stream.forget();
        break;
      case "time":
        this.#nowMs += happening.ms;
        break;
      case "stale":
        this.#view.stale = happening.stale;
        break;
      case "cut":
        this.#cut(happening.framesBack);
        break;
    }
  }

  /** Everything comes in; then the stream must have delivered it all and say so. */
  finish(): void {
    this.#view.stale = false;
    for (let i = 0; i < 1_000 && this.#log.head < this.#history.events.length; i++) {
      this.#tail(50);
    }
    for (let i = 0; i < 1_000 && this.#take(1_000) !== "waits"; i++) {
      this.#answer(50);
    }
    this.#nowMs += 60_000;
    this.#take(1_000);
    const received = this.#frames.at(-1)?.received ?? [];
    this.#expectReceived(received, this.#history.events.length, "at the end");
    const last = this.#frames.at(-1)?.frame;
    if (last?.kind !== "checkpoint" || last.version !== this.#history.events.length || last.state !== "LIVE") {
      this.objections.push(`the last frame is ${JSON.stringify(last)}`);
    }
  }

  #open(version: number): Stream {
    this.#reading = undefined;
    const tick = this.#history.ticks.find((t) => t.firstVersion <= version && version <= tickEnd(t));
    const start: Position = { version, tick: version === 0 ? TICK_ZERO : tick };
    const { wanted, maxBatchBytes } = this.#scenario;
    const matcher = compileSelectors([{ topics: wanted.length === 0 ? ["none"] : wanted, keys: [], operations: [] }]);
    const batch = { maxEvents: Number.POSITIVE_INFINITY, maxBytes: maxBatchBytes };
    const lanes = this.#lanes;
    if (this.#lane !== undefined) {
      lanes.release(this.#lane);
    }
    const lane = lanes.acquire({ matcher, codec: { identity: "test", measure: eventBytes }, batch });
    this.#lane = lane;
    const clock = { now: () => this.#nowMs, monotonic: () => this.#nowMs, random: () => 0.5 };
    const options = { lane, checkpointIntervalMs: 10_000, life: ENDLESS };
    const stream = new Stream(start, this.#view, options, clock);
    stream.begin();
    return stream;
  }

  #tail(maxEvents: number): void {
    const page = pageOf(this.#history, this.#log.head, maxEvents);
    if (page !== undefined) {
      this.#log.append(page);
    }
  }

  #answer(maxEvents: number): void {
    if (this.#reading === undefined) {
      return;
    }
    const page = pageOf(this.#history, this.#reading, maxEvents);
    this.#reading = undefined;
    this.#stream.supply(page === undefined ? undefined : (this.#fault.page?.(page) ?? page));
  }

  /** Takes frames until there are so many, or the stream waits: for a read, or for anything else. */
  #take(frames: number): "took" | "reads" | "waits" {
    for (let taken = 0, steps = 0; taken < frames; steps++) {
      if (steps > 10_000) {
        throw new Error("the stream goes round in circles");
      }
      const action = this.#stream.step(this.#nowMs);
      if (action.kind === "emit") {
        this.#judge(action.frame);
        taken += 1;
      } else if (action.kind === "read") {
        this.#reading = action.after;
      } else if (action.kind === "wait") {
        if (action.untilMs <= this.#nowMs) {
          this.objections.push("the stream waits for a moment that has passed");
        }
        return this.#reading === undefined ? "waits" : "reads";
      }
    }
    return "took";
  }

  #cut(framesBack: number): void {
    const at = this.#frames.length - 1 - framesBack;
    const from = this.#frames[at];
    if (from === undefined || !("cursor" in from.frame)) {
      return;
    }
    this.#frames = this.#frames.slice(0, at + 1);
    this.#stream = this.#open(this.#fault.resume?.(from.frame.cursor) ?? from.frame.cursor.version);
  }

  #judge(frame: Frame): void {
    const before = this.#frames.at(-1)?.received ?? [];
    const now = frame.kind === "events" ? frame.events.map((event) => event.version) : [];
    const received = [...before, ...now];
    this.#frames.push({ frame, received });
    if (frame.kind === "events") {
      const bytes = frame.events.reduce((sum, event) => sum + eventBytes(event), 0);
      if (frame.events.length === 0 || (frame.events.length > 1 && bytes > this.#scenario.maxBatchBytes)) {
        this.objections.push(`a batch of ${frame.events.length} events has ${bytes} bytes`);
      }
      this.#expectReceived(received, frame.cursor.version, "at a batch");
      if (frame.complete !== this.#isTickEnd(frame.cursor.version)) {
        this.objections.push(`a batch at ${frame.cursor.version} calls itself ${frame.complete ? "" : "in"}complete`);
      }
    } else if (frame.kind === "checkpoint") {
      this.#expectReceived(received, frame.version, "at a checkpoint");
      if (!this.#isTickEnd(frame.version)) {
        this.objections.push(`a checkpoint at ${frame.version} is in the middle of a tick`);
      }
      if ((frame.state === "STALE") !== this.#view.stale || (frame.lagVersions === undefined) !== this.#view.stale) {
        this.objections.push(`a checkpoint says ${frame.state} with lag ${frame.lagVersions}`);
      }
    }
  }

  /** By the plainest reading: everything wanted after the start, up to here, once and in order; nothing else. */
  #expectReceived(received: readonly number[], upTo: number, where: string): void {
    const expected = this.#history.events
      .filter((event) => event.version > this.#start && event.version <= upTo)
      .filter((event) => this.#scenario.wanted.includes(event.topic))
      .map((event) => event.version);
    if (expected.join() !== received.join()) {
      this.objections.push(`${where} at ${upTo}: got ${received.join()} instead of ${expected.join()}`);
    }
  }

  #isTickEnd(version: number): boolean {
    return version === 0 || this.#history.ticks.some((tick) => tickEnd(tick) === version);
  }
}
