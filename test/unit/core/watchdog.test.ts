import { describe, expect, test } from "vitest";
import type { FeedError } from "../../../src/core/errors.ts";
import { Watchdog } from "../../../src/core/watchdog/watchdog.ts";
import type { Verdict } from "../../../src/core/watchdog/watched-part.ts";
import { ManualTime } from "./manual-time.ts";

const TAIL = { name: "tail", code: "TAIL_STUCK", noun: "The tail" };

function setUp() {
  const time = new ManualTime();
  const reports: string[] = [];
  const restarts: string[] = [];
  const watchdog = new Watchdog({
    clock: time,
    timers: time,
    patienceMs: 10_000,
    report: (message, error) => reports.push(error === undefined ? message : `${message} ${error.message}`),
    onRestart: (part) => restarts.push(part),
  });
  watchdog.start();
  return { time, watchdog, reports, restarts };
}

/** A piece of work that remembers why it was broken off. */
function piece(allowedMs: number, more: { signs?: () => number | undefined; inquire?: () => Promise<Verdict> } = {}) {
  const broken: FeedError[] = [];
  return {
    broken,
    options: {
      what: "settle",
      where: "pid 7",
      allowedMs,
      breakOff: (reason: FeedError) => broken.push(reason),
      ...more,
    },
  };
}

