import fc from "fast-check";
import { decodeCursor, encodeCursor } from "../../../src/core/cursor.ts";
import type { Frame } from "../../../src/core/frame.ts";
import type { Lane } from "../../../src/core/lane/lane.ts";
import type { LaneTable } from "../../../src/core/lane/lane-table.ts";
import { Log } from "../../../src/core/log/log.ts";
import { eventBytes, tickEnd } from "../../../src/core/page.ts";
import type { Policy, PolicyKind, Thinned } from "../../../src/core/policy/policy.ts";
import { compileSelectors } from "../../../src/core/selector/selector.ts";
import { type FeedView, Stream } from "../../../src/core/stream/stream.ts";
import { ENDLESS } from "../../../src/core/stream/stream-life.ts";
import { objectionsTo, type Seen } from "../../support/policy-judge.ts";
import { emptyHistory, type MadeEvent, type MadeHistory, pageOf, settleTick } from "./history-maker.ts";
import { lanesOf } from "./test-lanes.ts";

/** One thing that happens to a feed and its one stream. */
export type Happening =
  | { readonly what: "settle"; readonly events: readonly MadeEvent[] }
  /** The tail appends its next page to the log. */
  | { readonly what: "tail"; readonly maxEvents: number }
  | { readonly what: "take"; readonly frames: number }
  | { readonly what: "answer"; readonly maxEvents: number }
  | { readonly what: "read_fails" }
  | { readonly what: "forget" }
  | { readonly what: "time"; readonly ms: number }
  /** The call is cut after one of the last frames, and resumed from its cursor. */
  | { readonly what: "cut"; readonly framesBack: number };

export interface Scenario {
  readonly happenings: readonly Happening[];
  readonly logMaxBytes: number;
  readonly maxBatchEvents: number;
  readonly wanted: readonly string[];
  readonly start: number;
  readonly maxLagEvents: number;
  readonly sampleEvery: number;
  readonly everyTick: boolean;
  readonly maxEventsPerSecond: number | undefined;
}

/** What is wrong with the parts around the stream, or with what it says, to see whether the judge sees it. */
export interface Fault {
  readonly log?: (options: ConstructorParameters<typeof Log>[0]) => Log;
  /** The frames in the place of each. */
  readonly frames?: (frame: Frame) => readonly Frame[];
  readonly thinned?: (thinned: Thinned | undefined) => Thinned | undefined;
}

/** What came of it. */
export interface Outcome {
  readonly objections: readonly string[];
  readonly frames: readonly Frame[];
}

const EPOCH = "7a0c4e9e-2f6e-4a55-9f5e-0c8a3b1d2e4f";
const TICK_ZERO = { tick: 0, firstVersion: 1, count: 0, timeMicros: 0, fingerprint: 99 };

const made: fc.Arbitrary<MadeEvent> = fc.record({
  topic: fc.constantFrom("a", "b", "c"),
  key: fc.constantFrom("1", "2", "3", "4", undefined),
  operation: fc.oneof(
    { weight: 9, arbitrary: fc.constant("UPDATE" as const) },
    { weight: 1, arbitrary: fc.constant("TRUNCATE" as const) },
  ),
});
const settled = made.map((event) => (event.operation === "TRUNCATE" ? { ...event, key: undefined } : event));
const ticks = fc.oneof(
  { weight: 5, arbitrary: fc.array(settled, { minLength: 1, maxLength: 7 }) },
  { weight: 1, arbitrary: fc.array(settled, { minLength: 20, maxLength: 50 }) },
);
const happening: fc.Arbitrary<Happening> = fc.oneof(
  { weight: 7, arbitrary: fc.record({ what: fc.constant("settle"), events: ticks }) },
  { weight: 7, arbitrary: fc.record({ what: fc.constant("tail"), maxEvents: fc.integer({ min: 1, max: 40 }) }) },
  { weight: 6, arbitrary: fc.record({ what: fc.constant("take"), frames: fc.integer({ min: 1, max: 4 }) }) },
  { weight: 4, arbitrary: fc.record({ what: fc.constant("answer"), maxEvents: fc.integer({ min: 1, max: 30 }) }) },
  { weight: 1, arbitrary: fc.record({ what: fc.constant("read_fails") }) },
  { weight: 1, arbitrary: fc.record({ what: fc.constant("forget") }) },
  { weight: 2, arbitrary: fc.record({ what: fc.constant("time"), ms: fc.integer({ min: 1, max: 25_000 }) }) },
  { weight: 2, arbitrary: fc.record({ what: fc.constant("cut"), framesBack: fc.nat(4) }) },
);

