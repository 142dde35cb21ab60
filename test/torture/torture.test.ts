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
    expect(complaints, `MILLRACE_SEED=${seed}`).toEqual([]);

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
    expect(
      unnoticed.map(([name]) => name),
      `MILLRACE_SEED=${seed}`,
    ).toEqual([]);
  }, 240_000);
});

describe("a torture that does not end", () => {
  it("tells its seed, what it waits for, and what database, servers and follower say", async () => {
    // Nobody commits so much in a millisecond.
    const told = await torture({ seed: 42, rounds: 1, transactions: 1e9, writers: 1, longestMs: 1 }).catch(String);
    expect(told).toMatch(/MILLRACE_SEED=42: Round 1, .*: No end after/);
    const findings = [
      /^waited for .*: \d+ transactions/m,
      /^writer .*: \d+ committed/m,
      /^follower: \d+ events/m,
      /^sessions: *\n.*"blocked_by":\[/m,
      /^newest ticks: *\n/m,
      /^server .*, process: State/m,
      /^server .*, feed: .*"head_version":/m,
      /^Postgres' log: \S/m,
    ];
    for (const finding of findings) expect(told).toMatch(finding);
  }, 120_000);
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
