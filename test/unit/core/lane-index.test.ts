import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Event, Operation } from "../../../src/core/event.ts";
import type { Lane } from "../../../src/core/lane/lane.ts";
import { LaneIndex } from "../../../src/core/lane/lane-index.ts";
import { Log } from "../../../src/core/log/log.ts";
import { compileSelectors, type Matcher, type Selector } from "../../../src/core/selector/selector.ts";
import { patternMatches } from "../../../src/core/selector/topic.ts";
import { lanesOf } from "./test-lanes.ts";

const patterns = ["a", "a.x", "a.*", "a.>", "b", "*.x", "*.x.>", ">", "b.x.y", "*", "a.*.y"];
const topics = ["a", "a.x", "a.y", "b", "b.x", "b.x.y", "a.x.y", "a.{z}", "{z}.x", "a.{y.z}.y", "c", "pre{z}.x"];
const filters = ["", "row.n == 1", "row.n == 2 && row.m > 0", "row.n in [1, 3] || row.m == 1", "row.m > 1"];
const operations = ["INSERT", "UPDATE", "DELETE", "TRUNCATE", "MESSAGE"] as const;
const keys = [undefined, "1", "2", "3"];

const selector: fc.Arbitrary<Selector> = fc.record({
  topics: fc.uniqueArray(fc.constantFrom(...patterns), { maxLength: 3 }),
  keys: fc.uniqueArray(fc.constantFrom("1", "2", "4"), { maxLength: 2 }),
  operations: fc.constant([]),
  filter: fc.constantFrom(...filters),
});

/** Text of an image; that of a row may lack the column that filters ask for. */
const image = fc.constantFrom(undefined, '{"n":1,"m":0}', '{"n":2,"m":1}', '{"n":3,"m":2}', '{"n":0,"m":1}', '{"m":2}');

type Change =
  | { readonly add: readonly Selector[] }
  | { readonly remove: number }
  | {
      readonly topic: string;
      readonly key: string | undefined;
      readonly operation: Operation;
      readonly before: string | undefined;
      readonly after: string | undefined;
    };

const change: fc.Arbitrary<Change> = fc.oneof(
  { weight: 3, arbitrary: fc.record({ add: fc.array(selector, { maxLength: 3 }) }) },
  { weight: 2, arbitrary: fc.record({ remove: fc.nat(9) }) },
  {
    weight: 6,
    arbitrary: fc.record({
      topic: fc.constantFrom(...topics),
      key: fc.constantFrom(...keys),
      operation: fc.constantFrom(...operations),
      before: image,
      after: image,
    }),
  },
);

const codec = { identity: "test", measure: () => 1 };
const batch = { maxEvents: 1, maxBytes: 1 };

/** Lanes that only say that they were shown something. */
class World {
  readonly #index = new LaneIndex();
  readonly #lanes: Lane[] = [];
  readonly #shown = new Set<Lane>();
  readonly #view = { epoch: "", log: new Log({ maxBytes: 1, head: 0, tick: undefined }) };

  get index(): LaneIndex {
    return this.#index;
  }

