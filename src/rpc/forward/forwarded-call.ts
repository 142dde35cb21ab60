import type { Interceptor } from "@connectrpc/connect";
import { FeedError } from "../../core/errors.ts";
import type { ForwardedMember } from "../../core/group/group-forwarding.ts";
import type { Clock } from "../../core/ports.ts";
import type { Consumer, Subscriptions } from "../../core/subscription/subscriptions.ts";

/** Marks a call that a replica passes on, for a consumer of its own, to the one that holds the group. Not passed on again. */
export const FORWARDED = "millrace-forwarded";

/** What a stream that is passed on is asked for beside what the request says. */
export interface ForwardedTerms {
  readonly inPieces?: boolean;
  /** Of a member that comes again. */
  readonly generation?: number | undefined;
  readonly maxBatchBytes?: number | undefined;
  readonly maxBatchEvents?: number | undefined;
  readonly checkpointIntervalMs?: number | undefined;
  /** Milliseconds that the call has. */
  readonly leftMs?: number | undefined;
}

/** The header's value. */
export function forwardedHeader({ inPieces = false, generation, request }: ForwardedMember, clock: Clock): string {
  const { maxBatchBytes, maxBatchEvents, checkpointIntervalMs, deadlineMs } = request;
  const leftMs = deadlineMs === undefined ? undefined : deadlineMs - clock.monotonic();
  const batch = { maxBatchBytes, maxBatchEvents: finite(maxBatchEvents) };
  return JSON.stringify({ inPieces, generation, ...batch, checkpointIntervalMs, leftMs });
}

/** `undefined` of a call that nobody passed on. A header that cannot be read asks for nothing but what the request says. */
export function forwardedTerms(value: string | null): ForwardedTerms | undefined {
  if (value === null) {
    return undefined;
  }
  let terms: unknown;
  try {
    terms = JSON.parse(value);
  } catch {
    return {};
  }
  const given: Readonly<Record<string, unknown>> = typeof terms === "object" && terms !== null ? { ...terms } : {};
  return {
    inPieces: given.inPieces === true,
    generation: count(given.generation),
    maxBatchBytes: count(given.maxBatchBytes),
    maxBatchEvents: count(given.maxBatchEvents),
    checkpointIntervalMs: count(given.checkpointIntervalMs),
    leftMs: count(given.leftMs),
  };
}

/** Takes a consumer's subscription up in terms of whoever passed the call on. */
export function openForwarded(
  consumer: Consumer,
  { generation, inPieces, leftMs, ...batch }: ForwardedTerms,
  { subscriptions, clock }: { readonly subscriptions: Subscriptions; readonly clock: Clock },
  signal: AbortSignal,
) {
  const deadlineMs = leftMs === undefined ? {} : { deadlineMs: clock.monotonic() + leftMs };
  const asked = Object.fromEntries(Object.entries(batch).filter(([, value]) => value !== undefined));
  const forwarded: Consumer = {
    ...consumer,
    inPieces,
    terms(record) {
      const { request, group } = consumer.terms(record);
      return { request: { ...request, ...asked, ...deadlineMs }, group };
    },
  };
  return generation === undefined
    ? subscriptions.open(forwarded, signal)
    : subscriptions.reopen({ ...forwarded, generation }, signal);
}

/** Answers calls that were passed on only where the group is: else two replicas that err about it would pass them to and fro. */
export function createForwardedInterceptor(subscriptions: Pick<Subscriptions, "holds">): Interceptor {
  return (next) => async (request) => {
    if (request.header.has(FORWARDED) && !request.stream) {
      const { message } = request;
      const id: unknown = "subscriptionId" in message ? message.subscriptionId : undefined;
      assertHeld(String(id), subscriptions);
    }
    return await next(request);
  };
}

/** @throws FeedError SUBSCRIPTION_BUSY */
export function assertHeld(id: string, subscriptions: Pick<Subscriptions, "holds">): void {
  if (!subscriptions.holds(id)) {
    throw new FeedError(
      "SUBSCRIPTION_BUSY",
      `Group "${id}" was looked for on a replica that does not hold it any more.`,
      "Try again in a moment.",
      { retryAfterMs: 500 },
    );
  }
}

function finite(value: number | undefined): number | undefined {
  return value === Number.POSITIVE_INFINITY ? undefined : value;
}

function count(value: unknown): number | undefined {
  return typeof value === "number" && Number.isFinite(value) && value >= 0 ? value : undefined;
}
