import type { Event, Version } from "./event.ts";

/** One settled batch: the events that became visible between two database snapshots. A consistent moment. */
export interface Tick {
  /** Rises by one from 0, which is the empty tick of the migration. */
  readonly tick: number;
  /** Version of its first event. */
  readonly firstVersion: Version;
  /** Events in it. 0 for the ticks of snapshots. */
  readonly count: number;
  /** When it settled, in microseconds since the Unix epoch by the database's clock; never before an earlier tick. */
  readonly timeMicros: number;
  /** 32-bit digest of the tick's row. A cursor remembers it, so that a history that was rolled back is noticed. */
  readonly fingerprint: number;
}

/** The last version that a tick settles. An empty tick settles nothing new and ends where its predecessor did. */
export function tickEnd(tick: Tick): Version {
  return tick.firstVersion + tick.count - 1;
}

/** Index of the first of these ticks, which are in order, that ends at or after the version; their number when none does. */
export function tickIndexFrom(ticks: readonly Tick[], version: Version): number {
  let low = 0;
  let high = ticks.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    const tick = ticks[middle];
    if (tick !== undefined && tickEnd(tick) < version) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

/** The tick among these, which are in order, that holds the version. */
export function tickHolding(ticks: readonly Tick[], version: Version): Tick | undefined {
  const found = ticks[tickIndexFrom(ticks, version)];
  return found !== undefined && found.firstVersion <= version ? found : undefined;
}

/** What knows the ticks of some versions. */
interface TickFinder {
  tickOf(version: Version): Tick | undefined;
}

/** The ticks that hold these events, which are in order; without those that neither the log nor the page has. */
export function ticksHolding(events: readonly Event[], log: TickFinder, page: Page | undefined): readonly Tick[] {
  const found: Tick[] = [];
  let until = -1;
  for (const { version } of events) {
    if (version > until) {
      const tick = log.tickOf(version) ?? tickHolding(page?.ticks ?? [], version);
      until = tick === undefined ? version : tickEnd(tick);
      if (tick !== undefined) {
        found.push(tick);
      }
    }
  }
  return found;
}

/**
 * A run of consecutive versions, read at once: from memory or from the table, a stream cannot tell.
 *
 * `events[i].version === firstVersion + i`. `ticks` are the non-empty ticks that the run touches, in order: the first may
 * have begun before the run and the last may end after it.
 */
export interface Page {
  readonly firstVersion: Version;
  readonly events: readonly Event[];
  readonly ticks: readonly Tick[];
  /** Sum of `eventBytes`, for budgets. */
  readonly bytes: number;
}

/** The last version of a page. */
export function pageEnd(page: Page): Version {
  return page.firstVersion + page.events.length - 1;
}

/** What an event costs in memory, about: its images and texts, and 200 bytes for the object. */
export function eventBytes(event: Event): number {
  return (
    200 +
    event.topic.length +
    (event.key?.length ?? 0) +
    (event.before?.length ?? 0) +
    (event.after?.length ?? 0) +
    (event.headers?.length ?? 0)
  );
}
