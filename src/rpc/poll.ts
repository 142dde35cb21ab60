import { create } from "@bufbuild/protobuf";
import type { HandlerContext } from "@connectrpc/connect";
import { PayloadForm } from "../../gen/millrace/v1/event_pb.js";
import { type PollRequest, type PollResponse, PollResponseSchema } from "../../gen/millrace/v1/feed_service_pb.js";
import { decodeCursor, encodeCursor } from "../core/cursor.ts";
import type { PageTerms, PolledPage } from "../core/poll/polled-page.ts";
import type { Polls } from "../core/poll/polls.ts";
import type { Clock } from "../core/ports.ts";
import type { SubscriptionRecord } from "../core/subscription/subscription-store.ts";
import { createEventCodec, ENVELOPE_BYTES, type EventCodec } from "./codec.ts";
import { kept } from "./conditional-get.ts";
import { invalidRequest } from "./errors.ts";
import { leaseMessage } from "./frames.ts";
import { peerKey } from "./peer.ts";
import { DEFAULT_MAX_MESSAGE_BYTES, selectorFromWire, startFromWire } from "./stream-request.ts";
import { definitionOf, groupTermsOf, milliseconds } from "./subscription-definition.ts";

/** What Poll stands on. */
export interface PollOptions {
  readonly polls: Polls;
  readonly clock: Clock;
  /** Whether builders show events now. Default: they never do. */
  readonly built?: (() => boolean) | undefined;
}

const DEFAULT_MAX_EVENTS = 1_000;
const DEFAULT_MAX_BYTES = 1_048_576;

/** What a call of Poll has settled on. */
interface PollTerms extends PageTerms {
  readonly json: boolean;
  /** That the page without its lease may have. */
  readonly maxMessageBytes: number;
}

/** `FeedService.Poll`. Requests have passed validation. */
export function createPoll(options: PollOptions) {
  return async (request: PollRequest, context: HandlerContext): Promise<PollResponse> => {
    const { start } = request;
    return start.case === "subscriptionId"
      ? await pollSubscription(start.value, request, context, options)
      : await pollPosition(request, context, options);
  };
}

async function pollPosition(
  request: PollRequest,
  context: HandlerContext,
  { polls, clock, built }: PollOptions,
): Promise<PollResponse> {
  assertOfPosition(request);
  const terms = termsOf(request, context, clock);
  const codec = codecOf(request.payloadForm, terms);
  const asked = {
    ...terms,
    start: startFromWire(request.start, request.epoch),
    selectors: request.selectors.map(selectorFromWire),
    codec: paging(codec),
    peer: context.values.get(peerKey),
  };
  const page = await polls.poll(asked, context.signal);
  if (context.requestMethod === "GET" && isForEver(request, page)) {
    context.responseHeader.set("Cache-Control", kept({ anonymous: true, built: built?.() ?? false }));
  }
  return response(page, codec, terms);
}

async function pollSubscription(
  id: string,
  request: PollRequest,
  context: HandlerContext,
  { polls, clock }: PollOptions,
): Promise<PollResponse> {
  assertOfSubscription(request, context);
  const { member, generation, acknowledgeCursor } = request;
  const terms = termsOf(request, context, clock, roomOfLease(id, member));
  let codec = codecOf(request.payloadForm, terms);
  const asked = {
    ...terms,
    id,
    member: member === "" ? undefined : member,
    generation: Number(generation),
    acknowledge: acknowledgeCursor === "" ? undefined : acknowledgeCursor,
    terms(record: SubscriptionRecord) {
      const definition = definitionOf(record);
      codec = codecOf(definition.payloadForm, terms);
      const selectors = definition.selectors.map(selectorFromWire);
      return { selectors, codec: paging(codec), group: groupTermsOf(definition) };
    },
    peer: context.values.get(peerKey),
  };
  const page = await polls.pollSubscription(asked, context.signal);
  return response(page, codec, terms);
}

/** Frames of a page say which ticks their events are of; so its lanes are not those of streams. */
function paging(codec: EventCodec) {
  return { identity: `page ${codec.identity}`, measure: codec.measure, wantsTicks: true };
}

