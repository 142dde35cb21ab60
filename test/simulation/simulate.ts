import type { Complaint } from "../support/checker/seen.ts";
import type { PlantedFault } from "./faults.ts";
import { World } from "./world.ts";

/** One run: what was found, and what was done. */
export interface Outcome {
  readonly seed: number;
  readonly steps: number;
  readonly complaints: readonly Complaint[];
  /** Of everything that was said, with its time: the same for the same seed. */
  readonly digest: string;
  readonly counts: Readonly<Record<string, number>>;
}

/** Runs one world for so many steps, and until everybody has come to the end. */
export async function simulate(seed: number, steps: number, fault?: PlantedFault): Promise<Outcome> {
  const planted = fault?.plant();
  const world = new World(seed, planted?.spoil);
  try {
    await world.run(steps);
  } finally {
    planted?.remove();
  }
  const { complaints, digest, counts } = world.tally;
  return { seed, steps: world.time.steps, complaints, digest, counts };
}

/** The fewest steps, about, after which a seed that fails still does. */
export async function shrink(seed: number, steps: number, fault?: PlantedFault): Promise<number> {
  let least = steps;
  for (let below = 1; below < least; ) {
    const middle = Math.floor((below + least) / 2);
    const { complaints } = await simulate(seed, middle, fault);
    if (complaints.length > 0) {
      least = middle;
    } else {
      below = middle + 1;
    }
  }
  return least;
}

/** What to print of a run that failed. */
export function describeFailure({ seed, complaints }: Outcome, steps: number): string {
  const lines = complaints.slice(0, 5).map(({ guarantee, client, text }) => `${guarantee} [${client}] ${text}`);
  return [...lines, `again with: npm run simulate -- --seed ${seed} --steps ${steps}`].join("\n");
}
