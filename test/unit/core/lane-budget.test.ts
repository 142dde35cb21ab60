import { describe, expect, test } from "vitest";
import { LaneBudget, type Rememberer } from "../../../src/core/lane/lane-budget.ts";

class Holder implements Rememberer {
  bytes = 0;
  counted = 0;
  inUse = false;

  shed(): void {
    this.bytes = 0;
  }
}

describe("lane budget", () => {
  test("G9 idle lanes forget first, busy ones in turns, and the sum never stays above the bound", () => {
    const budget = new LaneBudget(100);
    const holders = Array.from({ length: 5 }, () => new Holder());
    const hold = (at: number, bytes: number, inUse: boolean) => {
      const holder = holders[at] ?? expect.unreachable();
      holder.bytes = bytes;
      holder.inUse = inUse;
      budget.count(holder);
      budget.enforce();
      return holders.map((each) => each.bytes);
    };
    hold(0, 40, true);
    hold(1, 30, false);
    expect(hold(2, 30, true)).toEqual([40, 30, 30, 0, 0]);
    expect(hold(3, 10, true)).toEqual([40, 0, 30, 10, 0]);
    expect(hold(4, 30, true)).toEqual([0, 0, 30, 10, 30]);
    expect(budget.bytes).toBe(70);
    expect(hold(3, 0, false)).toEqual([0, 0, 30, 0, 30]);
    expect(budget.bytes).toBe(60);
  });

  test("one that alone is larger than the bound forgets what it has", () => {
    const budget = new LaneBudget(100);
    const holder = new Holder();
    holder.bytes = 1_000;
    holder.inUse = true;
    budget.count(holder);
    budget.enforce();
    expect([holder.bytes, budget.bytes]).toEqual([0, 0]);
  });
});
