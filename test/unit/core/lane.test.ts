import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Page } from "../../../src/core/page.ts";
import { type Fault, scenarios, simulate } from "./lane-simulation.ts";

/** Whether the judge objects in any of many scenarios. */
function isCaught(fault: Fault): boolean {
  const property = fc.property(scenarios, (scenario) => simulate(scenario, fault).length === 0);
  return fc.check(property, { numRuns: 2_000, endOnFailure: true }).failed;
}

describe("lane", () => {
  test("G1 G3 G5 G8 steps hold what a look through everything finds, whoever stands wherever, whatever is forgotten", () => {
    fc.assert(
      fc.property(scenarios, (scenario) => {
        expect(simulate(scenario)).toEqual([]);
      }),
      { numRuns: 5_000 },
    );
  });

  test("G1 the judge objects to an event that is not shown to a lane", () => {
    const loseLast = (page: Page): Page => ({ ...page, events: page.events.slice(0, -1) });
    expect(isCaught({ dispatched: loseLast })).toBe(true);
  });

  test("G1 the judge objects to an interest that is too narrow", () => {
    const narrow: Fault = {
      matcher: (matcher) => ({
        ...matcher,
        interest: matcher.interest.map((each) => ({ ...each, keys: each.keys && new Set([...each.keys].slice(1)) })),
      }),
    };
    expect(isCaught(narrow)).toBe(true);
  });

  test("G1 the judge objects to a stream that is not woken", () => {
    const deaf: Fault = {
      lane: (lane) => {
        lane.parked.wakeAll = () => undefined;
      },
    };
    expect(isCaught(deaf)).toBe(true);
  });

  test("G3 the judge objects to an event shown twice", () => {
    const twice: Fault = {
      dispatched: (page) => ({
        ...page,
        events: page.events.flatMap((event) => [event, { ...event, version: event.version + 0.5 }]),
      }),
    };
    expect(isCaught(twice)).toBe(true);
  });

  test("G5 the judge objects to a boundary in the middle of a tick", () => {
    const early: Fault = {
      log: (log) => {
        const tickOf = log.tickOf.bind(log);
        log.tickOf = (version) => {
          const tick = tickOf(version);
          return tick === undefined || tick.count < 2 ? tick : { ...tick, count: tick.count - 1 };
        };
      },
    };
    expect(isCaught(early)).toBe(true);
  });
});
