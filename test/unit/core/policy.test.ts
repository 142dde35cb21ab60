import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Frame } from "../../../src/core/frame.ts";
import { Log } from "../../../src/core/log/log.ts";
import type { Tick } from "../../../src/core/page.ts";
import type { PolicyKind } from "../../../src/core/policy/policy.ts";
import { type Fault, scenarios, simulate } from "./policy-simulation.ts";

const KINDS: readonly PolicyKind[] = ["BLOCK", "DROP_OLDEST", "DROP_NEWEST", "LATEST", "SAMPLE"];

type Gap = Extract<Frame, { kind: "gap" }>;

/** Whether the judge objects in any of many scenarios. */
function isCaught(kind: PolicyKind, fault: Fault): boolean {
  const property = fc.property(scenarios, (scenario) => simulate(scenario, kind, fault).objections.length === 0);
  return fc.check(property, { numRuns: 10_000, endOnFailure: true }).failed;
}

/** Another gap in the place of each. */
function instead(change: (gap: Gap) => Partial<Gap>): Fault {
  return { frames: (frame) => [frame.kind === "gap" ? { ...frame, ...change(frame) } : frame] };
}

describe("policies", () => {
  for (const kind of KINDS) {
    test(`G3 G5 G8 G10 what ${kind} delivers and what it says it left out are all there is, wherever it is cut`, () => {
      const seen = { gaps: 0, counted: 0, cutInPiece: 0 };
      fc.assert(
        fc.property(scenarios, (scenario) => {
          const { objections, frames } = simulate(scenario, kind);
          for (const frame of frames) {
            seen.gaps += frame.kind === "gap" ? 1 : 0;
            seen.counted += frame.kind === "gap" && frame.dropped !== undefined ? 1 : 0;
            seen.cutInPiece += frame.kind === "opened" ? 0 : frame.cursor.thinned === undefined ? 0 : 1;
          }
          expect(objections).toEqual([]);
        }),
        { numRuns: 3_000 },
      );
      // Of what never happens nothing is proved.
      expect(seen.gaps > 1_000).toBe(kind !== "BLOCK");
      expect(seen.counted > 1_000).toBe(kind !== "BLOCK");
      expect(seen.cutInPiece > 1_000).toBe(kind === "LATEST" || kind === "SAMPLE");
    });
  }

  for (const kind of KINDS.slice(1)) {
    test(`G10 the judge objects to a gap of ${kind} that is one short, or one long, or drops one less`, () => {
      expect(
        isCaught(
          kind,
          instead(({ lastVersion }) => ({ lastVersion: lastVersion - 1 })),
        ),
      ).toBe(true);
      expect(
        isCaught(
          kind,
          instead(({ lastVersion }) => ({ lastVersion: lastVersion + 1 })),
        ),
      ).toBe(true);
      expect(
        isCaught(
          kind,
          instead(({ firstVersion }) => ({ firstVersion: firstVersion + 1 })),
        ),
      ).toBe(true);
      expect(
        isCaught(
          kind,
          instead(({ dropped = 0 }) => ({ dropped: dropped - 1 })),
        ),
      ).toBe(true);
      expect(
        isCaught(
          kind,
          instead(({ dropped = 0 }) => ({ dropped: dropped + 1 })),
        ),
      ).toBe(true);
    });

    test(`G10 the judge objects to a gap of ${kind} that is not said`, () => {
      expect(isCaught(kind, { frames: (frame) => (frame.kind === "gap" ? [] : [frame]) })).toBe(true);
    });
  }

  for (const kind of ["DROP_OLDEST", "DROP_NEWEST"] as const) {
    test(`G5 the judge objects to ${kind} landing in the middle of a tick`, () => {
      class ShortTicks extends Log {
        override tickOf(version: number): Tick | undefined {
          const tick = super.tickOf(version);
          return tick === undefined || tick.count < 2 ? tick : { ...tick, count: tick.count - 1 };
        }
      }
      expect(isCaught(kind, { log: (options) => new ShortTicks(options) })).toBe(true);
    });
  }

  for (const kind of ["LATEST", "SAMPLE"] as const) {
    test(`G5 the judge objects to a boundary inside a piece that ${kind} has thinned`, () => {
      const checkpointed: Fault = {
        frames: (frame) => {
          if (frame.kind !== "events" || frame.cursor.thinned === undefined) {
            return [frame];
          }
          const { version } = frame.cursor;
          const lag = { lagVersions: 0, lagMs: 0, timeMicros: undefined, progress: undefined };
          return [frame, { kind: "checkpoint", cursor: frame.cursor, version, state: "LIVE", ...lag }];
        },
      };
      expect(isCaught(kind, checkpointed)).toBe(true);
      const complete: Fault = {
        frames: (frame) => [
          frame.kind === "events" && frame.cursor.thinned !== undefined ? { ...frame, complete: true } : frame,
        ],
      };
      expect(isCaught(kind, complete)).toBe(true);
    });

    test(`G8 the judge objects to a cursor that forgets what ${kind} has said, or remembers more`, () => {
      expect(isCaught(kind, { thinned: () => undefined })).toBe(true);
      const longer: Fault = { thinned: (thinned) => thinned && { ...thinned, until: thinned.until - 1 } };
      expect(isCaught(kind, longer)).toBe(true);
    });
  }
});
