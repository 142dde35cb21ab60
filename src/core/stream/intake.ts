import type { Cursor } from "../cursor.ts";
import type { Version } from "../event.ts";
import type { Lane } from "../lane/lane.ts";
import type { Log } from "../log/log.ts";
import { type Page, pageEnd, tickEnd, tickHolding } from "../page.ts";
import type { Pace } from "../policy/pace.ts";
import type { Thinned, Verdict } from "../policy/policy.ts";
import { Batch, type Passage, type Progress, scan, trimToBoundary } from "./scan.ts";

/** Events looked at before others get their turn. */
const SCAN_BUDGET = 4_096;

/** What a stream takes from, and what bounds it beside its policy. */
export interface IntakeOptions {
  readonly lane: Lane;
  readonly feed: { readonly epoch: string; readonly log: Log };
  /** `undefined` for no limit. */
  readonly pace: Pace | undefined;
  /** Whether nothing is taken across the end of a tick. */
  readonly byTicks: boolean;
}

/** What there is to take: nothing, not yet, or so much. */
export type Taken = Passage | { readonly waitUntilMs: number } | undefined;

/**
 * What a stream takes next of what follows it. As a rule that is what its lane hands to everybody; only where the stream's
 * own bounds cut it shorter, or leave something out of it, is it put together for this stream alone.
 */
export class Intake {
  readonly #options: IntakeOptions;

  constructor(options: IntakeOptions) {
    this.#options = options;
  }

  /** A page that holds the version after this one: the log's, or this one of history. */
  pageAfter(after: Version, page: Page | undefined): Page | undefined {
    const { log } = this.#options.feed;
    const here = page !== undefined && page.firstVersion <= after + 1 && pageEnd(page) > after;
    return log.read(after) ?? (here ? page : undefined);
  }

  /** @param piece - in whose middle the stream stands; what is taken in there is no boundary */
  take(
    progress: Progress,
    page: Page | undefined,
    { until, kept }: Extract<Verdict, { kind: "deliver" }>,
    piece: Thinned | undefined,
    nowMs: number,
  ): Taken {
    const { lane, feed, pace, byTicks } = this.#options;
    // A page of history may reach beyond the log: the table is ahead of it.
    const known = Math.max(feed.log.head, page === undefined ? 0 : pageEnd(page));
    const ahead = known - progress.scanned;
    const allowance = pace === undefined || ahead <= 0 ? Number.POSITIVE_INFINITY : pace.allowance(nowMs);
    if (allowance === 0) {
      return { waitUntilMs: pace?.readyAtMs() ?? nowMs };
    }
    const stop = byTicks ? Math.min(until, this.#tickEndAfter(progress.scanned, page)) : until;
    // What the lane holds back for more has ended a tick, and that is to be told; and what it remembers of history that is
    // not at hand here may go on over the end of one.
    const held = byTicks && (lane.horizon < feed.log.head || this.pageAfter(progress.scanned, page) === undefined);
    const own = ahead > 0 && (kept !== undefined || stop < known || ahead > allowance || held);
    const taken = own ? this.#own(progress, page, { stop, allowance, kept, piece }) : lane.next(progress, page);
    pace?.spend(taken?.frame?.events.length ?? 0, nowMs);
    return taken;
  }

  #own(progress: Progress, page: Page | undefined, { stop, allowance, kept, piece }: OwnLimits): Passage | undefined {
    const { scan: terms } = this.#options.lane;
    const ahead = progress.clone();
    ahead.boundary = undefined;
    const batch = new Batch(terms.maxBatchBytes, Math.min(terms.maxBatchEvents, allowance));
    const { view } = terms;
    const chosen =
      kept === undefined
        ? terms
        : { ...terms, view: (e: Parameters<typeof view>[0]) => (kept.has(e.version) ? view(e) : undefined) };
    const stopAt = Math.min(stop, progress.scanned + SCAN_BUDGET);
    while (ahead.scanned < stopAt) {
      const at = this.pageAfter(ahead.scanned, page);
      if (at === undefined || scan(at, ahead, batch, chosen, stopAt - ahead.scanned) === "batch_full") {
        break;
      }
    }
    if (piece === undefined) {
      trimToBoundary(ahead, batch);
    }
    return ahead.scanned === progress.scanned ? undefined : this.#passage(ahead, batch, piece, page);
  }

  #passage(ahead: Progress, batch: Batch, piece: Thinned | undefined, page: Page | undefined): Passage {
    const { lane, feed } = this.#options;
    const { scanned, tick, boundary } = ahead;
    if (batch.empty) {
      return { scanned, tick, boundary, frame: undefined };
    }
    const thinned = piece !== undefined && scanned < piece.until ? piece : undefined;
    const position = ahead.position;
    const cursor: Cursor = {
      epoch: feed.epoch,
      version: position.version,
      fingerprint: position.tick?.fingerprint ?? 0,
      snapshot: undefined,
      thinned,
    };
    const frame = lane.frame(batch.events, cursor, thinned === undefined && ahead.clean, page);
    return { scanned, tick, boundary, frame };
  }

  #tickEndAfter(after: Version, page: Page | undefined): Version {
    const tick = tickHolding(this.pageAfter(after, page)?.ticks ?? [], after + 1);
    return tick === undefined ? Number.POSITIVE_INFINITY : tickEnd(tick);
  }
}

interface OwnLimits {
  readonly stop: Version;
  readonly allowance: number;
  readonly kept: ReadonlySet<Version> | undefined;
  readonly piece: Thinned | undefined;
}
