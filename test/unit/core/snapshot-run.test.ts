import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { SnapshotRequest, SnapshotRows } from "../../../src/core/ports.ts";
import { type Fault, scenarios, simulate } from "./snapshot-simulation.ts";

/** Whether the judge objects in any of many scenarios. */
async function isCaught(fault: Fault): Promise<boolean> {
  const property = fc.asyncProperty(scenarios, async (scenario) => (await simulate(scenario, fault)).length === 0);
  return (await fc.check(property, { numRuns: 500, endOnFailure: true })).failed;
}

/** The place with another key than it has. */
function moved(request: SnapshotRequest, by: (key: string) => string): SnapshotRequest {
  const { after } = request;
  return after?.key === undefined ? request : { ...request, after: { ...after, key: by(after.key) } };
}

function shifted(key: string, by: number): string {
  return String.fromCharCode(key.charCodeAt(0) + by);
}

describe("snapshot", () => {
  test("G7 G8 cut anywhere, by anybody, at any version, a client holds at every cursor just what that covers", async () => {
    await fc.assert(
      fc.asyncProperty(scenarios, async (scenario) => {
        expect(await simulate(scenario)).toEqual([]);
      }),
      { numRuns: 1_000 },
    );
  });

  test("G7 the judge objects to an event skipped as a snapshot catches up", async () => {
    const reader: Fault["reader"] = (one) => ({
      concerning: async (events, signal) => (await one.concerning(events, signal)).slice(1),
    });
    expect(await isCaught({ reader })).toBe(true);
  });

  test("G7 the judge objects to a message left out, though no table shows it", async () => {
    const reader: Fault["reader"] = (one) => ({
      concerning: async (events, signal) => {
        const concerning = await one.concerning(events, signal);
        return concerning.filter(({ operation }) => operation !== "MESSAGE");
      },
    });
    expect(await isCaught({ reader })).toBe(true);
  });

  test("G7 the judge objects to events of rows that are yet to come", async () => {
    expect(await isCaught({ reader: () => ({ concerning: async (events) => events }) })).toBe(true);
  });

  test("G7 the judge objects to keys that are compared off by one, in both directions", async () => {
    expect(await isCaught({ request: (request) => moved(request, (key) => shifted(key, 1)) })).toBe(true);
    expect(await isCaught({ request: (request) => moved(request, (key) => shifted(key, -1)) })).toBe(true);
  });

  test("G7 the judge objects to a row twice, and to a row never", async () => {
    const rowsBy = (change: (rows: SnapshotRows) => SnapshotRows): Fault => {
      const reader: Fault["reader"] = (one) => ({
        rows: async function* () {
          for await (const rows of one.rows()) {
            yield change(rows);
          }
        },
      });
      return { reader };
    };
    const twice = rowsBy(({ part, events }) => ({ part, events: [...events, ...events.slice(-1)] }));
    const never = rowsBy(({ part, events }) => ({ part, events: events.length > 1 ? events.slice(1) : events }));
    expect(await isCaught(twice)).toBe(true);
    expect(await isCaught(never)).toBe(true);
  });

  test("G7 the judge objects to a snapshot that begins again and says that it goes on", async () => {
    const request = ({ after: _after, ...rest }: SnapshotRequest) => rest;
    expect(await isCaught({ request, reader: () => ({ resumed: true, concerning: async () => [] }) })).toBe(true);
  });
});
