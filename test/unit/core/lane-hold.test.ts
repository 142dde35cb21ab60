import { expect, test } from "vitest";
import type { Lane } from "../../../src/core/lane/lane.ts";
import { Log } from "../../../src/core/log/log.ts";
import { eventBytes } from "../../../src/core/page.ts";
import { compileSelectors } from "../../../src/core/selector/selector.ts";
import { Progress } from "../../../src/core/stream/scan.ts";
import { emptyHistory, pageOf, settleTick } from "./history-maker.ts";
import { ManualTime } from "./manual-time.ts";
import { lanesOf } from "./test-lanes.ts";

const START = { tick: 0, firstVersion: 1, count: 0, timeMicros: 0, fingerprint: 99 };

/** A stream that takes all that there is whenever it is woken, within the append. */
class Eager {
  parkedAt = -1;
  readonly versions: number[] = [];
  readonly progress = new Progress({ version: 0, tick: START });
  readonly #lane: Lane;

  constructor(lane: Lane) {
    this.#lane = lane;
    this.wake();
  }

  wake(): void {
    for (;;) {
      this.#lane.skip(this.progress);
      const step = this.#lane.next(this.progress, undefined);
      if (step === undefined) {
        this.#lane.parked.add(this);
        return;
      }
      this.progress.pass(step);
      this.versions.push(...(step.frame?.events.map(({ version }) => version) ?? []));
    }
  }
}

test("G1 what a lane has to forget before it could hold it back is delivered all the same", () => {
  const time = new ManualTime();
  const history = emptyHistory();
  const log = new Log({ maxBytes: 1_000_000, head: 0, tick: START });
  const lanes = lanesOf({ epoch: "7a0c4e9e-2f6e-4a55-9f5e-0c8a3b1d2e4f", log }, { maxLanesBytes: 450 }, time);
  const acquire = (operation: "INSERT" | "UPDATE", maxDelayMs: number) =>
    lanes.acquire({
      matcher: compileSelectors([{ topics: [], keys: [], operations: [operation, "INSERT"] }]),
      codec: { identity: "test", measure: eventBytes },
      batch: { maxEvents: 100, maxBytes: 100_000, maxDelayMs },
    });
  const quick = new Eager(acquire("INSERT", 0));
  const patient = new Eager(acquire("UPDATE", 1_000));
  const append = (operation: "INSERT" | "UPDATE") => {
    settleTick(history, [{ topic: "orders", key: "1", operation }]);
    log.append(pageOf(history, log.head, 1) ?? expect.unreachable());
  };
  append("UPDATE");
  time.passAtOnce(1_000);
  expect(patient.versions).toEqual([1]);
  // Taking this, the quick stream makes all lanes forget; the other lane has been shown it, and has not decided yet.
  append("INSERT");
  patient.wake();
  append("INSERT");
  time.passAtOnce(1_000);
  expect([quick.versions, patient.versions]).toEqual([
    [2, 3],
    [1, 2, 3],
  ]);
  expect(patient.progress.scanned).toBe(3);
});