export const scenarios: fc.Arbitrary<Scenario> = fc.record({
  happenings: fc.array(happening, { maxLength: 70 }),
  logMaxBytes: fc.constantFrom(500, 5_000, 20_000, 1_000_000),
  maxBatchEvents: fc.constantFrom(1, 3, 10, 1_000),
  wanted: fc.oneof(
    { weight: 2, arbitrary: fc.constant(["a", "b", "c"]) },
    { weight: 1, arbitrary: fc.subarray(["a", "b", "c"]) },
  ),
  start: fc.nat(10),
  maxLagEvents: fc.integer({ min: 1, max: 30 }),
  sampleEvery: fc.integer({ min: 2, max: 5 }),
  everyTick: fc.boolean(),
  maxEventsPerSecond: fc.constantFrom(undefined, undefined, 1, 7, 1_000),
});

/** Plays a scenario to its end under a policy; answers what the judge objects to. */
export function simulate(scenario: Scenario, kind: PolicyKind, fault: Fault = {}): Outcome {
  const simulation = new Simulation(scenario, kind, fault);
  try {
    for (const each of scenario.happenings) {
      simulation.happen(each);
    }
    simulation.finish();
  } catch (error) {
    simulation.objections.push(String(error));
  }
  return simulation.outcome();
}

class Simulation {
  readonly objections: string[] = [];
  readonly #scenario: Scenario;
  readonly #policy: Policy;
  readonly #fault: Fault;
  readonly #history: MadeHistory = emptyHistory();
  readonly #log: Log;
  readonly #view: FeedView;
  readonly #lanes: LaneTable;
  #nowMs = 0;
  #lane: Lane | undefined;
  #stream: Stream;
  #reading: number | undefined;
  #untilMs = 0;
  #seen: Seen[] = [];
  /** What came when, and where the streams began: of one stream no second has more events than it may. */
  #rates: { readonly atMs: number; readonly events: number }[] = [];

