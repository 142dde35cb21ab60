import { expect, test } from "vitest";
import { PageCache } from "../../../src/core/history/page-cache.ts";

test("G9 a sweep that rings a hair too early is not set for the same moment again", () => {
  let nowMs = 1_000;
  let ring: (() => void) | undefined;
  const delays: number[] = [];
  const after = (delayMs: number, wake: () => void) => {
    delays.push(delayMs);
    ring = wake;
    return () => undefined;
  };
  const cache = new PageCache({ maxBytes: 100, maxIdleMs: 500, clock: { monotonic: () => nowMs }, timers: { after } });
  cache.add({ firstVersion: 1, events: [], ticks: [], bytes: 10 });
  nowMs = 1_500 - 1e-9;
  ring?.();
  expect([cache.pages, delays]).toEqual([1, [500, 1]]);
  nowMs += 1;
  ring?.();
  expect(cache.pages).toBe(0);
});
