import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { AlarmClock, type Sleeper } from "../../../src/core/stream/alarm-clock.ts";
import { ManualTime } from "./manual-time.ts";

/** Says when it rang. */
class Recorder implements Sleeper {
  ringsAtMs = Number.POSITIVE_INFINITY;
  ringsAs = -1;
  readonly rang: number[] = [];
  onRing: (() => void) | undefined;

  ring(nowMs: number): void {
    this.rang.push(nowMs);
    this.onRing?.();
  }
}

type Step = { readonly set: number; readonly inMs: number } | { readonly stop: number } | { readonly passMs: number };

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ set: fc.nat(29), inMs: fc.integer({ min: 0, max: 50 }) }) },
  { weight: 2, arbitrary: fc.record({ stop: fc.nat(29) }) },
  { weight: 1, arbitrary: fc.record({ passMs: fc.integer({ min: 1, max: 30 }) }) },
);

/** Beside the plainest clock: a list of who rings when. */
function play(steps: readonly Step[]): void {
  const time = new ManualTime();
  const clock = new AlarmClock(time, time);
  const sleepers = Array.from({ length: 30 }, () => new Recorder());
  const due = new Map<number, number>();
  const expected = sleepers.map((): number[] => []);
  for (const each of steps) {
    const nowMs = time.monotonic();
    if ("set" in each) {
      const atMs = nowMs + each.inMs;
      due.set(each.set, Math.min(due.get(each.set) ?? atMs, atMs));
      clock.setFor(sleepers[each.set] ?? expect.unreachable(), atMs);
    } else if ("stop" in each) {
      due.delete(each.stop);
      clock.stop(sleepers[each.stop] ?? expect.unreachable());
    } else {
      for (const [who, atMs] of [...due].filter(([, ms]) => ms <= nowMs + each.passMs)) {
        due.delete(who);
        expected[who]?.push(atMs);
      }
      time.passAtOnce(each.passMs);
    }
    expect(clock.size).toBe(due.size);
    expect(time.pending).toBeLessThanOrEqual(1);
  }
  expect(sleepers.map(({ rang }) => rang)).toEqual(expected);
  for (const sleeper of sleepers) {
    clock.stop(sleeper);
  }
  expect(time.pending).toBe(0);
}

describe("alarm clock", () => {
  test("everybody rings once, at the earliest time they asked for, on one timer", () => {
    fc.assert(fc.property(fc.array(step, { maxLength: 150 }), play), { numRuns: 2_000 });
  });

  test("whoever stands in for one that is taken from the middle rings in time", () => {
    const steps = [35, 54, 88, 75, 97, 43, 2].map((inMs, set) => ({ set, inMs }));
    play([...steps, { stop: 3 }, { passMs: 200 }]);
  });

  test("whoever sets an alarm for now while it rings does not keep the others waiting", () => {
    const time = new ManualTime();
    const clock = new AlarmClock(time, time);
    const [eager, other] = [new Recorder(), new Recorder()];
    eager.onRing = () => {
      if (eager.rang.length < 5) clock.setFor(eager, time.monotonic());
    };
    clock.setFor(eager, time.monotonic());
    clock.setFor(other, time.monotonic());
    time.passAtOnce(0);
    expect(other.rang.length).toBe(1);
    expect(eager.rang.length).toBe(5);
    expect(time.pending).toBe(0);
  });
});
