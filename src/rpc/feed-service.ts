import { create } from "@bufbuild/protobuf";
import type { ServiceImpl } from "@connectrpc/connect";
import {
  type FeedService,
  type PublishRequest,
  PublishResponseSchema,
  type UpdateStreamRequest,
  UpdateStreamResponseSchema,
} from "../../gen/millrace/v1/feed_service_pb.js";
import type { Feed } from "../core/feed.ts";
import { createPolls, type Polls } from "../core/poll/polls.ts";
import type { Clock } from "../core/ports.ts";
import type { Subscriptions } from "../core/subscription/subscriptions.ts";
import { EncoderPool } from "./hand-off/encoder-pool.ts";
import { receptionKey } from "./hand-off/reception.ts";
import { createPoll } from "./poll.ts";
import { publicationFromRequest } from "./publication.ts";
import { type Problem, type StorageReport, statusResponse } from "./status.ts";
import { type StreamDefaults, selectorFromWire } from "./stream-request.ts";
import { openForHandOff, openingOf, subscribe } from "./subscribe.ts";

/** What FeedService stands on. */
export interface FeedServiceOptions extends StreamDefaults {
  readonly feed: Feed;
  /** Default: there are none. */
  readonly subscriptions?: Subscriptions | undefined;
  readonly clock: Clock;
  /** Whether builders show events now. Default: they never do. */
  readonly built?: (() => boolean) | undefined;
  /** Default: polls of the feed, whose numbers nobody reads. */
  readonly polls?: Polls | undefined;
  /** What is wrong beyond what the feed itself knows. Must answer from memory: GetStatus reads no table. */
  readonly problems: () => readonly Problem[];
  /** What is kept, also from memory; `undefined` as long as nobody knows. Default: nobody does. */
  readonly storage?: (() => StorageReport | undefined) | undefined;
  readonly serverVersion: string;
  /** Least bytes of a message that is compressed for clients that take gzip. Default: none is. */
  readonly compressMinBytes?: number | undefined;
}

/** FeedService over the core. Requests have passed validation; whatever is thrown here, the interceptors translate. */
export function createFeedService(options: FeedServiceOptions): ServiceImpl<typeof FeedService> {
  const { feed } = options;
  const subscribeOptions = { subscriptions: undefined, ...options, encoders: new EncoderPool() };
  return {
    subscribe(request, context) {
      const opening = openingOf(request, context, subscribeOptions);
      const reception = context.values.get(receptionKey);
      return reception === undefined ? subscribe(opening, context) : openForHandOff(opening, context, reception);
    },
    poll: createPoll({ ...options, polls: options.polls ?? createPolls(options) }),
    updateStream: async ({ streamId, selectors }: UpdateStreamRequest, context) => {
      const update = { streamId, selectors: selectors.map(selectorFromWire) };
      return create(UpdateStreamResponseSchema, { number: BigInt(await feed.update(update, context.signal)) });
    },
    publish: async (request: PublishRequest, context) => {
      // Before the wait: afterwards another epoch may be in force.
      const { epoch } = feed.status();
      const published = await feed.publish(publicationFromRequest(request), context.signal);
      return create(PublishResponseSchema, {
        transaction: `${epoch}:${published.xid}`,
        duplicate: published.duplicate,
        ...(published.version === undefined ? {} : { version: BigInt(published.version) }),
      });
    },
    getStatus: () => statusResponse(feed.status(), options.problems(), options.storage?.(), options.serverVersion),
  };
}
