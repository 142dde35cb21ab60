import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Page } from "../../../src/core/page.ts";
import { type Crowd, type Fault, playCrowd } from "./history-readers-simulation.ts";

const CROWD: Crowd = {
  seed: 1,
  readers: 3_000,
  versions: 20_000,
  pageEvents: 700,
  uneven: false,
  maxReads: 4,
  cacheMaxBytes: 1_000_000_000,
  aborts: 0,
  pauses: 0,
};

/**
 * Where nothing leaves the cache, a page is read only for a version that no page holds, and begins at most half a page
 * before it: so four pages in the place of one, at worst. The rest is for the first ones, when nobody knows how long pages are.
 */
function mostReads({ versions, pageEvents, maxReads }: Crowd): number {
  return 4 * Math.ceil(versions / pageEvents) + 4 * maxReads;
}

describe("history readers", () => {
  test("G3 G9 every reader gets every version once and in order, whatever is cut, kept and given back", async () => {
    const crowds = fc.record({
      seed: fc.integer(),
      readers: fc.integer({ min: 1, max: 60 }),
      versions: fc.integer({ min: 1, max: 500 }),
      pageEvents: fc.integer({ min: 3, max: 200 }),
      uneven: fc.boolean(),
      maxReads: fc.integer({ min: 1, max: 5 }),
      cacheMaxBytes: fc.constantFrom(0, 5_000, 40_000, 1_000_000_000),
      aborts: fc.integer({ min: 0, max: 40 }),
      pauses: fc.integer({ min: 0, max: 20 }),
    });
    await fc.assert(
      fc.asyncProperty(crowds, async (crowd) => {
        expect((await playCrowd(crowd)).objections).toEqual([]);
      }),
      { numRuns: 150 },
    );
  }, 120_000);

  test.each([1, 2, 3, 4])(
    "thousands of readers cost about as many reads as there are pages (seed %i)",
    async (seed) => {
      const crowd = { ...CROWD, seed };
      const { objections, reads, shared } = await playCrowd(crowd);
      expect(objections).toEqual([]);
      expect(reads).toBeLessThanOrEqual(mostReads(crowd));
      expect(shared).toBeGreaterThan(crowd.readers);
    },
  );

  test("readers that come and go add no reads but those that were cut", async () => {
    const crowd = { ...CROWD, seed: 5, aborts: 60, pauses: 1 };
    const { objections, reads, cut } = await playCrowd(crowd);
    expect(objections).toEqual([]);
    expect(reads - cut).toBeLessThanOrEqual(mostReads(crowd));
  });

  test.each<[string, RegExp, Fault]>([
    [
      "a page that is shared with whoever it is not for",
      /for whoever stands at/,
      (readers) => {
        let last: Page | undefined;
        return {
          readAfter: async (after, reader, signal) => {
            last ??= await readers.readAfter(after, reader, signal);
            return last;
          },
        };
      },
    ],
    [
      "a page that somebody has changed",
      /in the place of/,
      (readers) => ({
        readAfter: async (after, reader, signal) => {
          const page = await readers.readAfter(after, reader, signal);
          return page && { ...page, events: page.events.toReversed() };
        },
      }),
    ],
    [
      "a request that is forgotten",
      /waits for ever/,
      (readers) => {
        let asked = 0;
        return {
          readAfter: (after, reader, signal) => {
            asked += 1;
            return asked === 7 ? new Promise(() => undefined) : readers.readAfter(after, reader, signal);
          },
        };
      },
    ],
  ])("the judge objects to %s", async (_name, objection, fault) => {
    const { objections } = await playCrowd({ ...CROWD, readers: 50, versions: 2_000 }, fault);
    expect(objections.join("\n")).toMatch(objection);
  });

  test("the bound on reads objects to readers that share nothing", async () => {
    const crowd = { ...CROWD, readers: 300 };
    const { reads } = await playCrowd(crowd, (_readers, table) => ({
      readAfter: (after, _reader, signal) => table.readAfter(after, signal),
    }));
    expect(reads).toBeGreaterThan(mostReads(crowd));
  });
});
