import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Version } from "../../../src/core/event.ts";
import { Log } from "../../../src/core/log/log.ts";
import type { Page } from "../../../src/core/page.ts";
import { nextPhase, type StreamPhase } from "../../../src/core/stream/stream-phase.ts";
import { type Fault, scenarios, simulate } from "./stream-simulation.ts";

/** Whether the judge objects in any of many scenarios. */
function isCaught(fault: Fault): boolean {
  const property = fc.property(scenarios, (scenario) => simulate(scenario, fault).length === 0);
  return fc.check(property, { numRuns: 1_000, endOnFailure: true }).failed;
}

describe("stream", () => {
  test("G1 G3 G5 G8 delivers what was settled once, in order, whole, through eviction, cuts and slow reads", () => {
    fc.assert(
      fc.property(scenarios, (scenario) => {
        expect(simulate(scenario)).toEqual([]);
      }),
      { numRuns: 3_000 },
    );
  });

  test("G1 the judge objects to an event skipped where the table hands over to the log", () => {
    class ShortLog extends Log {
      override get oldest(): Version {
        return Math.max(1, super.oldest - 1);
      }
      override read(after: Version): Page | undefined {
        const page = super.read(after);
        const next = super.read(after + 1);
        if (page !== undefined || next === undefined) {
          return page;
        }
        // Takes the first page that it has for the one before: a stranger stands where the lost event stood.
        const [first, ...rest] = next.events;
        return first === undefined ? undefined : { ...next, firstVersion: after + 1, events: [first, first, ...rest] };
      }
    }
    expect(isCaught({ log: (options) => new ShortLog(options) })).toBe(true);
  });

  test("G1 the judge objects to an event lost in a page of history", () => {
    const lose = (page: Page): Page => ({
      ...page,
      events: page.events.map((e, i) => page.events[Math.max(1, i)] ?? e),
    });
    expect(isCaught({ page: lose })).toBe(true);
  });

  test("G3 the judge objects to an event delivered again after a cut", () => {
    expect(isCaught({ resume: (cursor) => Math.max(0, cursor.version - 1) })).toBe(true);
  });

  test("G3 the judge objects to two events swapped", () => {
    expect(isCaught({ page: (page) => ({ ...page, events: page.events.toReversed() }) })).toBe(true);
  });

  test("G5 the judge objects to a checkpoint in the middle of a tick", () => {
    const early = (page: Page): Page => {
      const ticks = page.ticks.map((tick) => (tick.count > 1 ? { ...tick, count: tick.count - 1 } : tick));
      return { ...page, ticks };
    };
    expect(isCaught({ page: early })).toBe(true);
  });

  test("G8 the judge objects to a cursor that is ahead of its frame", () => {
    expect(isCaught({ resume: (cursor) => cursor.version + 1 })).toBe(true);
  });

  test("closing is the end of every open phase, and nothing follows it", () => {
    const open: StreamPhase[] = ["snapshot", "catching_up", "live"];
    expect(open.map((phase) => nextPhase(phase, "closed"))).toEqual(["closing", "closing", "closing"]);
    for (const occurrence of ["positioned", "snapshot_begun", "snapshot_done", "fell_behind", "met_the_log"] as const) {
      expect(nextPhase("closing", occurrence)).toBe("closing");
    }
  });
});
