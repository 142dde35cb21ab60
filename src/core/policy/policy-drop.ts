import type { Version } from "../event.ts";
import type { Log } from "../log/log.ts";
import { type Tick, tickEnd } from "../page.ts";
import type { Matcher } from "../selector/selector.ts";
import type { Position, Progress } from "../stream/scan.ts";
import { type Course, endOf, FREE, type GapReason, type Verdict } from "./policy.ts";

/** Events that are looked at to say how many of them are left out. With more, or none in memory, it stays unsaid. */
const COUNT_BUDGET = 4_096;

/** What DROP_OLDEST and DROP_NEWEST go by. */
export interface DropOptions {
  readonly feed: { readonly log: Log };
  readonly matcher: Matcher;
  readonly maxLagEvents: number;
}

/**
 * Jumps forward in the log: to where half of the lag that it may have is left, so that it does not jump again at the next
 * event, and from there to the end of a tick. The newest tick is not jumped over, however large it is: a stream whose ticks
 * are all larger than its lag would never deliver anything.
 */
export class DropOldest implements Course {
  readonly piece = undefined;
  readonly #options: DropOptions;
  /** Up to here there is nothing that a jump would leave out. */
  #clearTo: Version = 0;

  constructor(options: DropOptions) {
    this.#options = options;
  }

  next({ scanned }: Progress): Verdict {
    const { maxLagEvents } = this.#options;
    const { log } = this.#options.feed;
    if (scanned < this.#clearTo || log.head - scanned <= maxLagEvents) {
      return FREE;
    }
    const to = landing(log, log.head - Math.floor(maxLagEvents / 2));
    if (to === undefined || to.version <= scanned) {
      return FREE;
    }
    const verdict = jump(scanned, to, "DROP_OLDEST", this.#options);
    this.#clearTo = verdict === undefined ? to.version : 0;
    return verdict ?? FREE;
  }
}

/**
 * Works like a queue of bounded length that refuses what comes while it is full. What it holds is fixed when the stream,
 * about to take more, finds itself too far behind; what it refused ends there, because from then on there is room again.
 */
export class DropNewest implements Course {
  readonly piece = undefined;
  readonly #options: DropOptions;
  #full: { readonly until: Version; readonly to: Position } | undefined;
  #clearTo: Version = 0;

  constructor(options: DropOptions) {
    this.#options = options;
  }

  next({ scanned }: Progress): Verdict {
    const { maxLagEvents } = this.#options;
    const { log } = this.#options.feed;
    if (this.#full === undefined && scanned >= this.#clearTo && log.head - scanned > maxLagEvents) {
      const until = wholeTicks(log, scanned, scanned + maxLagEvents);
      const to = lastBoundary(log);
      this.#full = to === undefined || to.version <= until ? undefined : { until, to };
    }
    const full = this.#full;
    if (full === undefined) {
      return FREE;
    }
    if (scanned < full.until) {
      return { kind: "deliver", until: full.until, kept: undefined };
    }
    this.#full = undefined;
    const verdict = scanned < full.to.version ? jump(scanned, full.to, "DROP_NEWEST", this.#options) : undefined;
    this.#clearTo = verdict === undefined ? full.to.version : 0;
    return verdict ?? FREE;
  }
}

/** `undefined` when nothing would be left out. */
function jump(after: Version, to: Position, reason: GapReason, options: DropOptions): Verdict | undefined {
  const dropped = countMatching(after, to.version, options);
  return dropped === 0 ? undefined : { kind: "jump", to, leftOut: { lastVersion: to.version, dropped, reason } };
}

/** The first end of a tick at or after this version, but none after the beginning of the newest tick. */
function landing(log: Log, version: Version): Position | undefined {
  const newest = log.tickOf(log.head);
  const tick = log.tickOf(Math.max(version, log.oldest - 1));
  if (newest === undefined || tick === undefined) {
    return undefined;
  }
  return tickEnd(tick) < newest.firstVersion ? endOf(tick) : before(newest, log);
}

/** The last end of a tick that the log has come to. */
function lastBoundary(log: Log): Position | undefined {
  const newest = log.tickOf(log.head);
  if (newest === undefined) {
    return undefined;
  }
  return tickEnd(newest) === log.head ? endOf(newest) : before(newest, log);
}

function before(tick: Tick, log: Log): Position | undefined {
  const previous = log.tickOf(tick.firstVersion - 1);
  return previous === undefined ? undefined : endOf(previous);
}

/** Up to this version, or less, so that no transaction is cut if it is known where they end. */
function wholeTicks(log: Log, after: Version, until: Version): Version {
  const tick = log.tickOf(until);
  const cut = tick !== undefined && tickEnd(tick) > until && tick.firstVersion - 1 > after;
  return cut ? tick.firstVersion - 1 : until;
}

function countMatching(after: Version, last: Version, { feed, matcher }: DropOptions): number | undefined {
  if (matcher.selection === "") {
    return last - after;
  }
  const { log } = feed;
  if (last - after > COUNT_BUDGET || after + 1 < log.oldest) {
    return undefined;
  }
  let count = 0;
  for (let at = after; at < last; ) {
    const page = log.read(at);
    if (page === undefined) {
      return undefined;
    }
    const events = page.events.slice(at + 1 - page.firstVersion, last + 1 - page.firstVersion);
    for (const event of events) {
      count += matcher.matches(event) ? 1 : 0;
    }
    at += events.length;
  }
  return count;
}
