import type { Version } from "../event.ts";
import { tickEnd } from "../page.ts";
import { nextWake } from "../wake-set.ts";
import type { Log } from "./log.ts";

/**
 * The version of a transaction's last event, found in the log after version `after` as soon as the tick that settles it is
 * there. `undefined` when the log has moved past it.
 */
export async function lastVersionOf(
  xid: string,
  after: Version,
  log: Log,
  signal: AbortSignal,
): Promise<Version | undefined> {
  let seen = after;
  let found: Version | undefined;
  let settledBy = Number.POSITIVE_INFINITY;
  while (seen < settledBy) {
    if (seen + 1 < log.oldest) {
      return undefined;
    }
    const page = log.read(seen);
    if (page === undefined) {
      await nextWake(log.changed, signal);
      continue;
    }
    for (let at = seen + 1 - page.firstVersion; at < page.events.length && seen < settledBy; at++) {
      seen = page.firstVersion + at;
      if (page.events[at]?.transaction === xid) {
        found = seen;
        settledBy = endOfTick(seen, log);
      }
    }
  }
  return found;
}

/** The same among what the log holds now, without waiting. */
export function lastVersionHeld(xid: string, log: Log): Version | undefined {
  for (let seen = log.oldest - 1, found: Version | undefined; ; ) {
    const page = log.read(seen);
    if (page === undefined) {
      return found;
    }
    for (const event of page.events) {
      found = event.transaction === xid ? event.version : found;
    }
    seen = page.firstVersion + page.events.length - 1;
  }
}

/** All events of a transaction are in one tick: beyond its end there is nothing to look for. */
function endOfTick(version: Version, log: Log): Version {
  const tick = log.tickOf(version);
  return tick === undefined ? version : tickEnd(tick);
}
