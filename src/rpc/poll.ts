import { create } from "@bufbuild/protobuf";
import type { HandlerContext } from "@connectrpc/connect";
import type { PayloadForm } from "../../gen/millrace/v1/event_pb.js";
import { type PollRequest, type PollResponse, PollResponseSchema } from "../../gen/millrace/v1/feed_service_pb.js";
import { decodeCursor, encodeCursor } from "../core/cursor.ts";
import type { PageTerms, PolledPage } from "../core/poll/polled-page.ts";
import type { Polls } from "../core/poll/polls.ts";
import type { Clock } from "../core/ports.ts";
import { createEventCodec, ENVELOPE_BYTES, type EventCodec } from "./codec.ts";
import { kept } from "./conditional-get.ts";
import { invalidRequest } from "./errors.ts";
import { leaseMessage } from "./frames.ts";
import { peerKey } from "./peer.ts";
import { DEFAULT_MAX_MESSAGE_BYTES, selectorFromWire, startFromWire } from "./stream-request.ts";
import { milliseconds } from "./subscription-definition.ts";

/** What Poll stands on. */
export interface PollOptions {
  readonly polls: Polls;
  readonly clock: Clock;
}

const DEFAULT_MAX_EVENTS = 1_000;
const DEFAULT_MAX_BYTES = 1_048_576;

/** What a call of Poll has settled on. */
interface PollTerms extends PageTerms {
  readonly codec: EventCodec;
  /** Characters that a cursor may have beside nothing else. */
  readonly cursorRoom: number;
}

/** `FeedService.Poll`. Requests have passed validation. */
export function createPoll({ polls, clock }: PollOptions) {
  return async (request: PollRequest, context: HandlerContext): Promise<PollResponse> => {
    assertOfPosition(request);
    const terms = termsOf(request, request.payloadForm, context, clock);
    const { codec, maxEvents, maxBytes, timeoutMs, deadlineMs } = terms;
    const start = startFromWire(request.start, request.epoch);
    const selectors = request.selectors.map(selectorFromWire);
    const peer = context.values.get(peerKey);
    const asked = { start, selectors, codec: paging(codec), peer, maxEvents, maxBytes, timeoutMs, deadlineMs };
    const page = await polls.poll(asked, context.signal);
    if (context.requestMethod === "GET" && isForEver(request, page)) {
      context.responseHeader.set("Cache-Control", kept({ anonymous: true }));
    }
    return response(page, terms);
  };
}

/** Frames of a page say which ticks their events are of; so its lanes are not those of streams. */
function paging(codec: EventCodec) {
  return { identity: `page ${codec.identity}`, measure: codec.measure, wantsTicks: true };
}

/** @param form - of the payloads; a subscription has its own */
function termsOf(request: PollRequest, form: PayloadForm, context: HandlerContext, clock: Clock): PollTerms {
  const maxMessageBytes = request.maxMessageBytes === 0 ? DEFAULT_MAX_MESSAGE_BYTES : request.maxMessageBytes;
  const remainingMs = context.timeoutMs();
  const contentType = speaksJson(context) ? "application/connect+json" : "application/connect+proto";
  return {
    codec: createEventCodec(contentType, { form, maxMessageBytes }),
    maxEvents: request.maxEvents === 0 ? DEFAULT_MAX_EVENTS : request.maxEvents,
    maxBytes: Math.min(request.maxBytes === 0 ? DEFAULT_MAX_BYTES : request.maxBytes, maxMessageBytes) - ENVELOPE_BYTES,
    timeoutMs: request.timeout === undefined ? 0 : milliseconds(request.timeout),
    deadlineMs: remainingMs === undefined ? undefined : clock.monotonic() + remainingMs,
    cursorRoom: maxMessageBytes - ENVELOPE_BYTES,
  };
}

/** A GET says it in its query, a unary call of Connect in its content type, and all others in the suffix of theirs. */
function speaksJson({ requestMethod, requestHeader, url }: HandlerContext): boolean {
  return requestMethod === "GET"
    ? new URL(url).searchParams.get("encoding") === "json"
    : /[/+]json\s*(?:;|$)/i.test(requestHeader.get("content-type") ?? "");
}

function assertOfPosition({ start, acknowledgeCursor, generation, member }: PollRequest): void {
  if (start.case === "subscriptionId") {
    throw invalidRequest([{ field: "subscription_id", message: "cannot be polled here" }]);
  }
  const given = [
    ["acknowledge_cursor", acknowledgeCursor !== ""],
    ["generation", generation !== 0n],
    ["member", member !== ""],
  ] as const;
  const message = "means nothing without `subscription_id`";
  const violations = given.flatMap(([field, isSet]) => (isSet ? [{ field, message }] : []));
  if (violations.length > 0) {
    throw invalidRequest(violations);
  }
}

/**
 * Whether the same request gets the same bytes for ever: of a full page after a cursor of the history in force. After one of an
 * ancestor's, the page depends on which history is in force; other starts say nothing of it at all.
 */
function isForEver({ start }: PollRequest, { full, cursor }: PolledPage): boolean {
  return full && start.case === "afterCursor" && decodeCursor(start.value).epoch === cursor.epoch;
}

function response(page: PolledPage, { codec, cursorRoom }: PollTerms): PollResponse {
  const { events, cursor, hasMore, complete, head, lease } = page;
  // Cursors in a snapshot hold a key; all others are short.
  const beside = typeof cursor.snapshot === "object" ? events.reduce((sum, event) => sum + codec.measure(event), 0) : 0;
  const { $unknown, ...fields } = codec.page(events);
  const message = create(PollResponseSchema, {
    ...fields,
    cursor: encodeCursor(cursor, cursorRoom - beside),
    hasMore,
    complete,
    epoch: cursor.epoch,
    ...(head === undefined ? {} : { headVersion: BigInt(head) }),
    ...(lease === undefined ? {} : { lease: leaseMessage(lease), subscriptionActive: true }),
  });
  return $unknown === undefined ? message : Object.assign(message, { $unknown });
}
