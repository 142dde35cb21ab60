import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Cursor } from "../../../../src/core/cursor.ts";
import type { Event } from "../../../../src/core/event.ts";
import { GroupItem } from "../../../../src/core/group/group-item.ts";
import { GroupMachine } from "../../../../src/core/group/group-machine.ts";
import { GroupMember } from "../../../../src/core/group/group-member.ts";
import { decodeProgress, encodeProgress, type ProgressRange } from "../../../../src/core/group/group-progress.ts";
import { createSlots, dealSlots, slotOf } from "../../../../src/core/group/group-slots.ts";
import { GroupWindow } from "../../../../src/core/group/group-window.ts";

const EPOCH = "7a0c4e9e-2f6e-4a55-9f5e-0c8a3b1d2e4f";
const MEMBER_TERMS = {
  maxInFlight: 10,
  maxBatchEvents: 10,
  maxBatchBytes: 10_000,
  measure: () => 1,
  inPieces: false,
};

function eventAt(version: number, key: string | undefined = `k${version}`): Event {
  const rest = { before: undefined, after: undefined, transaction: "1", occurredAtMicros: 1, headers: undefined };
  return { version, topic: "t", key, operation: "UPDATE", ...rest };
}

function cursorAt(version: number): Cursor {
  return { epoch: EPOCH, version, fingerprint: 0, snapshot: undefined };
}

function memberOf(generation: number): GroupMember {
  return new GroupMember(generation, `${generation}`, MEMBER_TERMS, 0);
}

describe("slots", () => {
  test("are shared out evenly, and move as little as that takes", () => {
    fc.assert(
      fc.property(fc.array(fc.nat(11), { minLength: 1, maxLength: 20 }), (toggles) => {
        const slots = createSlots();
        const members = new Map<number, GroupMember>();
        for (const toggle of toggles) {
          const before = slots.map(({ owner }) => owner);
          if (!members.delete(toggle)) members.set(toggle, memberOf(toggle));
          const takers = [...members.values()];
          if (takers.length === 0) continue;
          const deal = dealSlots(slots, takers);
          expect(deal.length).toBe(slots.length);
          const shares = takers.map((taker) => deal.filter((owner) => owner === taker).length);
          expect(Math.max(...shares) - Math.min(...shares)).toBeLessThanOrEqual(1);
          // Nobody who stays gives up more than what is over its share.
          for (const [index, taker] of takers.entries()) {
            const had = before.filter((owner) => owner === taker).length;
            const kept = deal.filter((owner, slot) => owner === taker && before[slot] === taker).length;
            expect(kept).toBe(Math.min(had, shares[index] ?? 0));
          }
          for (const [index, slot] of slots.entries()) slot.owner = deal[index];
        }
      }),
    );
  });

  test("hold keys of any kind about as often as each other", () => {
    for (const keyOf of [(n: number) => `${n}`, (n: number) => `order-${n * 64}`, (n: number) => `["eu",${n}]`]) {
      const held = new Array(257).fill(0);
      for (let n = 0; n < 25_600; n++) held[slotOf(eventAt(1, keyOf(n)))] += 1;
      expect(held[256]).toBe(0);
      expect(Math.max(...held.slice(0, 256))).toBeLessThan(200);
      expect(Math.min(...held.slice(0, 256))).toBeGreaterThan(40);
    }
  });

  test("keep one key together whatever its topic, and barriers apart from all keys", () => {
    expect(slotOf({ ...eventAt(1, "x"), topic: "a" })).toBe(slotOf({ ...eventAt(2, "x"), topic: "b" }));
    expect(slotOf({ ...eventAt(1), key: undefined })).toBe(256);
    expect(slotOf({ ...eventAt(1, "x"), operation: "TRUNCATE" })).toBe(256);
  });
});

describe("the window", () => {
  test("counts the runs of what is settled behind its position, and finds what it holds", () => {
    fc.assert(
      fc.property(fc.shuffledSubarray([...Array(60).keys()]), fc.integer({ min: 1, max: 3 }), (order, gap) => {
        const window = new GroupWindow(0);
        const items = [...Array(60).keys()].map((index) => new GroupItem(eventAt((index + 1) * gap)));
        for (const item of items) window.push(item);
        for (const index of order) {
          const item = items[index];
          if (item === undefined) continue;
          item.settle();
          window.settled(item);
          const first = items.findIndex(({ state }) => state !== "settled");
          const behind = first < 0 ? [] : items.slice(first);
          const runs = behind.filter((each, at) => each.state === "settled" && behind[at - 1]?.state !== "settled");
          expect(window.runs).toBe(runs.length);
          expect(window.settledUpTo).toBe(first < 0 ? 60 * gap : (items[first]?.version ?? 0) - 1);
          for (const each of behind) expect(window.find(each.version)).toBe(each);
          expect(window.find(60 * gap + 1)).toBeUndefined();
        }
      }),
    );
  });
});

