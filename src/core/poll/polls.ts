import { type Cursor, decodeCursor, encodeCursor } from "../cursor.ts";
import { FeedError } from "../errors.ts";
import type { Feed, OpenStream, Start, StreamRequest } from "../feed.ts";
import type { Clock } from "../ports.ts";
import { type Collected, type PageBounds, PageCollector } from "./page-collector.ts";
import type { PollAnswer, PolledPage, PollRequest, PollStats } from "./polled-page.ts";

/** What polls stand on. */
export interface PollsOptions {
  readonly feed: Pick<Feed, "open" | "status">;
  readonly clock: Clock;
}

/** Pages of a feed, for those who cannot hold a stream. */
export interface Polls {
  /**
   * What follows a position: at once when there is something, otherwise the first tick that has, or an empty page when the time
   * is over, the call's deadline near, or the server going down. While it waits it is an idle stream, and asks the database
   * nothing.
   *
   * @throws FeedError as `Feed.open`; CURSOR_INVALID for a snapshot that cannot go on where it was cut; DATABASE_UNAVAILABLE when
   *   history cannot be read
   */
  poll(request: PollRequest, signal: AbortSignal): Promise<PolledPage>;
  stats(): PollStats;
}

/** So long a poll looks through history that does not match before it says how far it has come, however short its timeout. */
const LOOKING_MS = 5_000;
/** A stream says `closing` so long before its deadline, or a tenth of its time when that is less. */
const CLOSING_LEAD_MS = 500;
const CLOSING_SHARE = 0.1;
/** A stream's checkpoints come after their interval, or up to a tenth later. */
const CHECKPOINT_JITTER = 1.1;

/** Polls of this feed. Keeps nothing from one to the next but counts. */
export function createPolls(options: PollsOptions): Polls {
  return new FeedPolls(options);
}

class FeedPolls implements Polls {
  readonly #feed: Pick<Feed, "open" | "status">;
  readonly #clock: Clock;
  #waiting = 0;
  readonly #answered: Record<PollAnswer, number> = { full: 0, partial: 0, empty: 0, failed: 0 };

  constructor({ feed, clock }: PollsOptions) {
    this.#feed = feed;
    this.#clock = clock;
  }

  stats(): PollStats {
    return { waiting: this.#waiting, answered: { ...this.#answered } };
  }

  async poll(request: PollRequest, signal: AbortSignal): Promise<PolledPage> {
    try {
      const page = await this.#poll(request, signal);
      this.#answered[page.full ? "full" : page.events.length > 0 ? "partial" : "empty"] += 1;
      return page;
    } catch (error) {
      this.#answered.failed += 1;
      throw error;
    }
  }

  async #poll(request: PollRequest, signal: AbortSignal): Promise<PolledPage> {
    const nowMs = this.#clock.monotonic();
    const { timeoutMs } = request;
    const untilMs = nowMs + timeoutMs;
    const lookUntilMs = nowMs + Math.max(timeoutMs, LOOKING_MS);
    const look = (start: Start, until: PageBounds["until"]) =>
      this.#collect({ request, start, until, endsAtMs: lookUntilMs, checkpointIntervalMs: 0 }, signal);
    let { start } = request;
    if (timeoutMs === 0 || !this.#standsAtHead(start)) {
      const looked = await look(start, "settled");
      if (looked.events.length > 0 || looked.end !== "idle" || this.#clock.monotonic() >= untilMs) {
        return this.#page(looked);
      }
      start = startAfter(looked.cursor);
    }
    const waited = await this.#wait(request, start, untilMs, signal);
    if (waited.end !== "in_tick") {
      return this.#page(waited);
    }
    return this.#page(await look(start, waited.tick ?? "settled"));
  }