describe("a watchdog", () => {
  test("breaks off what is silent for longer than it may be, and says so until it works", async () => {
    const { time, watchdog, reports, restarts } = setUp();
    const part = watchdog.part(TAIL);
    const { broken, options } = piece(30_000);
    const work = part.begin({ ...options, breakOff: (reason) => [broken.push(reason), work.end("failed")] });
    await time.pass(39_000);
    expect(broken).toEqual([]);
    expect(watchdog.problems()).toEqual([]);
    await time.pass(1_000);
    expect(broken.map(({ code }) => code)).toEqual(["DATABASE_UNAVAILABLE"]);
    expect(watchdog.problems()).toEqual([
      {
        code: "TAIL_STUCK",
        message:
          "The tail waited 40.0 s to settle (pid 7) without a sign of life. It was broken off, and is tried again.",
        action: "Nothing, if it helps. If it comes again, look at the network to Postgres and at that session.",
      },
    ]);
    part.begin(options).end("done");
    await time.pass(1_000);
    expect(watchdog.problems()).toEqual([]);
    expect(restarts).toEqual(["tail"]);
    expect(reports).toEqual([expect.stringMatching(/^The tail is stuck and is restarted\./), "The tail works again."]);
  });

  test("leaves alone what gives signs, however long it takes", async () => {
    const { time, watchdog } = setUp();
    let bytes = 0;
    const { broken, options } = piece(0, { signs: () => bytes });
    watchdog.part(TAIL).begin(options);
    for (let minute = 0; minute < 60; minute += 1) {
      for (let at = 0; at < 10; at += 1) {
        await time.pass(6_000);
        bytes += 1;
      }
    }
    expect(broken).toEqual([]);
    await time.pass(11_000);
    expect(broken).toHaveLength(1);
  });

  test("counts no time in which nobody is waited for", async () => {
    const { time, watchdog } = setUp();
    const { broken, options } = piece(0, { signs: () => undefined });
    watchdog.part(TAIL).begin(options);
    await time.pass(3_600_000);
    expect(broken).toEqual([]);
  });

  test("asks somebody else first: what is lost is broken off at once, what works is left until it may not take longer", async () => {
    const { time, watchdog } = setUp();
    const lost = piece(3_600_000, {
      inquire: async () => ({ kind: "lost", evidence: "its session has nothing to do" }),
    });
    watchdog.part(TAIL).begin(lost.options);
    let asked = 0;
    const slow = piece(3_600_000, {
      inquire: async () => {
        asked += 1;
        return { kind: "working" };
      },
    });
    watchdog.part({ ...TAIL, name: "retention" }).begin(slow.options);
    await time.pass(10_000);
    expect(lost.broken.map(({ message }) => message)).toEqual([
      "The tail waited 10.0 s to settle (pid 7) without a sign of life; its session has nothing to do. It was broken off, and is tried again.",
    ]);
    await time.pass(3_590_000);
    expect(slow.broken).toEqual([]);
    expect(asked).toBeGreaterThan(300);
    await time.pass(10_000);
    expect(slow.broken).toHaveLength(1);
  });

  test("believes no verdict that a sign has overtaken", async () => {
    const { time, watchdog } = setUp();
    const verdict = Promise.withResolvers<Verdict>();
    let bytes = 0;
    const { broken, options } = piece(60_000, { signs: () => bytes, inquire: () => verdict.promise });
    watchdog.part(TAIL).begin(options);
    await time.pass(15_000);
    bytes += 1;
    verdict.resolve({ kind: "lost", evidence: "it looked so" });
    await time.pass(100);
    expect(broken).toEqual([]);
  });

  test("an inquiry that fails, or that nobody answers, breaks nothing off before its time", async () => {
    const { time, watchdog } = setUp();
    const failing = piece(60_000, { inquire: () => Promise.reject(new Error("no connection")) });
    const silent = piece(60_000, { inquire: () => new Promise(() => undefined) });
    watchdog.part(TAIL).begin(failing.options);
    watchdog.part(TAIL).begin(silent.options);
    await time.pass(69_000);
    expect([...failing.broken, ...silent.broken]).toEqual([]);
    await time.pass(1_000);
    expect([failing.broken.length, silent.broken.length]).toEqual([1, 1]);
  });

  test("a process that stood still does not take its own absence for the server's, and says that it stood still", async () => {
    const { time, watchdog, reports } = setUp();
    const { broken, options } = piece(0);
    watchdog.part(TAIL).begin(options);
    // One beat that comes an hour late.
    time.oversleep(3_600_000);
    expect(broken).toEqual([]);
    expect(reports).toEqual(["This process did nothing for 3599 s, until now."]);
    expect(watchdog.problems().map(({ code }) => code)).toEqual(["EVENT_LOOP_BLOCKED"]);
    await time.pass(61_000);
    expect(watchdog.problems().map(({ code }) => code)).not.toContain("EVENT_LOOP_BLOCKED");
  });

  test("what does not end although it was broken off is broken off again, and tells who could do more", async () => {
    const { time, watchdog, restarts } = setUp();
    const hopeless: string[] = [];
    const part = watchdog.part({ ...TAIL, onHopeless: ({ message }) => hopeless.push(message) });
    const { broken, options } = piece(0);
    const work = part.begin(options);
    await time.pass(20_000);
    expect(hopeless).toEqual([]);
    await time.pass(10_000);
    expect(hopeless).toEqual([expect.stringContaining("for the 3. time in a row")]);
    expect(broken).toHaveLength(3);
    expect(restarts).toEqual(["tail", "tail", "tail"]);
    work.end("done");
    await time.pass(1_000);
    expect(watchdog.problems()).toEqual([]);
  });

  test("failures say nothing of whether it works: only a success ends the count", async () => {
    const { time, watchdog } = setUp();
    const hopeless: string[] = [];
    const part = watchdog.part({ ...TAIL, onHopeless: ({ message }) => hopeless.push(message) });
    const round = async (outcome: "done" | "failed") => {
      const work = part.begin({ ...piece(0).options, breakOff: () => work.end("failed") });
      await time.pass(10_000);
      part.begin(piece(0).options).end(outcome);
    };
    await round("failed");
    await round("done");
    await round("failed");
    await round("failed");
    expect(hopeless).toEqual([]);
    await round("failed");
    expect(hopeless).toHaveLength(1);
  });

  test("what nobody needs any more is told of for a minute", async () => {
    const { time, watchdog } = setUp();
    const work = watchdog.part(TAIL).begin({ ...piece(0).options, breakOff: () => work.end("failed") });
    await time.pass(59_000);
    expect(watchdog.problems()).toHaveLength(1);
    await time.pass(13_000);
    expect(watchdog.problems()).toEqual([]);
  });

  test("that is stopped breaks nothing off, and has no timer", async () => {
    const { time, watchdog } = setUp();
    const { broken, options } = piece(0);
    watchdog.part(TAIL).begin(options);
    watchdog.stop();
    watchdog.start();
    await time.pass(3_600_000);
    expect(broken).toEqual([]);
    expect(time.pending).toBe(0);
  });
});
