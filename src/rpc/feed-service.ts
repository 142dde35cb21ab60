import { create } from "@bufbuild/protobuf";
import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import {
  type FeedService,
  type PublishRequest,
  PublishResponseSchema,
  type SubscribeRequest,
  type SubscribeResponse,
} from "../../gen/millrace/v1/feed_service_pb.js";
import type { Feed } from "../core/feed.ts";
import type { Clock } from "../core/ports.ts";
import { createEventCodec } from "./codec.ts";
import { responseFromFrame } from "./frames.ts";
import { publicationFromRequest } from "./publication.ts";
import { type Problem, statusResponse } from "./status.ts";
import { streamTerms, subscriptionFromRequest } from "./subscription.ts";

/** What FeedService stands on. */
export interface FeedServiceOptions {
  readonly feed: Feed;
  readonly clock: Clock;
  /** What is wrong beyond what the feed itself knows. Must answer from memory: GetStatus reads no table. */
  readonly problems: () => readonly Problem[];
  /** `checkpoint_interval` of streams that ask for none, in milliseconds. */
  readonly checkpointIntervalMs: number;
  readonly serverVersion: string;
}

/** FeedService over the core. Requests have passed validation; whatever is thrown here, the interceptors translate. */
export function createFeedService(options: FeedServiceOptions): ServiceImpl<typeof FeedService> {
  const { feed } = options;
  return {
    subscribe: (request, context) => subscribe(request, context, options),
    publish: async (request: PublishRequest, context) => {
      const published = await feed.publish(publicationFromRequest(request), context.signal);
      return create(PublishResponseSchema, {
        transaction: `${feed.status().epoch}:${published.xid}`,
        duplicate: published.duplicate,
        ...(published.version === undefined ? {} : { version: BigInt(published.version) }),
      });
    },
    getStatus: () => statusResponse(feed.status(), options.problems(), options.serverVersion),
  };
}

/** Everything it awaits is tied to the call's signal, so that a client that goes away leaves nothing behind. */
async function* subscribe(
  request: SubscribeRequest,
  context: HandlerContext,
  { feed, clock, checkpointIntervalMs }: FeedServiceOptions,
): AsyncGenerator<SubscribeResponse> {
  const terms = streamTerms(request, checkpointIntervalMs);
  const codec = createEventCodec(context.requestHeader.get("content-type"), {
    form: request.payloadForm,
    maxMessageBytes: terms.maxMessageBytes,
  });
  const remainingMs = context.timeoutMs();
  const deadlineMs = remainingMs === undefined ? undefined : clock.monotonic() + remainingMs;
  const subscription = subscriptionFromRequest(request, terms, codec, deadlineMs);
  for await (const frame of feed.subscribe(subscription, context.signal)) {
    yield responseFromFrame(frame, codec, terms);
  }
}