function codecOf(form: PayloadForm, { json, maxMessageBytes }: PollTerms): EventCodec {
  const contentType = json ? "application/connect+json" : "application/connect+proto";
  return createEventCodec(contentType, { form, maxMessageBytes });
}

/** @param leaseBytes - that the page's lease may take */
function termsOf(request: PollRequest, context: HandlerContext, clock: Clock, leaseBytes = 0): PollTerms {
  const { maxEvents, maxBytes, timeout } = request;
  const maxMessageBytes = (request.maxMessageBytes || DEFAULT_MAX_MESSAGE_BYTES) - leaseBytes;
  const remainingMs = context.timeoutMs();
  return {
    json: speaksJson(context),
    maxMessageBytes,
    maxEvents: maxEvents || DEFAULT_MAX_EVENTS,
    maxBytes: Math.min(maxBytes || DEFAULT_MAX_BYTES, maxMessageBytes) - ENVELOPE_BYTES,
    timeoutMs: timeout === undefined ? 0 : milliseconds(timeout),
    deadlineMs: remainingMs === undefined ? undefined : clock.monotonic() + remainingMs,
  };
}

/** Names are escaped where they need it, and a member without one is given one. */
function roomOfLease(id: string, member: string): number {
  return Buffer.byteLength(JSON.stringify([id, member])) + 192;
}

/** A GET says it in its query, a unary call of Connect in its content type, and all others in the suffix of theirs. */
function speaksJson({ requestMethod, requestHeader, url }: HandlerContext): boolean {
  return requestMethod === "GET"
    ? new URL(url).searchParams.get("encoding") === "json"
    : /[/+]json\s*(?:;|$)/i.test(requestHeader.get("content-type") ?? "");
}

function assertOfPosition({ acknowledgeCursor, generation, member }: PollRequest): void {
  assertNot("means nothing without `subscription_id`", {
    acknowledge_cursor: acknowledgeCursor !== "",
    generation: generation !== 0n,
    member: member !== "",
  });
}

function assertOfSubscription(request: PollRequest, { requestMethod }: HandlerContext): void {
  const { selectors, payloadForm, epoch, acknowledgeCursor, generation } = request;
  assertNot("can be polled by POST alone, which changes where it stands", { subscription_id: requestMethod === "GET" });
  assertNot("cannot be set beside `subscription_id`: it is the subscription's", {
    selectors: selectors.length > 0,
    payload_form: payloadForm !== PayloadForm.UNSPECIFIED,
    epoch: epoch !== "",
  });
  assertNot("must be set with `acknowledge_cursor`: that of the page's lease", {
    generation: acknowledgeCursor !== "" && generation === 0n,
  });
  assertNot("must be as a lease has it", { generation: generation > BigInt(Number.MAX_SAFE_INTEGER) });
}

function assertNot(message: string, wrong: Readonly<Record<string, boolean>>): void {
  const violations = Object.entries(wrong).flatMap(([field, isWrong]) => (isWrong ? [{ field, message }] : []));
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

function response(page: PolledPage, codec: EventCodec, { maxMessageBytes }: PollTerms): PollResponse {
  const { events, cursor, hasMore, complete, head, lease, active } = page;
  // Cursors in a snapshot hold a key; all others are short.
  const beside = typeof cursor.snapshot === "object" ? events.reduce((sum, event) => sum + codec.measure(event), 0) : 0;
  const { $unknown, ...fields } = codec.page(events);
  const message = create(PollResponseSchema, {
    ...fields,
    cursor: encodeCursor(cursor, maxMessageBytes - ENVELOPE_BYTES - beside),
    hasMore,
    complete,
    epoch: cursor.epoch,
    subscriptionActive: active,
    ...(head === undefined ? {} : { headVersion: BigInt(head) }),
    ...(lease === undefined ? {} : { lease: leaseMessage(lease) }),
  });
  return $unknown === undefined ? message : Object.assign(message, { $unknown });
}