  constructor(scenario: Scenario, kind: PolicyKind, fault: Fault) {
    this.#scenario = scenario;
    this.#policy = { kind, maxLagEvents: scenario.maxLagEvents, sampleEvery: scenario.sampleEvery };
    this.#fault = fault;
    const options = { maxBytes: scenario.logMaxBytes, head: 0, tick: TICK_ZERO };
    this.#log = fault.log?.(options) ?? new Log(options);
    this.#view = { epoch: EPOCH, log: this.#log, stale: false, draining: false, oldest: 1 };
    this.#lanes = lanesOf(this.#view);
    const key = (i: number) => ({ topic: "abc"[i % 3] ?? "a", key: String(i % 2), operation: "INSERT" as const });
    settleTick(this.#history, [0, 1, 2, 3, 4, 5].map(key));
    settleTick(this.#history, [0, 0, 1, 2].map(key));
    this.#stream = this.#open(scenario.start, undefined);
  }

  happen(happening: Happening): void {
    switch (happening.what) {
      case "settle":
        settleTick(this.#history, happening.events);
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
      case "cut":
        this.#cut(happening.framesBack);
        break;
    }
  }

  /** Everything comes in, and time enough: then the stream says that it has passed everything. */
  finish(): void {
    for (let i = 0; i < 1_000 && this.#log.head < this.#history.events.length; i++) {
      this.#tail(50);
    }
    for (let i = 0; i < 5_000; i++) {
      const last = this.#last;
      if (last?.kind === "checkpoint" && last.version === this.#history.events.length && last.state === "LIVE") {
        return;
      }
      this.#take(1);
      this.#answer(50);
      this.#nowMs = Math.max(this.#nowMs, Math.min(this.#untilMs, this.#nowMs + 60_000));
    }
    this.objections.push(`the last frame is ${JSON.stringify(this.#last)}`);
  }

  get #last(): Frame | undefined {
    return this.#seen.findLast(({ frame }) => frame !== undefined)?.frame;
  }

  outcome(): Outcome {
    const { start, wanted, everyTick, maxBatchEvents } = this.#scenario;
    const asked = { start, wanted, policy: this.#policy, everyTick, maxBatchEvents };
    const said = objectionsTo(this.#seen, this.#history, asked);
    return { objections: [...this.objections, ...said], frames: this.#seen.flatMap(({ frame }) => frame ?? []) };
  }

  #open(version: number, thinned: Thinned | undefined): Stream {
    this.#reading = undefined;
    this.#rates = [];
    const tick = this.#history.ticks.find((t) => t.firstVersion <= version && version <= tickEnd(t));
    const { wanted, maxBatchEvents: maxEvents, everyTick, maxEventsPerSecond } = this.#scenario;
    const all = wanted.length === 3;
    const topics = wanted.length === 0 ? ["none"] : wanted;
    const matcher = compileSelectors(all ? [] : [{ topics, keys: [], operations: [] }]);
    if (this.#lane !== undefined) {
      this.#lanes.release(this.#lane);
    }
    const codec = { identity: "test", measure: eventBytes };
    const lane = this.#lanes.acquire({ matcher, codec, batch: { maxEvents, maxBytes: 1_000_000 } });
    this.#lane = lane;
    const clock = { now: () => this.#nowMs, monotonic: () => this.#nowMs, random: () => 0.5 };
    const start = { version, tick: version === 0 ? TICK_ZERO : tick };
    const pace = { maxEventsPerSecond, checkpointIntervalMs: 10_000, checkpointEveryTick: everyTick };
    const stream = new Stream(
      start,
      this.#view,
      { lane, life: ENDLESS, policy: this.#policy, thinned, ...pace },
      clock,
    );
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
    const page = this.#reading === undefined ? undefined : pageOf(this.#history, this.#reading, maxEvents);
    if (this.#reading !== undefined) {
      this.#reading = undefined;
      this.#stream.supply(page);
    }
  }

  /** Takes frames until there are so many, or the stream waits: for a read, or for anything else. */
  #take(frames: number): void {
    for (let taken = 0, steps = 0; taken < frames; steps++) {
      if (steps > 10_000) {
        throw new Error("the stream goes round in circles");
      }
      const { head, oldest } = this.#log;
      const action = this.#stream.step(this.#nowMs);
      if (action.kind !== "emit") {
        this.#seen.push({ frame: undefined, log: { head, oldest } });
      }
      if (action.kind === "emit") {
        for (const frame of this.#fault.frames?.(action.frame) ?? [action.frame]) {
          this.#seen.push({ frame, log: { head, oldest } });
        }
        this.#clockIn(action.frame);
        taken += 1;
      } else if (action.kind === "read") {
        if (this.#reading !== undefined || action.after + 1 >= oldest) {
          this.objections.push(`reads after ${action.after}, which is in the log, or while it reads`);
        }
        this.#reading = action.after;
      } else if (action.kind === "wait") {
        if (action.untilMs <= this.#nowMs) {
          this.objections.push("the stream waits for a moment that has passed");
        }
        this.#untilMs = action.untilMs;
        return;
      }
    }
  }

  #clockIn(frame: Frame): void {
    const { maxEventsPerSecond } = this.#scenario;
    if (frame.kind !== "events" || maxEventsPerSecond === undefined) {
      return;
    }
    this.#rates.push({ atMs: this.#nowMs, events: frame.events.length });
    let events = 0;
    for (const each of this.#rates.toReversed()) {
      events += each.events;
      const most = maxEventsPerSecond * (1 + (this.#nowMs - each.atMs) / 1_000);
      if (events > most + 0.001) {
        this.objections.push(`${events} events in ${this.#nowMs - each.atMs} ms`);
      }
    }
  }

  #cut(framesBack: number): void {
    const frames = this.#seen.filter(({ frame }) => frame !== undefined);
    const from = frames[frames.length - 1 - framesBack];
    if (from?.frame === undefined) {
      return;
    }
    this.#seen = this.#seen.slice(0, this.#seen.indexOf(from) + 1);
    const { version, thinned } = decodeCursor(encodeCursor(from.frame.cursor));
    this.#stream = this.#open(version, this.#fault.thinned === undefined ? thinned : this.#fault.thinned(thinned));
  }
}
