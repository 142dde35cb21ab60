import { type Cursor, decodeCursor, encodeCursor } from "../cursor.ts";
import { FeedError } from "../errors.ts";
import type { Version } from "../event.ts";
import type { Feed, Start } from "../feed.ts";
import type { Clock } from "../ports.ts";
import { subscriptionNotFound } from "../subscription/store-failures.ts";
import type { Subscriptions } from "../subscription/subscriptions.ts";
import { type Collected, collect, type PageBounds } from "./page-collector.ts";
import { PollTime, type StreamTime } from "./poll-time.ts";
import type { PollAnswer, PolledPage, PollRequest, PollStats } from "./polled-page.ts";
import { pollSubscription, type SubscriptionPollRequest } from "./subscription-poll.ts";

/** What polls stand on. */
export interface PollsOptions {
  readonly feed: Pick<Feed, "open" | "status">;
  readonly clock: Clock;
  /** Default: there are none. */
  readonly subscriptions?: Subscriptions | undefined;
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
  /**
   * The same of a subscription, which the caller then holds: first acknowledges what was polled before.
   *
   * @throws FeedError SUBSCRIPTION_NOT_FOUND, _PAUSED, _BUSY, _FENCED, and as `poll`
   */
  pollSubscription(request: SubscriptionPollRequest, signal: AbortSignal): Promise<PolledPage>;
  stats(): PollStats;
}

/** Polls of this feed. Keeps nothing from one to the next but counts. */
export function createPolls(options: PollsOptions): Polls {
  return new FeedPolls(options);
}

class FeedPolls implements Polls {
  readonly #options: PollsOptions;
  #waiting = 0;
  readonly #answered: Record<PollAnswer, number> = { full: 0, partial: 0, empty: 0, failed: 0 };

  constructor(options: PollsOptions) {
    this.#options = options;
  }

  stats(): PollStats {
    return { waiting: this.#waiting, answered: { ...this.#answered } };
  }

  poll(request: PollRequest, signal: AbortSignal): Promise<PolledPage> {
    return this.#counted(this.#poll(request, signal));
  }

  pollSubscription(request: SubscriptionPollRequest, signal: AbortSignal): Promise<PolledPage> {
    const { subscriptions, clock } = this.#options;
    if (subscriptions === undefined) {
      return this.#counted(Promise.reject(subscriptionNotFound(request.id)));
    }
    const head = () => this.#head;
    const whileWaiting = <T>(wait: () => Promise<T>) => this.#whileWaiting(wait);
    return this.#counted(pollSubscription(request, { subscriptions, clock, head, whileWaiting }, signal));
  }

  async #counted(answer: Promise<PolledPage>): Promise<PolledPage> {
    try {
      const page = await answer;
      this.#answered[page.full ? "full" : page.events.length > 0 ? "partial" : "empty"] += 1;
      return page;
    } catch (error) {
      this.#answered.failed += 1;
      throw error;
    }
  }

  async #whileWaiting<T>(wait: () => Promise<T>): Promise<T> {
    this.#waiting += 1;
    try {
      return await wait();
    } finally {
      this.#waiting -= 1;
    }
  }

  get #head(): Version {
    return this.#options.feed.status().head;
  }

  async #poll(request: PollRequest, signal: AbortSignal): Promise<PolledPage> {
    const time = new PollTime(request, this.#options.clock);
    const look = (start: Start, until: PageBounds["until"]) =>
      this.#collect({ request, start, until, ...time.looking() }, signal);
    let { start } = request;
    if (time.isOver || !this.#standsAtHead(start)) {
      const looked = await look(start, "settled");
      if (looked.events.length > 0 || looked.end !== "idle" || time.isOver) {
        return this.#page(looked);
      }
      start = startAfter(looked.cursor);
    }
    const waited = await this.#whileWaiting(() =>
      this.#collect({ request, start, until: "tick", ...time.waiting() }, signal),
    );
    return this.#page(waited.end === "in_tick" ? await look(start, waited.tick ?? "settled") : waited);
  }

  /** Nothing that is there yet can come next: whoever waits need not look first. */
  #standsAtHead(start: Start): boolean {
    const cursor = cursorIn(start);
    return cursor === undefined ? start.kind === "now" : cursor.snapshot === undefined && cursor.version >= this.#head;
  }

  async #collect({ request, start, until, ...time }: Look, signal: AbortSignal): Promise<Collected> {
    const { selectors, codec, peer, principal, maxEvents, maxBytes } = request;
    // One more than the page holds: so it is known at once whether its last tick goes on.
    const maxBatchEvents = cursorIn(start)?.snapshot === undefined ? maxEvents + 1 : maxEvents;
    const stream = await this.#options.feed.open(
      { start, selectors, codec, peer, principal, ...time, maxBatchEvents, maxBatchBytes: maxBytes, ...NO_BARRIER },
      signal,
    );
    const { measure } = codec;
    const collected = await collect(stream, { maxEvents, maxBytes, measure, until, head: () => this.#head }, signal);
    if (collected.cursor.version === stream.opened.cursor.version) {
      this.#assertLooked(collected);
    }
    return collected;
  }

  /** That history could not be read is no empty page. */
  #assertLooked({ end, events, cursor }: Collected): void {
    const { state, head, failure } = this.#options.feed.status();
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
    const head = end === "tick" ? cursor.version : this.#head;
    const hasMore = full || cursor.snapshot !== undefined || cursor.version < head;
    return { events, cursor, hasMore, complete, full, head: full ? undefined : head, lease: undefined, active: false };
  }
}

const NO_BARRIER = { afterTransaction: undefined } as const;

interface Look extends StreamTime {
  readonly request: PollRequest;
  readonly start: Start;
  readonly until: PageBounds["until"];
}

function startAfter(cursor: Cursor): Start {
  return { kind: "cursor", cursor: encodeCursor(cursor) };
}

/** `undefined` also for one that cannot be read: who opens a stream with it is told why. */
function cursorIn(start: Start): Cursor | undefined {
  if (start.kind !== "cursor") {
    return undefined;
  }
  try {
    return decodeCursor(start.cursor);
  } catch {
    return undefined;
  }
}
