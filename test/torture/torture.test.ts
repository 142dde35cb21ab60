import { describe, expect, it } from "vitest";
import { debian15Available } from "../support/cluster.ts";
import { seedOfRun } from "../support/workload/random.ts";
import type { Followed } from "./follower.ts";
import { replay } from "./judge.ts";
import { torture } from "./torture.ts";

const servers = [
  { name: "the embedded Postgres", cluster: {} },
  ...(debian15Available() ? [{ name: "Debian's Postgres 15", cluster: { binaries: "debian-15" } as const }] : []),
];

const say = (line: string) => process.stdout.write(`${line}\n`);

describe.each(servers)("a short torture of $name", ({ cluster }) => {
  it("G1, G2, G3, G4, G5 random statements, changes of tables and faults: the story is the tables'", async () => {
    const seed = seedOfRun();
    say(`torture: MILLRACE_SEED=${seed}`);
    const options = { seed, rounds: 4, transactions: 120, writers: 6, cluster, report: say };
    const { complaints, story } = await torture(options);
    expect(complaints).toEqual([]);

    // The judge itself: each of these must be noticed.
    // Of a row that changed once more later: of what comes last nobody could tell that it comes late.
    const [at, next] = successive(story);
    const spoilt: Readonly<Record<string, readonly Followed[]>> = {
      lost: story.toSpliced(at, 1),
      doubled: story.toSpliced(at, 0, ...story.slice(at, at + 1)),
      "lost and closed up": renumbered(story.toSpliced(at, 1)),
      "put off": renumbered([
        ...story.slice(0, at),
        ...story.slice(at + 1, next + 1),
        ...story.slice(at, at + 1),
        ...story.slice(next + 1),
      ]),
    };
    const unnoticed = Object.entries(spoilt).filter(([, log]) => sameStory(replay(log), replay(story)));
    expect(unnoticed.map(([name]) => name)).toEqual([]);
  }, 240_000);
});

/** Two successive changes of one row, the later one as late as can be. */
function successive(story: readonly Followed[]): readonly [at: number, next: number] {
  const later = new Map<string, number>();
  for (let i = story.length - 1; i >= 0; i -= 1) {
    const event = story[i]?.event;
    if (event === undefined || event.topic === "torture.notes" || event.topic === "torture.marker") continue;
    const row = `${event.topic} ${event.key}`;
    const next = later.get(row);
    if (next !== undefined && event.operation === "UPDATE") return [i, next];
    later.set(row, i);
  }
  throw new Error("No row changed twice.");
}

function renumbered(log: readonly Followed[]): readonly Followed[] {
  return log.map(({ event, boundary }, i) => ({ event: { ...event, version: i + 1 }, boundary }));
}

function sameStory(a: ReturnType<typeof replay>, b: ReturnType<typeof replay>): boolean {
  return (
    a.complaints.length === 0 &&
    JSON.stringify([...a.state].map(([t, m]) => [t, [...m]])) ===
      JSON.stringify([...b.state].map(([t, m]) => [t, [...m]]))
  );
}
