import { describe, expect, it } from "vitest";
import { VersionBook } from "../../support/checker/order.ts";
import { checkResume } from "../../support/checker/resume.ts";
import type { Complaint, Recording, SeenCall, SeenEvent, SeenFrame } from "../../support/checker/seen.ts";
import { checkSnapshot } from "../../support/checker/snapshot.ts";
import { checkFullStory, checkStream, verdict } from "../../support/checker/verdict.ts";
import { createWorld, framesOfWorld, mapEvents, rowsAt, story } from "./world.ts";

const world = createWorld();
const sound = framesOfWorld(world);

function guaranteesIn(complaints: readonly Complaint[]): readonly string[] {
  return [...new Set(complaints.map(({ guarantee }) => guarantee))].sort();
}

/** The frames with the event of this version replaced by these. */
function replace(version: number, by: (event: SeenEvent) => readonly SeenEvent[]): readonly SeenFrame[] {
  return mapEvents(sound, (events) => events.flatMap((event) => (event.version === version ? by(event) : [event])));
}

/** Versions anew from 1, so that order and density hold and only the content tells. */
function renumber(frames: readonly SeenFrame[]): readonly SeenFrame[] {
  let version = 0;
  return frames.flatMap((frame): readonly SeenFrame[] => {
    if (frame.kind === "checkpoint") return [];
    if (frame.kind !== "events") return [frame];
    const events = frame.events.map((event) => {
      version += 1;
      return { ...event, version };
    });
    return [{ ...frame, events }];
  });
}

function judge(frames: readonly SeenFrame[]): readonly string[] {
  return guaranteesIn(checkFullStory(story(frames), world.ledger));
}

describe("the checker, on a history that keeps every promise", () => {
  it("has nothing to say", () => {
    expect(verdict(checkFullStory(story(sound), world.ledger))).toBe("");
    expect(world.ticks.flat().filter(({ operation }) => operation === "DELETE").length).toBeGreaterThan(2);
  });
});

describe("the checker, on planted faults", () => {
  it("reports G1 for one event lost, also when versions were dealt anew", () => {
    const lost = replace(30, () => []);
    expect(judge(lost)).toEqual(expect.arrayContaining(["G1", "G3"]));
    expect(judge(renumber(lost))).toEqual(expect.arrayContaining(["G1"]));
  });

  it("reports G1 for the very last event lost, which leaves no hole", () => {
    const last = world.ticks.flat().length;
    expect(judge(replace(last, () => []))).toContain("G1");
  });

  it("reports G3 for one event doubled, also when versions were dealt anew", () => {
    expect(judge(replace(30, (event) => [event, event]))).toContain("G3");
    expect(judge(renumber(replace(30, (event) => [event, event])))).toContain("G3");
  });

  it("reports G4 for two changes of a key swapped, with dense versions", () => {
    const [first, second] = [31, 34].map((version) => world.ticks.flat()[version - 1]);
    if (first === undefined || second === undefined) throw new Error("The world is too small.");
    expect(first.key).toBe(second.key);
    const swapped = replace(31, () => [{ ...second, version: 31 }]);
    const both = mapEvents(swapped, (events) =>
      events.map((event) => (event.version === 34 ? { ...first, version: 34 } : event)),
    );
    expect(judge(both)).toContain("G4");
    expect(judge(both)).not.toContain("G1");
  });

  it("reports G3 for two events that came in each other's place", () => {
    const swapped = mapEvents(sound, (events) =>
      events.map((event) => events.find((other) => other.version === (event.version ^ 1)) ?? event),
    );
    expect(judge(swapped)).toContain("G3");
  });

  it("reports G5 for a transaction split by a batch that says it is complete", () => {
    expect(judge(split(true, []))).toEqual(["G5"]);
    expect(judge(split(false, []))).toEqual([]);
  });

  it("reports G5 for a transaction split by a checkpoint", () => {
    expect(judge(split(false, [{ kind: "checkpoint", version: 32, cursor: "c32", state: "LIVE" }]))).toContain("G5");
  });

  it("reports G2 for a phantom: an event of a transaction that rolled back", () => {
    const phantom = replace(30, (event) => [
      event,
      { ...event, transaction: "999", after: JSON.stringify({ id: "3", life: "phantom", counter: 7 }) },
    ]);
    expect(judge(renumber(phantom))).toContain("G2");
  });

  it("reports G2 for an event under the wrong transaction", () => {
    expect(judge(replace(30, (event) => [{ ...event, transaction: "1001" }]))).toContain("G2");
  });

  it("reports G4 for a stale image", () => {
    const update = world.ticks.flat().findLast(({ operation }) => operation === "UPDATE");
    if (update === undefined) throw new Error("The world has no UPDATE.");
    expect(judge(replace(update.version, (event) => [{ ...event, before: event.after }]))).toContain("G4");
    expect(judge(replace(update.version, (event) => [{ ...event, before: ` ${event.before}` }]))).toContain("G4");
  });

  it("reports G4 when the table moved on without an event", () => {
    const rows = new Map([["orders", new Map([["1", '{"id":"1","life":"1-1","counter":99}']])]]);
    const complaints = checkFullStory(story(sound), { ...world.ledger, tables: rows });
    expect(guaranteesIn(complaints)).toEqual(["G4"]);
  });

  it("reports G6 for an event at or below a checkpoint", () => {
    const early: readonly SeenFrame[] = sound.flatMap((frame, index): readonly SeenFrame[] =>
      index === 1 ? [{ kind: "checkpoint", version: 50, cursor: "c50", state: "LIVE" }, frame] : [frame],
    );
    expect(judge(early)).toContain("G6");
  });

  it("reports G3 across clients and G6 across time for a version that differs", () => {
    const book = new VersionBook();
    expect(book.note(story(sound), "G3")).toEqual([]);
    expect(book.note(story(sound, "again"), "G6")).toEqual([]);
    const changed = replace(30, (event) => [{ ...event, occurredAtMicros: 1 }]);
    expect(guaranteesIn(book.note(story(changed, "other"), "G3"))).toEqual(["G3"]);
    expect(guaranteesIn(book.note(story(changed, "later"), "G6"))).toEqual(["G6"]);
  });
});