  add(selectors: readonly Selector[]): void {
    const lane = lanesOf(this.#view).acquire({ matcher: compileSelectors(selectors), codec, batch });
    lane.offer = () => {
      this.#shown.add(lane);
      return false;
    };
    this.#lanes.push(lane);
    this.#index.add(lane);
  }

  remove(at: number): void {
    const [lane] = this.#lanes.splice(at, 1);
    if (lane !== undefined) {
      this.#index.delete(lane);
    }
  }

  removeAll(): void {
    while (this.#lanes.length > 0) {
      this.remove(0);
    }
  }

  /** Which of the lanes were shown the event, and which may want it, by their places. */
  show(event: Event) {
    this.#shown.clear();
    let touches = 0;
    for (const shelf of this.#index.shelvesOf(event.topic)) {
      touches += shelf.offer(event, []);
    }
    return {
      touches,
      gone: this.#shown.difference(new Set(this.#lanes)).size,
      shown: this.#lanes.flatMap((lane, at) => (this.#shown.has(lane) ? [at] : [])),
      strangers: this.#lanes.filter((lane) => this.#shown.has(lane) && concerning(lane, event).length === 0).length,
      wanting: this.#lanes.flatMap((lane, at) => (mustBeShown(lane, event) ? [at] : [])),
    };
  }
}

/**
 * By the plainest reading of `Interest`. Of those whose filters require values it says only who would show something of the
 * event; how many others are shown it is nobody's business but the next test's.
 */
function mustBeShown(lane: Lane, event: Event): boolean {
  const named = concerning(lane, event);
  const whole = named.some(({ keys: wanted, requirement }) => wanted !== undefined || requirement === undefined);
  return whole || lane.matcher.view(event) !== undefined;
}

/** What it says of this topic and key. */
function concerning({ matcher: { interest } }: Lane, { topic, key, operation }: Event): Matcher["interest"] {
  if (interest.length === 0) {
    return [{ patterns: [], keys: undefined }];
  }
  return interest.filter(
    ({ patterns, keys: wanted }) =>
      (patterns.length === 0 || patterns.some((pattern) => patternMatches(pattern, topic))) &&
      (wanted === undefined || key === undefined || operation === "TRUNCATE" || wanted.has(key)),
  );
}

const encoder = new TextEncoder();

function eventOf(topic: string, key: string | undefined, truncate = false): Event {
  return {
    version: 1,
    topic,
    key,
    operation: truncate ? "TRUNCATE" : "INSERT",
    before: undefined,
    after: undefined,
    transaction: "1",
    occurredAtMicros: 0,
    headers: undefined,
  };
}

function play(changes: readonly Change[]): void {
  const world = new World();
  for (const each of changes) {
    if ("add" in each) {
      world.add(each.add);
    } else if ("remove" in each) {
      world.remove(each.remove);
    } else {
      const { topic, key, operation } = each;
      const [before, after] = [each.before, each.after].map((text) =>
        text === undefined ? text : encoder.encode(text),
      );
      const { shown, wanting, gone, strangers } = world.show({ ...eventOf(topic, key), operation, before, after });
      expect(wanting.filter((at) => !shown.includes(at))).toEqual([]);
      expect([gone, strangers]).toEqual([0, 0]);
    }
  }
  world.removeAll();
  for (const topic of topics) {
    expect(world.index.shelvesOf(topic).filter(({ empty }) => !empty)).toEqual([]);
  }
  world.add([]);
  expect(world.show(eventOf("a", undefined)).shown).toEqual([0]);
  expect(world.index.shelvesOf("a.x").length).toBe(1);
}

describe("lane index", () => {
  test("an event is shown to just the lanes that may want it, while lanes come and go", () => {
    fc.assert(fc.property(fc.array(change, { maxLength: 40 }), play), { numRuns: 3_000 });
  });

  test("lanes that list keys cost nothing for events of other keys", () => {
    const world = new World();
    for (let lane = 0; lane < 1_000; lane++) {
      world.add([{ topics: ["orders"], keys: [`${lane}`], operations: [] }]);
    }
    world.add([{ topics: ["orders"], keys: ["7", "8"], operations: [] }]);
    expect(world.show(eventOf("orders", "7"))).toMatchObject({ touches: 2, shown: [7, 1_000] });
    expect(world.show(eventOf("orders", "none")).touches).toBe(0);
    expect(world.show(eventOf("orders", "7", true)).touches).toBe(1_001);
    expect(world.show(eventOf("orders.{region}", undefined)).touches).toBe(0);
  });

  test("lanes that filter by a column cost nothing for rows with other values", () => {
    const world = new World();
    const rowOf = (row: unknown): Event => ({
      ...eventOf("orders", "1"),
      after: new TextEncoder().encode(JSON.stringify(row)),
    });
    for (let lane = 0; lane < 1_000; lane++) {
      world.add([
        { topics: ["orders"], keys: [], operations: [], filter: `row.customer == ${lane} && row.amount > 0` },
      ]);
    }
    world.add([{ topics: [], keys: [], operations: [], filter: "row.customer in [7, 8]" }]);
    expect(world.show(rowOf({ customer: 7 }))).toMatchObject({ touches: 2, shown: [7, 1_000] });
    expect(world.show(rowOf({ customer: 8.0 }))).toMatchObject({ touches: 2, shown: [8, 1_000] });
    expect(world.show(rowOf({ customer: "7" })).touches).toBe(0);
    expect(world.show(rowOf({ client: 7 })).touches).toBe(1_001);
    expect(world.show(eventOf("orders", undefined, true)).touches).toBe(1_001);
    expect(world.show({ ...rowOf({ customer: 7 }), operation: "UPDATE" }).touches).toBe(1_001);
    world.removeAll();
    expect(world.index.shelvesOf("orders").every(({ empty }) => empty)).toBe(true);
  });
});