  /** Nothing that is there yet can come next: whoever waits need not look first. */
  #standsAtHead(start: Start): boolean {
    if (start.kind !== "cursor") {
      return start.kind === "now";
    }
    try {
      const { version, snapshot } = decodeCursor(start.cursor);
      return snapshot === undefined && version >= this.#feed.status().head;
    } catch {
      return false;
    }
  }

  /** A checkpoint near the end says how far it has come: the next poll need not look through that again. */
  async #wait(request: PollRequest, start: Start, untilMs: number, signal: AbortSignal): Promise<Collected> {
    const checkpointIntervalMs = Math.max(1, untilMs - this.#clock.monotonic()) / CHECKPOINT_JITTER;
    this.#waiting += 1;
    try {
      return await this.#collect({ request, start, until: "tick", endsAtMs: untilMs, checkpointIntervalMs }, signal);
    } finally {
      this.#waiting -= 1;
    }
  }

  async #collect(
    { request, start, until, endsAtMs, checkpointIntervalMs }: Look,
    signal: AbortSignal,
  ): Promise<Collected> {
    const { selectors, codec, peer, principal, maxEvents, maxBytes: maxBatchBytes } = request;
    const stream: StreamRequest = {
      ...{ start, selectors, codec, peer, principal, maxBatchBytes, checkpointIntervalMs },
      // One more than the page holds: so it is known at once whether its last tick goes on.
      maxBatchEvents: isCutSnapshot(start) ? maxEvents : maxEvents + 1,
      afterTransaction: undefined,
      deadlineMs: this.#deadline(endsAtMs, request.deadlineMs),
    };
    const opened = await this.#feed.open(stream, signal);
    const collected = await collect(opened, this.#bounds(request, until), signal);
    if (collected.cursor.version === opened.opened.cursor.version) {
      this.#assertLooked(collected);
    }
    return collected;
  }

  #bounds({ maxEvents, maxBytes, codec }: PollRequest, until: PageBounds["until"]): PageBounds {
    const { measure } = codec;
    return { maxEvents, maxBytes, measure, until, head: () => this.#feed.status().head };
  }

  /** Of a stream that is to say `closing` at this moment, or a moment before the call's own deadline. */
  #deadline(endsAtMs: number, callDeadlineMs: number | undefined): number {
    const leftMs = Math.max(1, endsAtMs - this.#clock.monotonic());
    const deadlineMs = endsAtMs + Math.min(CLOSING_LEAD_MS, (leftMs / (1 - CLOSING_SHARE)) * CLOSING_SHARE);
    return Math.min(deadlineMs, callDeadlineMs ?? deadlineMs);
  }

  /** That history could not be read is no empty page. */
  #assertLooked({ end, events, cursor }: Collected): void {
    const { state, head, failure } = this.#feed.status();
    if (end === "closed" && events.length === 0 && state === "STALE" && cursor.version < head) {
      throw new FeedError(
        "DATABASE_UNAVAILABLE",
        `History could not be read: ${failure?.message ?? "the database does not answer."}`,
        "Try again with the same cursor.",
        { retryAfterMs: 1_000 },
      );
    }
  }

  #page({ end, events, cursor, complete, settled }: Collected): PolledPage {
    const full = end === "cut" && settled;
    // What was waited for is as of its tick: whoever waited with the same cursor is told the same, when it is his turn.
    const head = end === "tick" ? cursor.version : this.#feed.status().head;
    const hasMore = full || cursor.snapshot !== undefined || cursor.version < head;
    return { events, cursor, hasMore, complete, full, head: full ? undefined : head, lease: undefined };
  }
}

interface Look {
  readonly request: PollRequest;
  readonly start: Start;
  readonly until: PageBounds["until"];
  /** When it says how far it has come, monotonic milliseconds. */
  readonly endsAtMs: number;
  /** 0 for a word whenever there is nothing more. */
  readonly checkpointIntervalMs: number;
}

/** The page of one stream, which it ends. */
async function collect(stream: OpenStream, bounds: PageBounds, signal: AbortSignal): Promise<Collected> {
  const { opened } = stream;
  const collector = new PageCollector(opened.cursor, bounds);
  const control = stream.attach(collector);
  collector.drivenBy(control);
  const onAbort = () => control.cancel(signal.reason);
  if (signal.aborted) {
    onAbort();
  }
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    return await collector.done;
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

function startAfter(cursor: Cursor): Start {
  return { kind: "cursor", cursor: encodeCursor(cursor) };
}

function isCutSnapshot(start: Start): boolean {
  if (start.kind !== "cursor") {
    return false;
  }
  try {
    return decodeCursor(start.cursor).snapshot !== undefined;
  } catch {
    return false;
  }
}
