import { describe, expect, it } from "vitest";
import { simulate } from "./simulate.ts";

/** What the simulation has found, each by the seed that showed it. */
const FOUND = [
  { name: "G10 the end of a tick that holds nothing more for a stream is told of all the same", seed: 1, steps: 150 },
  { name: "G9 a lane whose waiting events were forgotten meanwhile goes on", seed: 6_000, steps: 20_000 },
  {
    name: "G5 a start in the middle of a tick that is forgotten meanwhile is no boundary",
    seed: 100_008,
    steps: 2_372,
  },
  { name: "G10 a checkpoint at every tick, also of history that others have found", seed: 7, steps: 13_504 },
  { name: "G8 history that is lost behind a jump is not lost to the stream", seed: 700_018, steps: 18_023 },
  { name: "G3 a stream ahead of what its lane holds back is not led back behind it", seed: 700_106, steps: 5_103 },
] as const;

describe("seeds that showed a fault", () => {
  it.each(FOUND)("$name", async ({ seed, steps }) => {
    const { complaints } = await simulate(seed, steps);
    expect(complaints).toEqual([]);
  });
});
