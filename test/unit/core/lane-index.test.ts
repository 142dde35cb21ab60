import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Event } from "../../../src/core/event.ts";
import type { Lane } from "../../../src/core/lane.ts";
import { LaneIndex } from "../../../src/core/lane-index.ts";
import { Log } from "../../../src/core/log.ts";
import { compileSelectors, type Selector } from "../../../src/core/selector.ts";
import { patternMatches } from "../../../src/core/topic.ts";
import { lanesOf } from "./test-lanes.ts";

const patterns = ["a", "a.x", "a.*", "a.>", "b", "*.x", "*.x.>", ">", "b.x.y", "*", "a.*.y"];
const topics = ["a", "a.x", "a.y", "b", "b.x", "b.x.y", "a.x.y", "a.{z}", "{z}.x", "a.{y.z}.y", "c", "pre{z}.x"];
const keys = [undefined, "1", "2", "3"];

const selector: fc.Arbitrary<Selector> = fc.record({
  topics: fc.uniqueArray(fc.constantFrom(...patterns), { maxLength: 3 }),
  keys: fc.uniqueArray(fc.constantFrom("1", "2", "4"), { maxLength: 2 }),
  operations: fc.constant([]),
});

type Change =
  | { readonly add: readonly Selector[] }
  | { readonly remove: number }
  | { readonly topic: string; readonly key: string | undefined; readonly truncate: boolean };

const change: fc.Arbitrary<Change> = fc.oneof(
  { weight: 3, arbitrary: fc.record({ add: fc.array(selector, { maxLength: 3 }) }) },
  { weight: 2, arbitrary: fc.record({ remove: fc.nat(9) }) },
  {
    weight: 6,
    arbitrary: fc.record({
      topic: fc.constantFrom(...topics),
      key: fc.constantFrom(...keys),
      truncate: fc.boolean(),
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
      wanting: this.#lanes.flatMap((lane, at) => (mayWant(lane, event) ? [at] : [])),
    };
  }
}

/** By the plainest reading of `Interest`. */
function mayWant({ matcher: { interest } }: Lane, { topic, key, operation }: Event): boolean {
  const about = (each: (typeof interest)[number]) =>
    each.keys === undefined || key === undefined || operation === "TRUNCATE" || each.keys.has(key);
  return (
    interest.length === 0 ||
    interest.some(
      (each) =>
        (each.patterns.length === 0 || each.patterns.some((pattern) => patternMatches(pattern, topic))) && about(each),
    )
  );
}

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
      const { shown, wanting, gone } = world.show(eventOf(each.topic, each.key, each.truncate));
      expect(shown).toEqual(wanting);
      expect(gone).toBe(0);
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
