import { expect, test } from "vitest";
import { Admission } from "../../../src/server/admission.ts";

/** Each call takes a millisecond by a clock of its own. */
function setUp() {
  let nowMs = 0;
  const turns: (() => void)[] = [];
  const opened: number[] = [];
  const admission = new Admission(
    () => nowMs,
    (run) => turns.push(run),
  );
  const call = (id: number, then?: () => void) =>
    admission.admit(() => {
      nowMs += 1;
      opened.push(id);
      then?.();
    });
  const turn = () => turns.shift()?.();
  return { opened, turns, call, turn };
}

test("a few calls are let in at once", () => {
  const { opened, turns, call, turn } = setUp();
  for (const id of [1, 2, 3]) {
    call(id);
  }
  expect(opened).toEqual([1, 2, 3]);
  turn();
  expect(turns).toEqual([]);
  call(4);
  expect(opened).toEqual([1, 2, 3, 4]);
});

test("G9 many are let in in slices and in order, also those that come meanwhile", () => {
  const { opened, turns, call, turn } = setUp();
  for (let id = 0; id < 12; id += 1) {
    call(id);
  }
  expect(opened.length).toBe(5);
  turn();
  expect(opened.length).toBe(10);
  call(12);
  turn();
  expect(opened).toEqual(Array.from({ length: 13 }, (_, id) => id));
  expect(turns).toEqual([]);
});

test("a call that makes another one is not lost, nor let in twice", () => {
  const { opened, call, turn } = setUp();
  for (let id = 0; id < 6; id += 1) {
    call(id, id < 1 || id === 5 ? () => call(100 + id) : undefined);
  }
  for (let turns = 0; turns < 5; turns += 1) {
    turn();
  }
  expect(opened.toSorted((a, b) => a - b)).toEqual([0, 1, 2, 3, 4, 5, 100, 105]);
});
