import type { HandlerContext } from "@connectrpc/connect";
import { headerStreamEncoding } from "@connectrpc/connect/protocol-connect";
import { headerEncoding, headerGrpcStatus } from "@connectrpc/connect/protocol-grpc";
import { PayloadForm } from "../../gen/millrace/v1/event_pb.js";
import type { SubscribeRequest, SubscribeResponse } from "../../gen/millrace/v1/feed_service_pb.js";
import { systemTimers } from "../core/clock.ts";
import { encodeCursor } from "../core/cursor.ts";
import { FeedError } from "../core/errors.ts";
import type { Feed, OpenStream, StreamRequest } from "../core/feed.ts";
import type { Frame } from "../core/frame.ts";
import type { Clock } from "../core/ports.ts";
import { SubscribedStream } from "../core/stream/subscribed-stream.ts";
import type { Consumer, Subscriptions } from "../core/subscription/subscriptions.ts";
import { invalidRequest } from "./errors.ts";
import { assertHeld, FORWARDED, forwardedTerms, openForwarded } from "./forward/forwarded-call.ts";
import { responseFromFrame, type StreamTerms } from "./frames.ts";
import { callProtocol } from "./hand-off/call-end.ts";
import type { EncoderPool } from "./hand-off/encoder-pool.ts";
import type { FrameEncoder } from "./hand-off/frame-encoder.ts";
import type { Reception } from "./hand-off/reception.ts";
import { peerKey } from "./peer.ts";
import { type StreamDefaults, streamRequestFromWire, streamTerms } from "./stream-request.ts";
import { definitionOf, groupTermsOf, subscribeRequestOf } from "./subscription-definition.ts";

/** What streams are opened with. */
export interface SubscribeOptions extends StreamDefaults {
  readonly feed: Feed;
  readonly subscriptions: Subscriptions | undefined;
  readonly clock: Clock;
  readonly compressMinBytes?: number | undefined;
  readonly encoders: EncoderPool;
}

/** What the request, the call and the server's defaults agree on. */
interface Agreement {
  readonly asked: StreamRequest;
  readonly terms: StreamTerms;
  readonly encoder: FrameEncoder;
}

/** A stream that is to be opened. */
export interface Opening {
  open(signal: AbortSignal): Promise<OpenStream>;
  /** The same, frame by frame. */
  frames(signal: AbortSignal): AsyncIterator<Frame, unknown>;
  /** Once it is open, at the latest. */
  agreed(): Agreement;
}

/**
 * What a request asks for.
 *
 * @throws FeedError INVALID_REQUEST
 */
export function openingOf(request: SubscribeRequest, context: HandlerContext, options: SubscribeOptions): Opening {
  if (request.start.case === "subscriptionId") {
    return openingOfSubscription(request.start.value, request, context, options);
  }
  const { feed } = options;
  const agreed = agreement(request, context, options);
  const { asked } = agreed;
  return {
    open: (signal) => feed.open(asked, signal),
    frames: (signal) => feed.subscribe(asked, signal)[Symbol.asyncIterator](),
    agreed: () => agreed,
  };
}

function openingOfSubscription(
  id: string,
  request: SubscribeRequest,
  context: HandlerContext,
  options: SubscribeOptions,
): Opening {
  const { subscriptions, clock } = options;
  if (subscriptions === undefined) {
    throw invalidRequest([
      { field: "subscription_id", message: "cannot be used here: this server has no subscriptions" },
    ]);
  }
  assertLeftToSubscription(request);
  let agreed: Agreement | undefined;
  const consumer: Consumer = {
    id,
    member: request.member === "" ? undefined : request.member,
    terms(record) {
      const definition = definitionOf(record);
      agreed = agreement(subscribeRequestOf(definition, request), context, options);
      return { request: agreed.asked, group: groupTermsOf(definition) };
    },
  };
  const forwarded = forwardedTerms(context.requestHeader.get(FORWARDED));
  const open = async (signal: AbortSignal) => {
    if (forwarded === undefined) {
      return await subscriptions.open(consumer, signal);
    }
    assertHeld(id, subscriptions);
    return await openForwarded(consumer, forwarded, { subscriptions, clock }, signal);
  };
  return {
    open,
    frames: (signal) => new SubscribedStream(signal, { open, clock, timers: systemTimers }),
    agreed() {
      if (agreed === undefined) {
        throw new FeedError(
          "INTERNAL",
          "A subscription was opened without terms.",
          "Report this as a fault of Millrace.",
        );
      }
      return agreed;
    },
  };
}

/** What a subscription delivers, and how, was said when it was created. */
function assertLeftToSubscription({
  selectors,
  delivery,
  payloadForm,
  afterTransaction,
  epoch,
}: SubscribeRequest): void {
  const given = [
    ["selectors", selectors.length > 0],
    ["delivery", delivery !== undefined],
    ["payload_form", payloadForm !== PayloadForm.UNSPECIFIED],
    ["after_transaction", afterTransaction !== ""],
    ["epoch", epoch !== ""],
  ] as const;
  const message = "cannot be set beside `subscription_id`: it is the subscription's";
  const violations = given.flatMap(([field, isSet]) => (isSet ? [{ field, message }] : []));
  if (violations.length > 0) {
    throw invalidRequest(violations);
  }
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
export async function* subscribe(opening: Opening, context: HandlerContext): AsyncGenerator<SubscribeResponse> {
  const frames = opening.frames(context.signal);
  const end = () => frames.return?.().catch(() => undefined);
  context.signal.addEventListener("abort", end, { once: true });
  let last: Frame | undefined;
  try {
    for (let next = await frames.next(); next.done !== true; next = await frames.next()) {
      last = next.value;
      const { encoder, terms } = opening.agreed();
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
export async function* openForHandOff(
  opening: Opening,
  context: HandlerContext,
  reception: Reception,
): AsyncGenerator<SubscribeResponse> {
  const stream = await opening.open(context.signal);
  const { asked, terms, encoder } = opening.agreed();
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
