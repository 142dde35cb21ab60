import { FeedError } from "../errors.ts";
import type { Version } from "../event.ts";
import { EpochOver } from "../lineage.ts";
import { eventBytes, type Page, pageEnd, type Tick } from "../page.ts";
import type { Bounds, Clock, FeedStore, Timers } from "../ports.ts";
import { Log } from "./log.ts";

/** Events of the first step back, when nobody knows how large they are; each further step is at most this much longer. */
const FIRST_EVENTS = 16;
const GROWTH = 8;
/** What a step back adds up to: what is lost of it when the time is over, and what it costs to find its place. */
const STEP_BYTES = 32 * 1024 * 1024;

/** Where a warm log comes from, and what it may cost. */
export interface WarmingOptions {
  readonly store: Pick<FeedStore, "readAfter" | "tickOf">;
  /** What the store held a moment ago: the log reaches to `head` at least. */
  readonly bounds: Bounds;
  readonly logMaxBytes: number;
  /** Bytes to begin with, by `eventBytes`; 0 for an empty log. */
  readonly warmBytes: number;
  /** Milliseconds after which the log begins with what has been read. */
  readonly warmMs: number;
  readonly clock: Pick<Clock, "monotonic">;
  readonly timers: Pick<Timers, "after">;
  readonly report: (message: string, error?: unknown) => void;
  readonly signal: AbortSignal;
}

/**
 * A log that already holds the newest versions: streams that come back after a restart find in memory what they missed,
 * and thousands of them cost the table nothing.
 *
 * The newest matter most, and a log has no holes. So it is read backwards, in steps, each of them forwards; what was
 * settled meanwhile comes last. A step that is not finished in time counts for nothing. Too little is no failure, for
 * streams then read the table; nothing but the end of the epoch or of `signal` makes the start fail.
 */
export async function warmLog(options: WarmingOptions): Promise<Log> {
  const { clock, timers, warmMs, report } = options;
  const beganMs = clock.monotonic();
  const limit = new AbortController();
  const cancel = timers.after(warmMs, () => limit.abort(outOfTime()));
  const signal = AbortSignal.any([options.signal, limit.signal]);
  let newest = new NewestPages(options.bounds.head);
  let log: Log | undefined;
  try {
    await newest.readBack({ ...options, signal });
    await newest.readOn({ ...options, signal });
  } catch (error) {
    tell(error, options, limit.signal);
  } finally {
    cancel();
  }
  try {
    log = await newest.log(options);
  } catch (error) {
    tell(error, options, limit.signal);
    newest = new NewestPages(options.bounds.head);
  }
  log ??= await newest.log(options);
  if (log.events > 0) {
    const [mebibytes, ms] = [log.bytes / 1_048_576, clock.monotonic() - beganMs].map(Math.round);
    report(`The log begins with the newest ${log.events} events, ${mebibytes} MiB, read in ${ms} ms.`);
  }
  return log;
}

/** @throws what the start cannot go on after. */
function tell(error: unknown, { signal, report }: WarmingOptions, limit: AbortSignal): void {
  signal.throwIfAborted();
  if (error instanceof EpochOver) {
    throw error;
  }
  if (error !== limit.reason) {
    report("The log begins with less than it might hold.", error);
  }
}

type Reading = Pick<WarmingOptions, "store" | "bounds" | "warmBytes" | "signal">;

/** A run of pages without holes, which grows at both ends. */
class NewestPages {
  /** The run begins after this version. */
  #after: Version;
  #head: Version;
  #pages: Page[] = [];
  #bytes = 0;

  constructor(head: Version) {
    this.#after = head;
    this.#head = head;
  }

  /** Until it holds `warmBytes`, or all that there is. */
  async readBack({ store, bounds, warmBytes, signal }: Reading): Promise<void> {
    for (let events = FIRST_EVENTS; this.#after >= bounds.oldest && this.#bytes < warmBytes; ) {
      const from = Math.max(bounds.oldest - 1, this.#after - events);
      const left = warmBytes - this.#bytes;
      const pages = await readRange(store, { after: from, last: this.#after, maxBytes: left }, signal);
      this.#pages.unshift(...pages);
      this.#after = (pages[0]?.firstVersion ?? this.#after + 1) - 1;
      this.#bytes += bytesOf(pages);
      if (this.#after > from) {
        return;
      }
      const eventSize = this.#bytes / (this.#head - this.#after);
      const fitting = Math.floor(Math.min(STEP_BYTES, warmBytes - this.#bytes) / eventSize);
      events = Math.min(events * GROWTH, fitting);
      if (events < 1) {
        return;
      }
    }
  }

  /** What has been settled since. */
  async readOn({ store, signal }: Reading): Promise<void> {
    while (this.#pages.length > 0) {
      const page = await store.readAfter(this.#head, signal);
      if (page === undefined) {
        return;
      }
      this.#pages.push(page);
      this.#head = pageEnd(page);
    }
  }

  async log({ store, logMaxBytes: maxBytes, signal }: WarmingOptions): Promise<Log> {
    const after = this.#after;
    const first: Tick | undefined = this.#pages[0]?.ticks[0];
    const tick = first !== undefined && first.firstVersion <= after ? first : await store.tickOf(after, signal);
    const log = new Log({ maxBytes, head: after, tick });
    for (const page of this.#pages) {
      log.append(page);
    }
    return log;
  }
}

interface Range {
  readonly after: Version;
  readonly last: Version;
  readonly maxBytes: number;
}

/** The versions from `after + 1` to `last` and no others; only the newest pages when they are more than `maxBytes`. */
async function readRange(
  store: Reading["store"],
  { after, last, maxBytes }: Range,
  signal: AbortSignal,
): Promise<readonly Page[]> {
  const pages: Page[] = [];
  let bytes = 0;
  for (let at = after; at < last; ) {
    const page = await store.readAfter(at, signal);
    if (page === undefined) {
      throw new FeedError(
        "INTERNAL",
        `The table ends with version ${at}, although ${last} was settled.`,
        "Report this as a fault of Millrace.",
      );
    }
    at = pageEnd(page);
    pages.push(upTo(page, last));
    bytes += pages.at(-1)?.bytes ?? 0;
    while (bytes > maxBytes) {
      bytes -= pages.shift()?.bytes ?? 0;
    }
  }
  return pages;
}

function upTo(page: Page, last: Version): Page {
  if (pageEnd(page) <= last) {
    return page;
  }
  const events = page.events.slice(0, last + 1 - page.firstVersion);
  const ticks = page.ticks.filter(({ firstVersion }) => firstVersion <= last);
  return { ...page, events, ticks, bytes: events.reduce((sum, event) => sum + eventBytes(event), 0) };
}

function bytesOf(pages: readonly Page[]): number {
  return pages.reduce((sum, { bytes }) => sum + bytes, 0);
}

function outOfTime(): FeedError {
  return new FeedError("INTERNAL", "The time for filling the log is over.", "Nothing is to be done.");
}
