import { FeedError } from "../core/errors.ts";
import type { FeedStats } from "../core/feed/feed-stats.ts";
import type { Feed, FeedStatus } from "../core/feed.ts";
import type { Frame } from "../core/frame.ts";
import type { Publication, Published } from "../core/ports.ts";
import type { Subscriptions } from "../core/subscription/subscriptions.ts";
import { FeedSubscriptions } from "./feed-subscriptions.ts";
import { type Following, followStream } from "./following.ts";
import { type FollowOptions, streamRequestOf } from "./request.ts";

const never = new AbortController().signal;

/**
 * The feed without a wire: what a client of the server gets, for a consumer in this process. Frames, cursors, policies and
 * errors are the same, and a cursor of one goes on in the other.
 *
 * Frames and events are shared by everybody who gets them: nobody changes them.
 */
export class ChangeFeed implements AsyncDisposable {
  readonly #feed: Feed;
  readonly #stop: () => Promise<void>;

  readonly #subscriptions: FeedSubscriptions | undefined;

  /** Of a started feed, and its subscriptions if it has any; `stop` ends them with everything behind them. */
  constructor(feed: Feed, stop: () => Promise<void>, subscriptions?: Subscriptions) {
    this.#feed = feed;
    this.#subscriptions = subscriptions && new FeedSubscriptions(feed, subscriptions);
    this.#stop = stop;
  }

  /**
   * Calls the consumer with each frame, from within the append that brings it: less than a microsecond after. Everybody
   * waits for it meanwhile, so it hands on whatever takes longer; one that throws ends its own stream, and no other.
   *
   * Resolves when the start is fixed and the consumer was called with `opened`. The signal gives the opening up, and ends
   * the stream later on.
   *
   * @throws FeedError as `Subscribe`
   */
  async follow(
    options: FollowOptions,
    consumer: (frame: Frame) => void,
    signal: AbortSignal = never,
  ): Promise<Following> {
    return followStream(await this.#feed.open(streamRequestOf(options), signal), consumer, signal);
  }

  /**
   * The frames as they are asked for: a consumer that takes its time lags, and its policy acts. Opens at the first `next`;
   * leaving the loop ends the stream.
   */
  frames(options: FollowOptions = {}, signal: AbortSignal = never): AsyncIterable<Frame> {
    return this.#feed.subscribe(streamRequestOf(options), signal);
  }

  /** The same for pipes of the Web's streams. It buffers nothing; `cancel` ends the stream. */
  readable(options: FollowOptions = {}, signal: AbortSignal = never): ReadableStream<Frame> {
    const frames = this.frames(options, signal)[Symbol.asyncIterator]();
    return new ReadableStream<Frame>(
      {
        async pull(controller) {
          const next = await frames.next();
          if (next.done === true) {
            controller.close();
          } else {
            controller.enqueue(next.value);
          }
        },
        async cancel() {
          await frames.return?.();
        },
      },
      { highWaterMark: 0 },
    );
  }

  /**
   * Named positions that the store keeps.
   *
   * @throws FeedError INVALID_REQUEST for a feed that was made without
   */
  get subscriptions(): FeedSubscriptions {
    if (this.#subscriptions === undefined) {
      throw new FeedError("INVALID_REQUEST", "This feed has no subscriptions.", "Open it with `openFeed`.");
    }
    return this.#subscriptions;
  }

  /** Appends events of the application's own in one transaction; see `Publish`. */
  publish(publication: Publication, signal: AbortSignal = never): Promise<Published> {
    return this.#feed.publish(publication, signal);
  }

  /** Where the feed stands. Reads no table. */
  status(): FeedStatus {
    return this.#feed.status();
  }

  /** What it has done so far. */
  stats(): FeedStats {
    return this.#feed.stats();
  }

  /** Says `closing` to every consumer, gives them so many milliseconds to take it, and ends everything. Idempotent. */
  async stop(graceMs = 1_000): Promise<void> {
    await this.#feed.drain(graceMs);
    await this.#stop();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}
