import fc from "fast-check";
import type { Event } from "../../../src/core/event.ts";
import type { Lane, LaneStep } from "../../../src/core/lane/lane.ts";
import type { LaneTable } from "../../../src/core/lane/lane-table.ts";
import { Log } from "../../../src/core/log/log.ts";
import { eventBytes, type Page, tickEnd } from "../../../src/core/page.ts";
import { compileSelectors, type Matcher, type Selector } from "../../../src/core/selector/selector.ts";
import { Progress } from "../../../src/core/stream/scan.ts";
import { emptyHistory, type MadeEvent, type MadeHistory, pageOf, settleTick } from "./history-maker.ts";
import { ManualTime } from "./manual-time.ts";
import { lanesOf } from "./test-lanes.ts";

/** One thing that happens to a log and the streams over it. */
export type Happening =
  | { readonly what: "settle"; readonly events: readonly MadeEvent[] }
  /** The log gets its next page. */
  | { readonly what: "append"; readonly maxEvents: number }
  /** A stream takes its next step; from history, where the log has gone on without it. */
  | { readonly what: "step"; readonly stream: number; readonly maxEvents: number }
  | { readonly what: "open"; readonly lane: number; readonly version: number }
  | { readonly what: "leave"; readonly stream: number }
  | { readonly what: "time"; readonly ms: number }
  /** The lanes forget what they can. */
  | { readonly what: "shed" };

export interface Scenario {
  readonly happenings: readonly Happening[];
  readonly lanes: readonly {
    readonly selectors: readonly Selector[];
    readonly maxEvents: number;
    readonly maxBytes: number;
    readonly maxDelayMs: number;
    /** Its streams take what has come from within the append. */
    readonly inline: boolean;
  }[];
  readonly logMaxBytes: number;
  readonly maxLaneBytes: number;
  readonly maxLanesBytes: number;
}

/** What is wrong with the parts of the lanes, to see whether the judge sees it. */
export interface Fault {
  readonly matcher?: (matcher: Matcher) => Matcher;
  readonly dispatched?: (page: Page) => Page;
  readonly lane?: (lane: Lane) => void;
  readonly log?: (log: Log) => void;
}

const EPOCH = "7a0c4e9e-2f6e-4a55-9f5e-0c8a3b1d2e4f";
const TICK_ZERO = { tick: 0, firstVersion: 1, count: 0, timeMicros: 0, fingerprint: 99 };

const topic = fc.constantFrom("a", "a.x", "a.y", "b", "b.x.y", "a.{z}");
const key = fc.constantFrom(undefined, "1", "2", "3");
const operation = fc.constantFrom("INSERT" as const, "UPDATE" as const, "TRUNCATE" as const);
const made: fc.Arbitrary<MadeEvent> = fc.record({ topic, key, operation });
const selector: fc.Arbitrary<Selector> = fc.record({
  topics: fc.uniqueArray(fc.constantFrom("a", "a.x", "a.*", "a.>", "b", "*.x.>", ">", "b.x.y", "*"), { maxLength: 2 }),
  keys: fc.uniqueArray(fc.constantFrom("1", "2", "4"), { maxLength: 2 }),
  operations: fc.uniqueArray(operation, { maxLength: 1 }),
});
const small = fc.integer({ min: 1, max: 9 });

export const scenarios: fc.Arbitrary<Scenario> = fc.record({
  happenings: fc.array(
    fc.oneof(
      {
        weight: 4,
        arbitrary: fc.record({ what: fc.constant("settle"), events: fc.array(made, { minLength: 1, maxLength: 7 }) }),
      },
      { weight: 5, arbitrary: fc.record({ what: fc.constant("append"), maxEvents: small }) },
      { weight: 9, arbitrary: fc.record({ what: fc.constant("step"), stream: fc.nat(5), maxEvents: small }) },
      { weight: 2, arbitrary: fc.record({ what: fc.constant("open"), lane: fc.nat(2), version: fc.nat(40) }) },
      { weight: 1, arbitrary: fc.record({ what: fc.constant("leave"), stream: fc.nat(5) }) },
      { weight: 2, arbitrary: fc.record({ what: fc.constant("time"), ms: fc.integer({ min: 1, max: 30 }) }) },
      { weight: 1, arbitrary: fc.record({ what: fc.constant("shed") }) },
    ),
    { maxLength: 80 },
  ),
  lanes: fc.array(
    fc.record({
      selectors: fc.array(selector, { maxLength: 2 }),
      maxEvents: fc.constantFrom(1, 3, Number.POSITIVE_INFINITY),
      maxBytes: fc.constantFrom(1, 450, 1_000, 1_000_000),
      maxDelayMs: fc.constantFrom(0, 0, 20),
      inline: fc.boolean(),
    }),
    { minLength: 1, maxLength: 3 },
  ),
  logMaxBytes: fc.constantFrom(1, 2_000, 1_000_000),
  maxLaneBytes: fc.constantFrom(1, 1_000, 100_000),
  maxLanesBytes: fc.constantFrom(1, 700, 2_000, 200_000),
});

