import { describe, expect, test } from "vitest";
import { RunQueue } from "../../../src/core/stream/run-queue.ts";
import { ManualTime } from "./manual-time.ts";
import { emit, REQUEST, setUp } from "./memory-feed.ts";

/** Time in which work takes time: whoever looks at the clock is told that some has passed. */
class BusyTime extends ManualTime {
  turns = 0;
  workedMs = 0;

  override monotonic(): number {
    return super.monotonic() + this.workedMs;
  }

  override turn(): Promise<void> {
    this.turns += 1;
    return super.turn();
  }
}

describe("turns", () => {
  test("G9 runs that take long keep nobody waiting for more than a few of them", async () => {
    const time = new BusyTime();
    const queue = new RunQueue(time, time);
    let left = 200;
    const atTurn = new Map<number, number>();
    const work = () => {
      time.workedMs += 5;
      left -= 1;
      atTurn.set(time.turns, (atTurn.get(time.turns) ?? 0) + 1);
      return left >= 50;
    };
    for (let i = 0; i < 50; i++) {
      queue.add({ queued: false, run: work });
    }
    await expect.poll(() => left).toBe(0);
    expect(Math.max(...atTurn.values())).toBeLessThanOrEqual(10);
  });

  test("G9 nor do many that are done in one run each, which nobody knows to be long before", async () => {
    const time = new BusyTime();
    const queue = new RunQueue(time, time);
    let left = 200;
    for (let i = 0; i < 200; i++) {
      queue.add({
        queued: false,
        run: () => {
          time.workedMs += 5;
          left -= 1;
          return false;
        },
      });
    }
    await expect.poll(() => left).toBe(0);
    expect(time.turns).toBeGreaterThan(50);
  });

  test("G9 a stream that finds nothing in much does not look through all of it in one turn", async () => {
    const time = new BusyTime();
    const setup = await setUp({ clock: time, timers: time });
    emit(setup.memory, 60_000);
    await setup.time.pass(1_000);
    expect(setup.feed.status().head).toBe(60_000);
    const before = time.turns;
    const filter = `event.topic == "others"`;
    const selectors = [{ topics: [], keys: [], operations: [], filter }];
    const request = { ...REQUEST, start: { kind: "oldest" as const }, selectors };
    const stream = await setup.feed.open(request, new AbortController().signal);
    const versions: number[] = [];
    stream.attach({
      inline: false,
      get ready() {
        time.workedMs += 3;
        return true;
      },
      write: (frame) => versions.push(frame.cursor.version),
      end: () => undefined,
    });
    await expect.poll(() => setup.feed.stats().lagVersions).toEqual([0]);
    expect(time.turns - before).toBeGreaterThan(10);
    await setup.feed.stop();
  });
});
