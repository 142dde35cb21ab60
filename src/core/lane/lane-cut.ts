import type { Event, Version } from "../event.ts";
import type { Log } from "../log/log.ts";
import { type Tick, tickEnd } from "../page.ts";
import type { Position, ScanOptions } from "../stream/scan.ts";
import type { LaneTrail } from "./lane-trail.ts";

/** What one frame takes of a trail. */
export interface Cut {
  readonly scanned: Version;
  readonly tick: Tick | undefined;
  readonly boundary: Position | undefined;
  readonly events: readonly Event[];
  readonly bytes: number;
}

/** As much as a frame takes after `scanned`, up to the horizon: what `scan` and `trimToBoundary` make of the log. */
export function cutTrail(trail: LaneTrail, scanned: Version, horizon: Version, limits: ScanOptions, log: Log): Cut {
  const start = trail.indexAfter(scanned);
  let end = start;
  let bytes = 0;
  for (; trail.versionAt(end) <= horizon; end++) {
    const size = trail.sizeAt(end);
    if (end > start && (bytes + size > limits.maxBatchBytes || end - start >= limits.maxBatchEvents)) {
      break;
    }
    bytes += size;
  }
  const to = Math.min(horizon, trail.versionAt(end) - 1);
  const tick = log.tickOf(to);
  const boundary = boundaryBetween(scanned, to, tick, log);
  if (boundary === undefined || end === start || boundary.version < trail.versionAt(start)) {
    return { scanned: to, tick, boundary, events: trail.slice(start, end), bytes };
  }
  if (boundary.version >= trail.versionAt(end - 1)) {
    return { scanned: to, tick, boundary, events: trail.slice(start, end), bytes };
  }
  while (trail.versionAt(end - 1) > boundary.version) {
    end -= 1;
    bytes -= trail.sizeAt(end);
  }
  return { scanned: boundary.version, tick: boundary.tick, boundary, events: trail.slice(start, end), bytes };
}

/** The last end of a tick after the first of these versions and not after the second, which the tick holds. */
export function boundaryBetween(after: Version, to: Version, tick: Tick | undefined, log: Log): Position | undefined {
  if (tick === undefined) {
    return undefined;
  }
  const ends = tickEnd(tick) === to;
  const version = ends ? to : tick.firstVersion - 1;
  const holding = ends ? tick : log.tickOf(version);
  return version > after && holding !== undefined ? { version, tick: holding } : undefined;
}