/** Plays a scenario, and then lets every stream come to the end; answers what the judge objects to. */
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

/** A stream as a lane sees it. */
class Reader {
  readonly lane: Lane;
  readonly progress: Progress;
  parkedAt = -1;
  /** Parked at the head, and not woken since. */
  asleep = false;
  readonly #onWake: (reader: Reader) => void;

  constructor(lane: Lane, progress: Progress, onWake: (reader: Reader) => void) {
    this.lane = lane;
    this.progress = progress;
    this.#onWake = onWake;
  }

  wake(): void {
    this.asleep = false;
    this.#onWake(this);
  }
}

class Simulation {
  readonly objections: string[] = [];
  readonly #scenario: Scenario;
  readonly #fault: Fault;
  readonly #history: MadeHistory = emptyHistory();
  readonly #log: Log;
  readonly #lanes: LaneTable;
  readonly #readers: Reader[] = [];
  readonly #time = new ManualTime();
  /** When each event came into the log. */
  readonly #cameAtMs: number[] = [];
  readonly #truth = new Map<Lane, Matcher>();
  /** Some have been woken, and others will be. */
  #waking = false;

  constructor(scenario: Scenario, fault: Fault) {
    this.#scenario = scenario;
    this.#fault = fault;
    this.#log = new Log({ maxBytes: scenario.logMaxBytes, head: 0, tick: TICK_ZERO });
    fault.log?.(this.#log);
    const { maxLaneBytes } = scenario;
    const limits = { maxLaneBytes, maxLanesBytes: this.#scenario.maxLanesBytes };
    this.#lanes = lanesOf({ epoch: EPOCH, log: this.#log }, limits, this.#time);
    this.#log.onAppend = (page) => this.#lanes.dispatch(fault.dispatched?.(page) ?? page, this.#time.monotonic());
    this.#open(0, 0);
    this.#open(0, 0);
  }

  happen(happening: Happening): void {
    switch (happening.what) {
      case "settle":
        settleTick(this.#history, happening.events);
        break;
      case "append":
        this.#append(happening.maxEvents);
        break;
      case "step":
        this.#step(this.#readers[happening.stream % this.#readers.length], happening.maxEvents);
        break;
      case "open":
        this.#open(happening.lane, happening.version);
        break;
      case "time":
        this.#pass(happening.ms);
        this.#expectNobodyOversleeps();
        break;
      case "leave":
        this.#leave(happening.stream);
        break;
      case "shed":
        for (const { lane } of this.#readers) {
          lane.shed();
        }
        break;
    }
  }

  finish(): void {
    for (let i = 0; i < 1_000 && this.#log.head < this.#history.events.length; i++) {
      this.#append(5);
    }
    this.#pass(100);
    for (const reader of this.#readers) {
      this.#stepToTheEnd(reader);
      this.#expectNothingBetween(reader, reader.progress.scanned, this.#log.head, "at the end");
    }
  }

  #pass(ms: number): void {
    this.#waking = true;
    this.#time.passAtOnce(ms);
    this.#waking = false;
  }

  #stepToTheEnd(reader: Reader): void {
    for (let i = 0; i < 1_000 && !reader.asleep; i++) {
      this.#step(reader, 50);
    }
  }

  #open(index: number, version: number): void {
    const { lanes } = this.#scenario;
    const terms = lanes[index % lanes.length];
    if (terms === undefined || version > this.#log.head) {
      return;
    }
    const { selectors, maxEvents, maxBytes, maxDelayMs, inline } = terms;
    const matcher = compileSelectors(selectors);
    const lane = this.#lanes.acquire({
      matcher: this.#fault.matcher?.(matcher) ?? matcher,
      codec: { identity: "test", measure: eventBytes },
      batch: { maxEvents, maxBytes, maxDelayMs },
    });
    this.#fault.lane?.(lane);
    this.#truth.set(lane, matcher);
    const tick = version === 0 ? TICK_ZERO : this.#tickOf(version);
    const onWake = inline ? (reader: Reader) => this.#stepToTheEnd(reader) : () => undefined;
    this.#readers.push(new Reader(lane, new Progress({ version, tick }), onWake));
  }

  #leave(index: number): void {
    const [reader] = this.#readers.splice(index, 1);
    if (reader !== undefined) {
      reader.lane.parked.delete(reader);
      this.#lanes.release(reader.lane);
    }
  }

  #append(maxEvents: number): void {
    const page = pageOf(this.#history, this.#log.head, maxEvents);
    if (page === undefined) {
      return;
    }
    this.#cameAtMs.push(...page.events.map(() => this.#time.monotonic()));
    this.#waking = true;
    this.#log.append(page);
    this.#waking = false;
    this.#expectNobodyOversleeps();
  }

  /** Whoever sleeps wants nothing of what is there, or what it wants may still wait for more. */
  #expectNobodyOversleeps(): void {
    if (this.#waking) {
      return;
    }
    for (const reader of this.#readers) {
      const { scanned } = reader.progress;
      const { maxDelayMs = 0, maxEvents, maxBytes } = reader.lane.terms.batch;
      const wanted = reader.asleep ? this.#wantedBetween(reader, scanned, this.#log.head) : [];
      const first = wanted[0];
      const size = wanted.reduce((sum, event) => sum + eventBytes(event), 0);
      const dueAtMs = (this.#cameAtMs[(first?.version ?? 0) - 1] ?? 0) + maxDelayMs;
      const full = wanted.length >= maxEvents || size >= maxBytes;
      if (first !== undefined && (full || this.#time.monotonic() >= dueAtMs)) {
        this.objections.push(`asleep at ${scanned}, while ${wanted.length} events from ${first.version} on are due`);
      }
    }
  }

  /** As `Stream` does it. */
  #step(reader: Reader | undefined, maxEvents: number): void {
    if (reader === undefined) {
      return;
    }
    const { lane, progress } = reader;
    const before = progress.scanned;
    const told = progress.boundary;
    lane.skip(progress);
    this.#expectNothingBetween(reader, before, progress.scanned, "skipped");
    if (progress.boundary !== told) {
      this.#expectBoundary(before, progress.scanned, progress.boundary?.version, "of a skip");
    }
    if (progress.tick?.tick !== (progress.scanned === 0 ? TICK_ZERO : this.#tickOf(progress.scanned))?.tick) {
      this.objections.push(`at ${progress.scanned} a stream is said to stand in tick ${progress.tick?.tick}`);
    }
    const { scanned } = progress;
    const page = scanned + 1 >= this.#log.oldest ? undefined : pageOf(this.#history, scanned, maxEvents);
    const step = lane.next(progress, page);
    if (step !== undefined) {
      this.#judge(reader, scanned, step);
      progress.pass(step);
      return;
    }
    if (scanned < lane.horizon) {
      this.objections.push(`a stream at ${scanned} gets nothing, and the head is ${this.#log.head}`);
    }
    lane.parked.add(reader);
    reader.asleep = true;
    this.#expectNobodyOversleeps();
  }

  #judge(reader: Reader, after: number, { scanned, tick, boundary, frame, bytes }: LaneStep): void {
    const where = `from ${after} to ${scanned}`;
    const events = frame?.events ?? [];
    const expected = this.#wantedBetween(reader, after, scanned).map(({ version }) => version);
    const got = events.map(({ version }) => version);
    if (got.join() !== expected.join() || scanned <= after) {
      this.objections.push(`${where}: got ${got.join()} instead of ${expected.join()}`);
    }
    const { maxEvents, maxBytes } = reader.lane.terms.batch;
    const size = events.reduce((sum, event) => sum + eventBytes(event), 0);
    if (events.length > 1 && (events.length > maxEvents || size > maxBytes)) {
      this.objections.push(`${where}: ${events.length} events with ${size} bytes in one frame`);
    }
    if (bytes < size) {
      this.objections.push(`${where}: counted ${bytes} bytes of ${size}`);
    }
    if (tick?.tick !== this.#tickOf(scanned)?.tick) {
      this.objections.push(`${where}: is said to end in tick ${tick?.tick}`);
    }
    this.#expectBoundary(after, scanned, boundary?.version, where);
    this.#judgeCompleteness(after, { scanned, tick, boundary, frame, bytes });
  }

  /** A frame that comes by a boundary ends there, and says so; its cursor covers it. */
  #judgeCompleteness(after: number, { scanned, boundary, frame }: LaneStep): void {
    const first = frame?.events[0];
    const last = frame?.events.at(-1);
    if (frame === undefined || first === undefined || last === undefined) {
      return;
    }
    const ends = boundary !== undefined && boundary.version >= first.version;
    const covered = ends ? boundary.version : scanned;
    if (frame.complete !== ends || frame.cursor.version !== covered || last.version > covered) {
      const said = `${frame.complete ? "complete" : "incomplete"} at ${frame.cursor.version}`;
      this.objections.push(
        `from ${after}: ${said}, with events up to ${last.version} and a boundary at ${boundary?.version}`,
      );
    }
  }

  #expectBoundary(after: number, to: number, said: number | undefined, where: string): void {
    const ends = this.#history.ticks.map(tickEnd).filter((end) => end > after && end <= to);
    if (said !== ends.at(-1)) {
      this.objections.push(`${where} (${after}, ${to}]: the boundary is ${ends.at(-1)}, not ${said}`);
    }
  }

  #expectNothingBetween(reader: Reader, after: number, to: number, what: string): void {
    const wanted = this.#wantedBetween(reader, after, to);
    if (wanted.length > 0) {
      const versions = wanted.map(({ version }) => version).join();
      this.objections.push(`${what} from ${after} to ${to} while ${versions} are wanted`);
    }
  }

  #wantedBetween({ lane }: Reader, after: number, to: number): readonly Event[] {
    const matcher = this.#truth.get(lane);
    return this.#history.events.slice(after, to).filter((event) => matcher?.matches(event));
  }

  #tickOf(version: number) {
    return this.#history.ticks.find((tick) => tick.firstVersion <= version && version <= tickEnd(tick));
  }
}
