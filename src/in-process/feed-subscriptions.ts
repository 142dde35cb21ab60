import { systemClock, systemTimers } from "../core/clock.ts";
import { type Cursor, encodeCursor } from "../core/cursor.ts";
import type { Version } from "../core/event.ts";
import type { Feed, OpenStream } from "../core/feed.ts";
import type { Frame } from "../core/frame.ts";
import { SubscribedStream } from "../core/stream/subscribed-stream.ts";
import type { SubscriptionFilter, SubscriptionRecord } from "../core/subscription/subscription-store.ts";
import type { Subscriptions } from "../core/subscription/subscriptions.ts";
import { definitionFromParts, termsInProcess } from "../server/subscription-definitions.ts";
import { type Following, followStream } from "./following.ts";
import { CHECKPOINT_INTERVAL_MS, codec, type FollowOptions, type From, startOf, streamRequestOf } from "./request.ts";

/** What a subscription is to be: the same as `CreateSubscriptionRequest`. */
export interface SubscriptionOptions extends Omit<FollowOptions, "afterTransaction"> {
  /** Whose it is, for lists. Default: nobody's. */
  readonly owner?: string | undefined;
  /** For lists. Default: none. */
  readonly labels?: Readonly<Record<string, string>> | undefined;
  /** Milliseconds after which it is deleted when nobody has used it. Default: never. */
  readonly expireAfterMs?: number | undefined;
}

const never = new AbortController().signal;
const LIST_LIMIT = 1_000;

/**
 * Durable subscriptions without a wire: those that the server's clients create and consume, for programs in this process. See
 * `docs/subscriptions.md`.
 */
export class FeedSubscriptions {
  readonly #feed: Pick<Feed, "check">;
  readonly #subscriptions: Subscriptions;

  /** Of that feed. */
  constructor(feed: Pick<Feed, "check">, subscriptions: Subscriptions) {
    this.#feed = feed;
    this.#subscriptions = subscriptions;
  }

  /**
   * Creates it; with the same options again it answers with what is there.
   *
   * @throws FeedError SUBSCRIPTION_EXISTS when it is another one, INVALID_REQUEST, FILTER_INVALID, HISTORY_LOST
   */
  async create(
    name: string,
    options: SubscriptionOptions = {},
    signal: AbortSignal = never,
  ): Promise<{ readonly record: SubscriptionRecord; readonly existed: boolean }> {
    const { owner = "", labels = {}, expireAfterMs, ...follow } = options;
    const { start, selectors } = streamRequestOf(follow);
    this.#feed.check(selectors);
    const topics = selectors.some((selector) => selector.topics.length === 0) ? [] : selectors.flatMap((s) => s.topics);
    const definition = definitionFromParts({ ...follow, selectors });
    const subscription = { id: name, definition, isGroup: false, topics, owner, labels, expireAfterMs };
    return await this.#subscriptions.create(subscription, start, signal);
  }

  /** @throws FeedError SUBSCRIPTION_NOT_FOUND */
  get(name: string, signal: AbortSignal = never): Promise<SubscriptionRecord> {
    return this.#subscriptions.get(name, signal);
  }

  /** In the order of their names, after `after`; a thousand at most. */
  async list(
    filter: SubscriptionFilter & { readonly after?: string | undefined } = {},
    signal: AbortSignal = never,
  ): Promise<readonly SubscriptionRecord[]> {
    const { after, ...rest } = filter;
    return (await this.#subscriptions.list(rest, { limit: LIST_LIMIT, after }, signal)).items;
  }

  /** @returns what it was */
  delete(name: string, signal: AbortSignal = never): Promise<SubscriptionRecord> {
    return this.#subscriptions.delete(name, signal);
  }

  /** Delivers nothing until `resume`. */
  pause(name: string, signal: AbortSignal = never): Promise<SubscriptionRecord> {
    return this.#subscriptions.pause(name, true, signal);
  }

  resume(name: string, signal: AbortSignal = never): Promise<SubscriptionRecord> {
    return this.#subscriptions.pause(name, false, signal);
  }

  /** Moves it, also back. */
  seek(name: string, to: From, signal: AbortSignal = never): Promise<SubscriptionRecord> {
    return this.#subscriptions.seek(name, startOf(to), signal);
  }

  /** As `ChangeFeed.follow`, after what was acknowledged. `opened.lease` says the generation. */
  async follow(name: string, consumer: (frame: Frame) => void, signal: AbortSignal = never): Promise<Following> {
    return followStream(await this.#open(name, signal), consumer, signal);
  }

  /** As `ChangeFeed.frames`, after what was acknowledged. */
  frames(name: string, signal: AbortSignal = never): AsyncIterable<Frame> {
    const open = (opening: AbortSignal) => this.#open(name, opening);
    return new SubscribedStream(signal, { open, clock: systemClock, timers: systemTimers });
  }

  /**
   * Everything up to this cursor of a frame is done. Resolves once that is durable, with where the subscription stands.
   *
   * @param generation - of `opened.lease`, so that nobody is believed who has been taken over. Default: whoever has it
   * @throws FeedError SUBSCRIPTION_FENCED, SUBSCRIPTION_NOT_FOUND, CURSOR_INVALID
   */
  acknowledge(
    name: string,
    cursor: Cursor | string,
    generation = 0,
    signal: AbortSignal = never,
  ): Promise<{ readonly cursor: string; readonly version: Version }> {
    const text = typeof cursor === "string" ? cursor : encodeCursor(cursor);
    const said = { id: name, generation, member: undefined, cursor: text, versions: [], rejections: [] };
    return this.#subscriptions.acknowledge(said, signal);
  }

  #open(id: string, signal: AbortSignal): Promise<OpenStream> {
    const terms = (record: SubscriptionRecord) => termsInProcess(record, codec, CHECKPOINT_INTERVAL_MS);
    return this.#subscriptions.open({ id, member: undefined, terms }, signal);
  }
}
