import { describe, expect, it } from "vitest";
import { type Committed, type Consumption, judge, judgeEffects, type Note } from "../../support/checker/consumption.ts";

const CLAIM = 100_000;
const committed = (version: number, key: string | undefined): Committed => ({
  version,
  topic: "a",
  key,
  mark: `m${version}`,
});
/** Two keys, and a barrier at 5. */
const truth = ["x", "y", "x", "y", undefined, "x", "y"].map((key, index) => committed(index + 1, key));

/** What one member is given, processes and acknowledges, in three moments that follow each other. */
function batch(at: number, who: string, generation: number, versions: readonly number[], attempt = 1): Note[] {
  const events = versions.map((version) => ({ version, mark: `m${version}`, attempt }));
  return [
    { at, who, what: "delivered", generation, events },
    ...versions.map((version): Note => ({ at: at + 10, who, what: "processed", version })),
    { at: at + 20, who, what: "acknowledging", call: at, generation, versions, rejected: [] },
    { at: at + 30, who, what: "acknowledged", call: at, accepted: versions.length },
  ];
}

const [A, B] = [7 * CLAIM + 1, 7 * CLAIM + 2];
const row = (at: number, version: number, generation = 7, movedGeneration = 0) => ({
  at,
  version,
  generation,
  movedGeneration,
});
const opened = (who: string, generation: number, version = 0, at = 90): Note => ({
  at,
  who,
  what: "opened",
  generation,
  version,
  askedAt: at - 10,
});

/** A group as it should be: x goes to a, y to b; a is killed with 6 in its hands, which then goes to b. */
const group: Consumption = {
  subscription: "group",
  kind: "group",
  ackDeadlineMs: 3_000,
  truth,
  notes: [
    opened("a", A),
    opened("b", B),
    ...batch(100, "a", A, [1, 3]),
    ...batch(110, "b", B, [2, 4]),
    ...batch(200, "b", B, [5]),
    { at: 300, who: "a", what: "delivered", generation: A, events: [{ version: 6, mark: "m6", attempt: 1 }] },
    { at: 310, who: "a", what: "killed" },
    ...batch(400, "b", B, [6], 2),
    ...batch(410, "b", B, [7]),
  ],
  rows: [row(50, 0), row(125, 1), row(135, 4), row(225, 5), row(425, 6), row(435, 7)],
  deadLetters: [],
};

/** One consumer as it should be: killed after 3, whose acknowledgement was not answered; then moved back to 3 and on. */
const plain: Consumption = {
  subscription: "plain",
  kind: "plain",
  ackDeadlineMs: 0,
  truth,
  notes: [
    opened("c", 3),
    ...batch(100, "c", 3, [1, 2]),
    ...batch(200, "c", 3, [3]).slice(0, 2),
    { at: 215, who: "c", what: "killed" },
    opened("d", 4, 2, 300),
    ...batch(310, "d", 4, [3, 4, 5], 2),
    opened("d", 6, 3, 500),
    ...batch(510, "d", 6, [4, 5, 6, 7]),
  ],
  rows: [
    row(50, 0, 3),
    row(125, 2, 3),
    row(290, 2, 4),
    row(335, 5, 4),
    row(450, 3, 5, 5),
    row(490, 3, 6, 5),
    row(535, 7, 6, 5),
  ],
  deadLetters: [],
};

const without = (wrong: (note: Note) => boolean, notes = group.notes) => notes.filter((note) => !wrong(note));
const isAbout = (version: number) => (note: Note) =>
  (note.what === "processed" && note.version === version) ||
  ((note.what === "delivered" || note.what === "acknowledging") && mentions(note, version));
const mentions = (note: Note, version: number) =>
  note.what === "delivered"
    ? note.events.some((event) => event.version === version)
    : note.what === "acknowledging" && note.versions.includes(version);
/** Of these notes, the moment of those that pass is another. */
const moved = (by: number, which: (note: Note) => boolean, notes = group.notes) =>
  notes.map((note) => (which(note) ? { ...note, at: note.at + by } : note));

