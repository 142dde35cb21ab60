import type { Event, Operation } from "../../../src/core/event.ts";
import { eventBytes, type Page, type Tick, tickEnd } from "../../../src/core/page.ts";

/** What the event at each version of a made-up history is, and how it is cut into ticks. */
export interface MadeHistory {
  readonly events: Event[];
  readonly ticks: Tick[];
}

/** An event before it has its place. */
export interface MadeEvent {
  readonly topic: string;
  readonly key: string | undefined;
  readonly operation: Operation;
}

export function emptyHistory(): MadeHistory {
  return { events: [], ticks: [] };
}

/** Adds one tick of these events, of which a topic alone means a message; every event of a tick is of one transaction. */
export function settleTick(history: MadeHistory, topics: readonly (string | MadeEvent)[]): Tick {
  const number = history.ticks.length + 1;
  const firstVersion = history.events.length + 1;
  const tick = {
    tick: number,
    firstVersion,
    count: topics.length,
    timeMicros: number * 1_000,
    fingerprint: number * 7,
  };
  topics.forEach((made, i) => {
    history.events.push({
      version: firstVersion + i,
      ...(typeof made === "string" ? { topic: made, key: undefined, operation: "MESSAGE" } : made),
      before: undefined,
      after: undefined,
      transaction: String(number),
      occurredAtMicros: 0,
      headers: undefined,
    });
  });
  history.ticks.push(tick);
  return tick;
}

export function pageOf(history: MadeHistory, after: number, maxEvents: number): Page | undefined {
  const events = history.events.slice(after, after + maxEvents);
  if (events.length === 0) {
    return undefined;
  }
  const last = after + events.length;
  const ticks = history.ticks.filter((tick) => tickEnd(tick) > after && tick.firstVersion <= last);
  return { firstVersion: after + 1, events, ticks, bytes: events.reduce((sum, e) => sum + eventBytes(e), 0) };
}
