import { describe, expect, it } from "vitest";
import { type Fault, tellStory } from "./story.ts";

const STEPS = 40;
const seeds = (count: number) => Array.from({ length: count }, (_, index) => index + 1);

describe("consumers that come, go, take over and are killed", () => {
  it("G1 G3 G8 get everything in order, never again what is acknowledged, and are believed only while they are the newest", async () => {
    for (const seed of seeds(50)) {
      expect(await tellStory({ seed, steps: STEPS }), `seed ${seed}`).toEqual([]);
    }
  });

  it("G3 are told exactly how often an event has come, where nobody dies", async () => {
    for (const seed of seeds(25)) {
      expect(await tellStory({ seed, steps: STEPS, orderly: true }), `seed ${seed}`).toEqual([]);
    }
  });

  const faults: readonly Fault[] = [
    "believes_everybody",
    "answers_too_early",
    "moves_back",
    "takes_delivered_for_done",
    "counts_twice",
  ];
  it.each(faults)("are told on: %s is noticed within a few stories", async (fault) => {
    const found: string[] = [];
    for (const seed of seeds(40)) {
      if (found.length === 0) found.push(...(await tellStory({ seed, steps: STEPS, fault })));
    }
    expect(found).not.toEqual([]);
  });
});