const faults: readonly (readonly [string, Consumption, RegExp])[] = [
  ["an event that nobody was given", { ...group, notes: without(isAbout(7)) }, /version 7 .* was lost/],
  [
    "an event that was given and dropped",
    { ...group, notes: without((note) => note.what === "processed" && note.version === 7) },
    /version 7 .* was lost/,
  ],
  [
    "another event under its version",
    { ...group, truth: truth.map((event) => (event.version === 2 ? { ...event, mark: "other" } : event)) },
    /version 2 .* not what was committed/,
  ],
  [
    "two of a key in the wrong order",
    {
      ...group,
      notes: moved(-2, (note) => note.what === "processed" && note.version === 3),
    },
    /version 1 .* for the first time after 3/,
  ],
  [
    "two members with one key",
    { ...group, notes: without((note) => note.what === "killed") },
    /version 6 .* came to b while a had 6/,
  ],
  [
    "a barrier that did not wait",
    { ...group, notes: moved(-85, isAbout(5)) },
    /version 5 .* came before 4 was settled/,
  ],
  [
    "an event that did not wait for the barrier",
    { ...group, notes: moved(-200, (note) => note.what === "delivered" && note.who === "a" && mentions(note, 6)) },
    /version 6 .* came before the barrier 5/,
  ],
  [
    "a position beyond what was acknowledged",
    {
      ...group,
      rows: group.rows.map((one) => (one.at === 125 ? { ...one, version: 2 } : one)),
      notes: moved(9, (note) => note.who === "b" && note.at < 150),
    },
    /position 2 is beyond version 2/,
  ],
  [
    "an acknowledgement that covers too much",
    {
      ...group,
      notes: group.notes.map((note) =>
        note.what === "acknowledged" && note.who === "a" ? { ...note, accepted: 4 } : note,
      ),
    },
    /a acknowledged 4, of which it had 2/,
  ],
  ["a position that goes back", { ...group, rows: [...group.rows, row(500, 6)] }, /position went back from 7 to 6/],
  [
    "a generation that goes back",
    { ...group, rows: [...group.rows, row(500, 7, 6)] },
    /generation went back from 7 to 6/,
  ],
  [
    "a member of an older claim that is believed",
    { ...group, rows: group.rows.map((one) => (one.at >= 225 ? { ...one, generation: 8 } : one)) },
    /b was believed as 700002 after 8 was given/,
  ],
  [
    "an event of a group that comes again although it was acknowledged",
    { ...group, notes: [...group.notes, ...batch(600, "b", B, [3], 2)] },
    /version 3 .* after it was acknowledged/,
  ],
  [
    "an older consumer that is believed",
    { ...plain, notes: [...plain.notes, ...batch(600, "c", 3, [7]).slice(1)] },
    /c was believed as 3 after 4 was given/,
  ],
  [
    "an event that a stream leaves out",
    {
      ...plain,
      notes: plain.notes.map((note) =>
        note.what === "delivered" && note.at === 510 ? { ...note, events: note.events.slice(1) } : note,
      ),
    },
    /d as 6 was given 5 where 4 is next/,
  ],
  [
    "a stream that begins beyond what was acknowledged",
    { ...plain, rows: plain.rows.map((one) => (one.at === 290 ? { ...one, version: 3 } : one)) },
    /position 3 is beyond version 3/,
  ],
  [
    "an event that comes again without a move",
    { ...plain, rows: plain.rows.map((one) => ({ ...one, movedGeneration: 0 })) },
    /version 4 .* after it was acknowledged/,
  ],
];

describe("the judge of consumption", () => {
  it.each([group, plain])("has nothing to say of a $kind subscription as it should be", (consumption) => {
    expect(judge(consumption)).toEqual([]);
  });

  it.each(faults)("sees %s", (_, consumption, complaint) => {
    expect(judge(consumption).join("\n")).toMatch(complaint);
  });

  it("takes a dead letter for an event that was not lost", () => {
    const dead = { ...group, notes: without(isAbout(7)), deadLetters: [{ at: 420, version: 7 }] };
    expect(judge(dead)).toEqual([]);
  });

  it("counts effects", () => {
    const effects = truth.map(({ mark }) => mark);
    expect(judgeEffects(truth, effects)).toEqual([]);
    expect(judgeEffects(truth, effects.toSpliced(2, 1))).toEqual(["m3 never took effect"]);
    expect(judgeEffects(truth, effects.toSpliced(2, 0, "m3"))).toEqual(["m3 took effect twice"]);
    expect(judgeEffects(truth, effects.toSpliced(2, 2, "m4", "m3"))).toEqual(["effects are not in order"]);
  });
});