/** A batch cut in the middle of a transaction: versions 31 to 36 are a tick of two transactions of three. */
function split(complete: boolean, between: readonly SeenFrame[]): readonly SeenFrame[] {
  return sound.flatMap((frame): readonly SeenFrame[] => {
    if (frame.kind !== "events" || frame.events[0]?.version !== 31) return [frame];
    return [
      { ...frame, events: frame.events.slice(0, 2), cursor: "c32", complete },
      ...between,
      { ...frame, events: frame.events.slice(2) },
    ];
  });
}

describe("the checker of snapshots", () => {
  const at = world.ticks[5]?.at(-1)?.version ?? 0;
  const rows = rowsAt(world, at);
  const after = sound.filter((frame) => frame.kind === "events" && (frame.events[0]?.version ?? 0) > at);
  const handOff = (taken: readonly SeenEvent[], following: readonly SeenFrame[]): Recording =>
    story([
      { kind: "opened", epoch: "e", version: at, cursor: "s" },
      { kind: "snapshot_started", version: at, restart: false, resumed: false, cursor: "s" },
      { kind: "events", events: taken, cursor: "s", complete: false },
      { kind: "snapshot_complete", version: at, cursor: `c${at}`, rows: taken.length },
      ...following,
    ]);
  const judgeSnapshot = (recording: Recording) =>
    guaranteesIn(checkSnapshot(recording, world.ledger, story(sound, "reference")));

  it("has nothing to say of a sound hand-off", () => {
    expect(judgeSnapshot(handOff(rows, after))).toEqual([]);
  });

  it("reports G7 for a row lost, doubled or stale, and for a change lost or repeated at the seam", () => {
    const [first] = rows;
    if (first === undefined) throw new Error("The snapshot has no rows.");
    const stale = { ...first, after: JSON.stringify({ id: first.key, life: "x", counter: 1 }) };
    expect(judgeSnapshot(handOff(rows.slice(1), after))).toEqual(["G7"]);
    expect(judgeSnapshot(handOff([...rows, first], after))).toEqual(["G7"]);
    expect(judgeSnapshot(handOff([stale, ...rows.slice(1)], after))).toEqual(["G7"]);
    expect(judgeSnapshot(handOff(rows, after.slice(1)))).toEqual(["G7"]);
    const from = sound.filter((frame) => frame.kind === "events" && (frame.events.at(-1)?.version ?? 0) >= at);
    expect(judgeSnapshot(handOff(rows, from))).toEqual(["G7"]);
  });

  it("reports G7 for a snapshot that never completes", () => {
    const cut = story(sound.slice(0, 1));
    expect(judgeSnapshot(cut)).toEqual(["G7"]);
  });

  it("drops the rows of a snapshot that was cut and started again", () => {
    const [first] = rows;
    if (first === undefined) throw new Error("The snapshot has no rows.");
    const whole = handOff(rows, after).calls[0]?.frames ?? [];
    const cut: SeenCall = {
      from: undefined,
      frames: [
        { kind: "opened", epoch: "e", version: 6, cursor: "s0" },
        { kind: "snapshot_started", version: 6, restart: false, resumed: false, cursor: "s" },
        { kind: "events", events: [{ ...first, version: 6 }], cursor: "s6", complete: false },
      ],
    };
    const again = whole.map((frame) => (frame.kind === "snapshot_started" ? { ...frame, restart: true } : frame));
    const recording = { client: "cut", calls: [cut, { from: "s6", frames: again }] };
    expect(judgeSnapshot(recording)).toEqual([]);
    expect(judgeSnapshot({ client: "cut", calls: [cut, { from: "s6", frames: whole }] })).toEqual(["G7"]);
  });
});

