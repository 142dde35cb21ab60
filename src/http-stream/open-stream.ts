import type { SubscribeRequest } from "../../gen/millrace/v1/feed_service_pb.js";
import { FeedError } from "../core/errors.ts";
import type { Feed, OpenStream, StreamRequest } from "../core/feed.ts";
import type { Subscriptions } from "../core/subscription/subscriptions.ts";
import { invalidRequest } from "../rpc/errors.ts";
import { type StreamDefaults, streamRequestFromWire, streamTerms } from "../rpc/stream-request.ts";
import { definitionOf, groupTermsOf, subscribeRequestOf } from "../rpc/subscription-definition.ts";
import type { EncoderPool } from "./encoder-pool.ts";
import type { ToldTerms } from "./frame-text.ts";
import type { EventsQuery } from "./query.ts";
import type { FrameTextEncoder } from "./text-encoder.ts";

/** Where streams come from. */
export interface StreamSources extends StreamDefaults {
  readonly feed: Feed;
  /** Default: there are none. */
  readonly subscriptions?: Subscriptions | undefined;
  /** Ends what is being opened, and what is open, with its reason. */
  readonly shutdownSignal: AbortSignal;
}

/** One call's. */
export interface OpeningOptions extends StreamSources {
  readonly encoders: EncoderPool;
  /** As `StreamRequest.peer`. */
  readonly peer: string | undefined;
}

/** A stream whose start is fixed, and what it has settled on. Attach or close it. */
export interface OpenedStream {
  readonly stream: OpenStream;
  readonly encoder: FrameTextEncoder;
  readonly told: ToldTerms;
}

interface Agreement {
  readonly asked: StreamRequest;
  readonly encoder: FrameTextEncoder;
  readonly told: ToldTerms;
}

/**
 * Opens what a query asks for: a place in the feed, or a subscription.
 *
 * @throws FeedError whatever Subscribe fails with
 */
export async function openStream(
  query: EventsQuery,
  options: OpeningOptions,
  gone: AbortSignal,
): Promise<OpenedStream> {
  const signal = AbortSignal.any([gone, options.shutdownSignal]);
  const { request } = query;
  if (request.start.case === "subscriptionId") {
    return await openSubscription(request.start.value, query, options, signal);
  }
  const { asked, encoder, told } = agree(query, request, options);
  return { stream: await options.feed.open(asked, signal), encoder, told };
}

async function openSubscription(
  id: string,
  query: EventsQuery,
  options: OpeningOptions,
  signal: AbortSignal,
): Promise<OpenedStream> {
  const { subscriptions } = options;
  if (subscriptions === undefined) {
    throw invalidRequest([{ field: "subscription", message: "cannot be used here: this server has no subscriptions" }]);
  }
  let agreed: Agreement | undefined;
  const stream = await subscriptions.open(
    {
      id,
      member: query.request.member === "" ? undefined : query.request.member,
      terms(record) {
        const definition = definitionOf(record);
        agreed = agree(query, subscribeRequestOf(definition, query.request), options);
        return { request: agreed.asked, group: groupTermsOf(definition) };
      },
    },
    signal,
  );
  if (agreed === undefined) {
    stream.close();
    throw new FeedError("INTERNAL", "A subscription was opened without terms.", "Report this as a fault of Millrace.");
  }
  const { encoder, told } = agreed;
  return { stream, encoder, told };
}

function agree({ form }: EventsQuery, request: SubscribeRequest, options: OpeningOptions): Agreement {
  const encoder = options.encoders.of(form, request);
  const told = streamTerms(request, options);
  const asked = streamRequestFromWire(request, told, encoder.codec, undefined);
  return { asked: { ...asked, peer: options.peer }, encoder, told };
}
