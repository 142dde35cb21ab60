import { FeedError } from "../errors.ts";
import type { OpenStream, StreamRequest } from "../feed.ts";
import type { ClosingReason, Lease } from "../frame.ts";
import type { Clock } from "../ports.ts";
import { subscriptionNotFound } from "../subscription/store-failures.ts";
import type { SubscriptionRecord } from "../subscription/subscription-store.ts";
import type { GroupTerms, Subscriptions } from "../subscription/subscriptions.ts";
import { type Collected, collect, type PageBounds } from "./page-collector.ts";
import { PollTime, type StreamTime } from "./poll-time.ts";
import type { PageTerms, PolledPage } from "./polled-page.ts";

/** What a subscription says of its pages. */
export interface SubscribedTerms extends Pick<StreamRequest, "selectors" | "codec"> {
  /** `undefined`: one consumer at a time. */
  readonly group: GroupTerms | undefined;
}

/** What a page is asked for by subscription. */
export interface SubscriptionPollRequest extends PageTerms, Pick<StreamRequest, "peer" | "principal"> {
  readonly id: string;
  /** In a group; `undefined` for one that is made up. */
  readonly member: string | undefined;
  /** Of the page before; 0 takes the subscription up. */
  readonly generation: number;
  /** Text of the cursor of the page before, which is acknowledged first. Needs the generation. */
  readonly acknowledge: string | undefined;
  readonly terms: (record: SubscriptionRecord) => SubscribedTerms;
}

/** What such polls stand on. */
export interface SubscriptionPollContext {
  readonly subscriptions: Subscriptions;
  readonly clock: Clock;
  /** The last settled version by now. */
  readonly head: () => number;
  /** Does this while the poll counts as one that waits. */
  readonly whileWaiting: <T>(wait: () => Promise<T>) => Promise<T>;
}

/**
 * Acknowledges, and then what comes next of the subscription: one frame of its stream, since what its stream has given it counts
 * as delivered. Looks first, and then waits with a stream that costs nothing, as the same consumer.
 */
export async function pollSubscription(
  request: SubscriptionPollRequest,
  context: SubscriptionPollContext,
  signal: AbortSignal,
): Promise<PolledPage> {
  const { id, member, generation, acknowledge: cursor } = request;
  const { subscriptions, clock } = context;
  const time = new PollTime(request, clock);
  if (cursor !== undefined) {
    await subscriptions.acknowledge({ id, generation, member, cursor, versions: [], rejections: [] }, signal);
  }
  const looked = await take(
    await open(request, time.looking(), generation, subscriptions, signal),
    request,
    context,
    signal,
  );
  if (looked.page.end !== "idle" || looked.page.events.length > 0 || time.isOver) {
    return pageOf(looked, request, context);
  }
  const { lease } = looked;
  const consumer = { ...request, member: lease.member ?? member };
  const waited = await context.whileWaiting(async () => {
    const stream = await open(consumer, time.waiting(), lease.generation, subscriptions, signal);
    return await take(stream, request, context, signal);
  });
  return pageOf(waited, request, context);
}

interface Taken {
  readonly page: Collected;
  readonly lease: Lease;
}

async function open(
  request: SubscriptionPollRequest,
  time: StreamTime,
  generation: number,
  subscriptions: Subscriptions,
  signal: AbortSignal,
): Promise<OpenStream> {
  const { id, member, maxEvents, maxBytes, peer, principal, terms } = request;
  const consumer = {
    id,
    member,
    inPieces: true,
    terms(record: SubscriptionRecord) {
      const { group, ...wanted } = terms(record);
      const stream = { ...wanted, ...time, peer, principal, maxBatchEvents: maxEvents, maxBatchBytes: maxBytes };
      return { request: stream, group };
    },
  };
  return generation === 0
    ? await subscriptions.open(consumer, signal)
    : await subscriptions.reopen({ ...consumer, generation }, signal);
}

async function take(
  stream: OpenStream,
  { maxEvents, maxBytes }: PageTerms,
  { head }: SubscriptionPollContext,
  signal: AbortSignal,
): Promise<Taken> {
  const { opened } = stream;
  if (opened.kind !== "opened" || opened.lease === undefined) {
    stream.close();
    throw new FeedError(
      "INTERNAL",
      "A subscription's stream began without a lease.",
      "Report this as a fault of Millrace.",
    );
  }
  // Its own limits make the frame small enough.
  const bounds: PageBounds = { maxEvents, maxBytes, measure: () => 0, until: "frame", head };
  return { page: await collect(stream, bounds, signal), lease: opened.lease };
}

function pageOf(
  { page, lease }: Taken,
  { id }: SubscriptionPollRequest,
  { head: headNow }: SubscriptionPollContext,
): PolledPage {
  const { events, cursor, complete, closing } = page;
  if (events.length === 0) {
    assertHeld(id, closing);
  }
  const head = headNow();
  const hasMore = cursor.snapshot !== undefined || cursor.version < head;
  return { events, cursor, hasMore, complete, full: false, head, lease, active: closing !== "PAUSED" };
}

/** Whoever waits learns that it is not his any more. That it was paused the page says. */
function assertHeld(id: string, closing: ClosingReason | undefined): void {
  if (closing === "DELETED") {
    throw subscriptionNotFound(id);
  }
  if (closing === "TAKEN_OVER" || closing === "MOVED") {
    throw new FeedError(
      "SUBSCRIPTION_FENCED",
      closing === "MOVED"
        ? `Subscription "${id}" was moved to another position.`
        : `Subscription "${id}" has a newer consumer.`,
      "Poll with `generation` 0 to take it up where it stands now, or leave it to the other.",
    );
  }
}
