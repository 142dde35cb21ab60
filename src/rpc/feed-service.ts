import { create } from "@bufbuild/protobuf";
import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import { headerStreamEncoding } from "@connectrpc/connect/protocol-connect";
import { headerEncoding, headerGrpcStatus } from "@connectrpc/connect/protocol-grpc";
import {
  type FeedService,
  type PublishRequest,
  PublishResponseSchema,
  type SubscribeRequest,
  type SubscribeResponse,
  type UpdateStreamRequest,
  UpdateStreamResponseSchema,
} from "../../gen/millrace/v1/feed_service_pb.js";
import { encodeCursor } from "../core/cursor.ts";
import { FeedError } from "../core/errors.ts";
import type { Feed, StreamRequest } from "../core/feed.ts";
import type { Frame } from "../core/frame.ts";
import type { Clock } from "../core/ports.ts";
import { responseFromFrame, type StreamTerms } from "./frames.ts";
import { callProtocol } from "./hand-off/call-end.ts";
import { EncoderPool } from "./hand-off/encoder-pool.ts";
import type { FrameEncoder } from "./hand-off/frame-encoder.ts";
import { type Reception, receptionKey } from "./hand-off/reception.ts";
import { peerKey } from "./peer.ts";
import { publicationFromRequest } from "./publication.ts";
import { type Problem, type StorageReport, statusResponse } from "./status.ts";
import { type StreamDefaults, selectorFromWire, streamRequestFromWire, streamTerms } from "./stream-request.ts";

/** What FeedService stands on. */
export interface FeedServiceOptions extends StreamDefaults {
  readonly feed: Feed;
  readonly clock: Clock;
  /** What is wrong beyond what the feed itself knows. Must answer from memory: GetStatus reads no table. */
  readonly problems: () => readonly Problem[];
  /** What is kept, also from memory; `undefined` as long as nobody knows. Default: nobody does. */
  readonly storage?: (() => StorageReport | undefined) | undefined;
  readonly serverVersion: string;
  /** Least bytes of a message that is compressed for clients that take gzip. Default: none is. */
  readonly compressMinBytes?: number | undefined;
}

interface SubscribeOptions extends FeedServiceOptions {
  readonly encoders: EncoderPool;
}

/** FeedService over the core. Requests have passed validation; whatever is thrown here, the interceptors translate. */
export function createFeedService(options: FeedServiceOptions): ServiceImpl<typeof FeedService> {
  const { feed } = options;
  const subscribeOptions = { ...options, encoders: new EncoderPool() };
  return {
    subscribe(request, context) {
      const agreed = agreement(request, context, subscribeOptions);
      const reception = context.values.get(receptionKey);
      return reception === undefined
        ? subscribe(agreed, context, feed)
        : openForHandOff(agreed, context, feed, reception);
    },
    poll: () => {
      throw new FeedError("INVALID_REQUEST", "This server does not answer Poll yet.", "Use Subscribe.");
    },
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

/** What the request, the call and the server's defaults agree on. */
interface Agreement {
  readonly asked: StreamRequest;
  readonly terms: StreamTerms;
  readonly encoder: FrameEncoder;
}

function agreement(request: SubscribeRequest, context: HandlerContext, options: SubscribeOptions): Agreement {
  const { clock, compressMinBytes, encoders } = options;
  const terms = streamTerms(request, options);
  const encoder = encoders.of({
    contentType: context.requestHeader.get("content-type"),
    form: request.payloadForm,
    maxMessageBytes: terms.maxMessageBytes,
    gzipMinBytes: isCompressed(context) ? compressMinBytes : undefined,
  });
  const remainingMs = context.timeoutMs();
  const deadlineMs = remainingMs === undefined ? undefined : clock.monotonic() + remainingMs;
  const asked = streamRequestFromWire(request, terms, encoder.codec, deadlineMs);
  return { asked: { ...asked, peer: context.values.get(peerKey) }, terms, encoder };
}

/** Connect has negotiated it by now; the protocols differ in the name of the header. */
function isCompressed({ responseHeader }: HandlerContext): boolean {
  return responseHeader.has(headerEncoding) || responseHeader.has(headerStreamEncoding);
}

/**
 * A client that goes away leaves nothing behind. What is awaited in here ends with the call's signal; but a client that
 * stopped reading before it went leaves this generator suspended at its `yield` for ever, for connect-node waits for a
 * `drain` that a closed response never emits. So the signal also ends the core's stream from outside.
 */
async function* subscribe(
  { asked, terms, encoder }: Agreement,
  context: HandlerContext,
  feed: Feed,
): AsyncGenerator<SubscribeResponse> {
  const frames = feed.subscribe(asked, context.signal)[Symbol.asyncIterator]();
  const end = () => frames.return?.().catch(() => undefined);
  context.signal.addEventListener("abort", end, { once: true });
  let last: Frame | undefined;
  try {
    for (let next = await frames.next(); next.done !== true; next = await frames.next()) {
      last = next.value;
      yield responseFromFrame(last, encoder.codec, terms);
    }
    // Ended from outside, and not by itself: the client, if it is still there, learns why.
    if (last?.kind !== "closing") {
      context.signal.throwIfAborted();
    }
  } catch (error) {
    throw withCursor(error, last);
  } finally {
    context.signal.removeEventListener("abort", end);
    await end();
  }
}

/** The first frame alone: whoever takes the stream over then ends this, and writes the others. */
async function* openForHandOff(
  { asked, terms, encoder }: Agreement,
  context: HandlerContext,
  feed: Feed,
  reception: Reception,
): AsyncGenerator<SubscribeResponse> {
  const stream = await feed.open(asked, context.signal);
  const { deadlineMs } = asked;
  const wire = {
    protocol: callProtocol(context.protocolName),
    encoder,
    terms,
    metadata: [...context.responseTrailer].filter(([name]) => name !== headerGrpcStatus.toLowerCase()),
  };
  reception.offer({ stream, wire, deadlineMs });
  try {
    yield responseFromFrame(stream.opened, encoder.codec, terms);
  } finally {
    reception.withdraw();
  }
}

/** A stream that is cut because the server goes down says where to go on, as `closing` would have. */
function withCursor(error: unknown, last: Frame | undefined): unknown {
  if (!(error instanceof FeedError) || error.code !== "DRAINING" || last === undefined || !("cursor" in last)) {
    return error;
  }
  const detail = { ...error.detail, cursor: encodeCursor(last.cursor) };
  return new FeedError(error.code, error.message, error.action, detail);
}