describe("progress", () => {
  const ranges: fc.Arbitrary<readonly ProgressRange[]> = fc
    .array(fc.tuple(fc.nat(300), fc.nat(1_000_000), fc.nat(5), fc.nat(3)), { maxLength: 20 })
    .map((parts) => {
      let end = 2 ** 40;
      return parts.map(([gap, length, deliveries, spared]) => {
        const first = end + 1 + gap;
        end = first + length;
        return { first, last: end, deliveries, spared: deliveries > 0 ? spared : 0 };
      });
    });

  test("is read as it was written, in the epoch that it is of", () => {
    fc.assert(
      fc.property(ranges, (written) => {
        const text = encodeProgress(EPOCH, 2 ** 40, written);
        expect(decodeProgress(text, EPOCH)).toEqual(written);
        expect(decodeProgress(text, "0d9f1c5e-0000-4a55-9f5e-0c8a3b1d2e4f")).toEqual([]);
      }),
    );
  });

  test("that cannot be read is none: everything comes again", () => {
    for (const text of ["", "2:x:1:AA", `1:${EPOCH}`, `1:${EPOCH}:7:%%`, "nonsense"]) {
      expect(decodeProgress(text, EPOCH)).toEqual([]);
    }
  });
});

describe("the machine", () => {
  const TERMS = {
    maxInFlight: 10,
    ackDeadlineMs: 1_000,
    maxAttempts: 3,
    deadLetterPolicy: "PARK" as const,
    maxMembers: 9,
  };
  const start = { terms: TERMS, cursor: cursorAt(0), progress: undefined, deadLetters: [], generation: 0 };
  const given = (machine: GroupMachine) =>
    machine
      .effects()
      .flatMap((effect) => (effect.kind === "frame" ? effect.frame.events.map(({ version }) => version) : []));

  test("delivers no dead letter again before it has come to what lies before it", () => {
    const letters = [{ version: 3, topic: "t", key: "k" }];
    const progress = encodeProgress(EPOCH, 0, [{ first: 3, last: 3, deliveries: 0, spared: 0 }]);
    const machine = new GroupMachine({ ...start, deadLetters: letters, progress });
    const replay = () => machine.replay([{ event: eventAt(3, "k"), attempts: 1 }], 0);
    const member = machine.join("a", MEMBER_TERMS, 0);
    machine.ready(member, 0);
    expect(replay()).toEqual([]);
    machine.events([eventAt(1, "k"), eventAt(3, "k")], cursorAt(3), 0);
    expect(given(machine)).toEqual([1]);
    expect(replay()).toEqual([3]);
    machine.ready(member, 0);
    expect(given(machine)).toEqual([3]);
  });

  test("lets an event that lies before its key's dead letter go", () => {
    const machine = new GroupMachine({ ...start, deadLetters: [{ version: 2, topic: "t", key: "k" }] });
    machine.ready(machine.join("a", MEMBER_TERMS, 0), 0);
    machine.events([eventAt(1, "k"), eventAt(3, "k")], cursorAt(3), 0);
    expect(given(machine)).toEqual([1]);
  });

  test("goes on with a member that waited for there to be fewer runs, once another has made them fewer", () => {
    const machine = new GroupMachine({ ...start, limits: { maxRuns: 1 } });
    const [a, b] = [machine.join("a", MEMBER_TERMS, 0), machine.join("b", MEMBER_TERMS, 0)];
    const ofA = [1, 3, 5].map((version) => eventAt(version, keyIn(machine, a)));
    machine.ready(a, 0);
    machine.ready(b, 0);
    const ofB = [2, 4].map((version) => eventAt(version, keyIn(machine, b)));
    machine.events([...ofA.slice(0, 2), ...ofB.slice(0, 1)].toSorted(byVersion), cursorAt(3), 0);
    expect(given(machine).toSorted()).toEqual([1, 2, 3]);
    machine.acknowledge(b.generation, { cursor: undefined, versions: [2], rejections: [] }, 0);
    machine.ready(b, 0);
    machine.events([...ofB.slice(1), ...ofA.slice(2)].toSorted(byVersion), cursorAt(5), 0);
    expect(given(machine)).toEqual([]);
    expect(machine.wait).toBe("RUNS");
    machine.acknowledge(a.generation, { cursor: undefined, versions: [1], rejections: [] }, 0);
    expect(given(machine)).toEqual([4]);
    expect(machine.wait).toBeUndefined();
  });

  /** A key whose slot is the member's: found by asking for it. */
  function keyIn(machine: GroupMachine, member: GroupMember): string {
    const probe = new GroupMachine({ ...start });
    const twins = [...machine.members.values()].map(({ name }) => probe.join(name, MEMBER_TERMS, 0));
    for (let n = 0; ; n++) {
      const twin = twins.find(({ name }) => name === member.name);
      const before = twin?.waiting ?? 0;
      probe.events([eventAt(n + 1, `key${n}`)], cursorAt(n + 1), 0);
      if ((twin?.waiting ?? 0) > before) return `key${n}`;
    }
  }
});

function byVersion(a: Event, b: Event): number {
  return a.version - b.version;
}
