import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { FeedError } from "../../../src/core/errors.ts";
import { Log } from "../../../src/core/log/log.ts";
import type { Page } from "../../../src/core/page.ts";
import { tickEnd } from "../../../src/core/page.ts";
import { emptyHistory, pageOf, settleTick } from "./history-maker.ts";

const TICK_ZERO = { tick: 0, firstVersion: 1, count: 0, timeMicros: 0, fingerprint: 99 };

describe("log", () => {
  test("G3 G9 holds the newest versions, whatever the pages, within its bytes and one page", () => {
    const ticks = fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 40 });
    fc.assert(
      fc.property(
        ticks,
        fc.integer({ min: 1, max: 12 }),
        fc.integer({ min: 1, max: 20_000 }),
        (sizes, page, maxBytes) => {
          const history = emptyHistory();
          for (const size of sizes) {
            settleTick(
              history,
              Array.from({ length: size }, () => "t"),
            );
          }
          const log = new Log({ maxBytes, head: 0, tick: TICK_ZERO });
          let largest = 0;
          for (let next = pageOf(history, 0, page); next !== undefined; next = pageOf(history, log.head, page)) {
            log.append(next);
            largest = Math.max(largest, next.bytes);
            expect(log.bytes).toBeLessThanOrEqual(Math.max(maxBytes, largest));
          }
          const head = history.events.length;
          expect(log.head).toBe(head);
          expect(log.events).toBe(head - log.oldest + 1);
          for (let version = 1; version <= head; version++) {
            const found = log.read(version - 1);
            const held = version >= log.oldest;
            expect(found?.events[version - found.firstVersion]).toBe(held ? history.events[version - 1] : undefined);
            const tick = history.ticks.find((t) => t.firstVersion <= version && version <= tickEnd(t));
            expect(log.tickOf(version)).toEqual(version >= log.oldest - 1 ? tick : undefined);
          }
          expect(log.read(head)).toBeUndefined();
          expect(log.tickOf(head + 1)).toBeUndefined();
        },
      ),
    );
  });

  test("begins empty after a version, whose tick it knows", () => {
    const log = new Log({ maxBytes: 1_000, head: 41, tick: { ...TICK_ZERO, firstVersion: 40, count: 2 } });
    expect([log.head, log.oldest, log.events, log.bytes]).toEqual([41, 42, 0, 0]);
    expect(log.tickOf(41)?.fingerprint).toBe(99);
    expect(log.tickOf(40)).toBeUndefined();
    expect(log.read(41)).toBeUndefined();
  });

  test.each<[string, (page: Page) => Page]>([
    ["a hole before it", (page) => ({ ...page, firstVersion: page.firstVersion + 1 })],
    ["a page that comes twice", (page) => ({ ...page, firstVersion: page.firstVersion - 2 })],
    ["a hole in it", (page) => ({ ...page, events: page.events.filter((_, i) => i !== 1) })],
    ["two events swapped", (page) => ({ ...page, events: page.events.toReversed() })],
    ["no events", (page) => ({ ...page, events: [] })],
    ["no ticks", (page) => ({ ...page, ticks: [] })],
    ["a tick missing", (page) => ({ ...page, ticks: page.ticks.slice(1) })],
    ["a tick missing at its end", (page) => ({ ...page, ticks: page.ticks.slice(0, 1) })],
    ["a tick missing in its middle", (page) => ({ ...page, ticks: page.ticks.filter((_, i) => i !== 1) })],
  ])("G3 refuses %s and stays as it was", (_name, spoil) => {
    const history = emptyHistory();
    for (const size of [2, 1, 1, 1]) {
      settleTick(
        history,
        Array.from({ length: size }, () => "t"),
      );
    }
    const log = new Log({ maxBytes: 10_000, head: 0, tick: TICK_ZERO });
    log.append(pageOf(history, 0, 2) ?? expect.unreachable());
    const good = pageOf(history, 2, 3) ?? expect.unreachable();
    expect(() => log.append(spoil(good))).toThrow(FeedError);
    expect(log.head).toBe(2);
    log.append(good);
    expect(log.head).toBe(5);
  });

  test("G9 wakes each waiter once per append, and nobody who has given up", () => {
    const history = emptyHistory();
    settleTick(history, ["t"]);
    settleTick(history, ["t"]);
    const log = new Log({ maxBytes: 10_000, head: 0, tick: TICK_ZERO });
    const woken: string[] = [];
    const [stays, leaves] = ["stays", "leaves"].map((name) => ({ wake: () => woken.push(name) }));
    log.changed.add(stays ?? expect.unreachable());
    log.changed.add(leaves ?? expect.unreachable());
    log.changed.delete(leaves ?? expect.unreachable());
    log.append(pageOf(history, 0, 1) ?? expect.unreachable());
    log.append(pageOf(history, 1, 1) ?? expect.unreachable());
    expect(woken).toEqual(["stays"]);
    expect(log.changed.size).toBe(0);
  });
});