describe("the checker of snapshots that go on", () => {
  const first = world.ticks[5]?.at(-1)?.version ?? 0;
  const second = world.ticks[9]?.at(-1)?.version ?? 0;
  const place = "2";
  const covered = rowsAt(world, first).filter(({ key }) => (key ?? "") <= place);
  const rest = rowsAt(world, second).filter(({ key }) => (key ?? "") > place);
  const note = { ...sampleEvent(), version: first + 1, topic: "notes", operation: "MESSAGE", before: undefined };
  const between = world.ticks.flat().filter(({ version }) => version > first && version <= second);
  const concerning = between.filter(({ key }) => (key ?? "") <= place);
  const after = sound.filter((frame) => frame.kind === "events" && (frame.events[0]?.version ?? 0) > second);

  interface Parts {
    readonly changes?: readonly SeenEvent[];
    readonly rows?: readonly SeenEvent[];
    readonly counted?: number;
    readonly amid?: readonly SeenFrame[];
    readonly resumed?: Partial<SeenFrame & { kind: "snapshot_started" }>;
  }
  const goOn = ({ changes = concerning, rows = rest, counted, amid = [], resumed = {} }: Parts = {}): Recording => ({
    client: "cut",
    calls: [
      {
        from: undefined,
        frames: [
          { kind: "opened", epoch: "e", version: first, cursor: "s" },
          { kind: "snapshot_started", version: first, restart: false, resumed: false, cursor: "s" },
          { kind: "events", events: covered, cursor: "s2", complete: false },
        ],
      },
      {
        from: "s2",
        frames: [
          { kind: "opened", epoch: "e", version: first, cursor: "s2" },
          { kind: "snapshot_started", version: second, restart: false, resumed: true, cursor: "s2", ...resumed },
          { kind: "events", events: changes, cursor: "s3", complete: false },
          ...amid,
          { kind: "events", events: rows, cursor: "s4", complete: false },
          { kind: "snapshot_complete", version: second, cursor: "c", rows: counted ?? covered.length + rows.length },
          ...after,
        ],
      },
    ],
  });
  const reference = story(sound, "reference");
  const judgeParts = (parts: Parts) => {
    const recording = goOn(parts);
    return guaranteesIn([
      ...checkSnapshot(recording, world.ledger, reference),
      ...checkStream(recording, { dense: true }),
      ...checkResume(recording, reference),
    ]);
  };

  it("has nothing to say of one that goes on as it must", () => {
    expect(concerning.length).toBeGreaterThan(3);
    expect([covered.length, rest.length].every((length) => length > 0)).toBe(true);
    const told: SeenFrame = { kind: "checkpoint", version: second, cursor: "s3", state: "SNAPSHOT" };
    expect(judgeParts({ amid: [told] })).toEqual([]);
  });

  it("reports G7 for any one event skipped while it is brought up to date", () => {
    for (const skipped of concerning) {
      expect(judgeParts({ changes: concerning.filter((event) => event !== skipped) })).toEqual(["G7"]);
    }
  });

  it("reports G7 for a key taken for one that was delivered, and for one that was not", () => {
    expect(judgeParts({ changes: between.filter(({ key }) => (key ?? "") <= "3") })).toContain("G7");
    expect(judgeParts({ changes: between.filter(({ key }) => (key ?? "") < place) })).toContain("G7");
    expect(judgeParts({ rows: rowsAt(world, second).filter(({ key }) => (key ?? "") >= place) })).toEqual(["G7"]);
    expect(judgeParts({ rows: [] })).toEqual(["G7"]);
  });

  it("reports G7 for rows as of the earlier version, for none of the events, and for a wrong count", () => {
    const stale = rowsAt(world, first).filter(({ key }) => (key ?? "") > place);
    expect(judgeParts({ rows: stale })).toContain("G7");
    expect(judgeParts({ changes: [] })).toContain("G7");
    expect(judgeParts({ counted: rest.length })).toEqual(["G7"]);
  });

  it("reports G7 for one that goes on without saying so, and for one that says to drop what it needs", () => {
    expect(judgeParts({ resumed: { resumed: false } })).toContain("G7");
    expect(judgeParts({ resumed: { resumed: false, restart: true } })).toContain("G7");
  });

  it("reports G7 for a message that nobody published, or twice", () => {
    expect(judgeParts({ changes: [note, ...concerning.slice(1)] })).toContain("G7");
  });

  it("reports G5 for a boundary in the middle of it, and for a checkpoint that calls itself otherwise", () => {
    const checkpoint = { kind: "checkpoint", version: second, cursor: "s3" } as const;
    expect(judgeParts({ amid: [{ ...checkpoint, state: "LIVE" }] })).toContain("G5");
    const [event] = concerning.slice(-1);
    const complete: SeenFrame = { kind: "events", events: [], cursor: "s3", complete: true };
    expect(event).toBeDefined();
    expect(judgeParts({ amid: [complete] })).toContain("G5");
    const outside = { ...checkpoint, version: 0, cursor: "c0", state: "SNAPSHOT" };
    expect(judge([...sound.slice(0, 1), outside, ...sound.slice(1)])).toEqual(["G5"]);
  });
});

