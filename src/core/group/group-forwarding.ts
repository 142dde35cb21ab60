import type { OpenStream } from "../feed.ts";
import type { DeadLetterFilter } from "../subscription/subscription-store.ts";
import type { Acknowledged, Acknowledgement, Consumer, SubscriptionTerms } from "../subscription/subscriptions.ts";

/** A member that is passed on. */
export interface ForwardedMember extends Pick<Consumer, "id" | "member" | "inPieces"> {
  /** Of one that comes again; `undefined` for one that joins. */
  readonly generation: number | undefined;
  readonly request: SubscriptionTerms["request"];
}

/**
 * The way to groups that other replicas hold, by the address that they gave with their claim. Failures are the other replica's
 * `FeedError`s; SUBSCRIPTION_BUSY when it cannot be reached, or does not hold the group itself: nothing is passed on twice.
 */
export interface GroupForwarding {
  /** Streams that are open. */
  readonly streams: number;
  /** This server goes down: its members' streams say so, and end. */
  drain(retryAfterMs: number): void;
  open(url: string, member: ForwardedMember, signal: AbortSignal): Promise<OpenStream>;
  acknowledge(url: string, acknowledgement: Acknowledgement, signal: AbortSignal): Promise<Acknowledged>;
  replayDeadLetters(
    url: string,
    id: string,
    filter: DeadLetterFilter,
    limit: number,
    signal: AbortSignal,
  ): Promise<{ readonly replaying: number; readonly remaining: number }>;
}