describe("the checker of resumed streams", () => {
  const reference = story(sound, "uninterrupted");
  const cutAfter = (index: number, from: number): Recording => ({
    client: "resumed",
    calls: [
      { from: undefined, frames: sound.slice(0, index) },
      {
        from: cursorAt(index),
        frames: [
          { kind: "opened", epoch: "e", version: versionAt(index), cursor: cursorAt(index) },
          ...sound.slice(from),
        ],
      },
    ],
  });
  const cursorAt = (index: number) => {
    const frame = sound[index - 1];
    return frame?.cursor ?? "";
  };
  const versionAt = (index: number) => Number(cursorAt(index).slice(1));

  it("has nothing to say of streams cut anywhere and resumed", () => {
    for (let index = 1; index < sound.length; index += 1) {
      const recording = cutAfter(index, index);
      expect(verdict([...checkResume(recording, reference), ...checkFullStory(recording, world.ledger)])).toBe("");
    }
  });

  it("reports G8 for a resume that skips or repeats", () => {
    expect(guaranteesIn(checkResume(cutAfter(5, 6), reference))).toEqual(["G8"]);
    expect(guaranteesIn(checkResume(cutAfter(5, 4), reference))).toEqual(["G8"]);
  });

  it("reports G8 for a call that opens at another place than its cursor", () => {
    const recording = cutAfter(5, 5);
    const moved: Recording = {
      client: "moved",
      calls: recording.calls.map((call, index) =>
        index === 0 ? call : { ...call, frames: call.frames.map((frame) => moveOpened(frame)) },
      ),
    };
    expect(guaranteesIn(checkResume(moved, reference))).toEqual(["G8"]);
  });
});

function sampleEvent(): SeenEvent {
  const [event] = world.ticks.flat();
  if (event === undefined) throw new Error("The world is empty.");
  return event;
}

function moveOpened(frame: SeenFrame): SeenFrame {
  return frame.kind === "opened" ? { ...frame, version: frame.version + 1 } : frame;
}
