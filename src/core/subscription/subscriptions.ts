import type { Version } from "../event.ts";
import type { OpenStream, Start, StreamRequest } from "../feed.ts";
import type { Service } from "../ports.ts";
import type { GroupStats } from "./group-consumers.ts";
import type {
  DeadLetter,
  DeadLetterFilter,
  Listed,
  NewSubscription,
  PageOf,
  SubscriptionFilter,
  SubscriptionRecord,
  SubscriptionSummary,
} from "./subscription-store.ts";

/** How a group works. */
export interface GroupTerms {
  /** Most events that a member may have without having acknowledged them. */
  readonly maxInFlight: number;
  /** After so long without an acknowledgement an event is delivered again. */
  readonly ackDeadlineMs: number;
  /** Deliveries after which it becomes a dead letter. */
  readonly maxAttempts: number;
  /** What becomes of later events of a key that has a dead letter. */
  readonly deadLetterPolicy: "PARK" | "SKIP";
  readonly maxMembers: number;
}

/** What a subscription's stream delivers and how, as its definition says: all of a stream's request but where it begins. */
export interface SubscriptionTerms {
  readonly request: Omit<StreamRequest, "start" | "afterTransaction">;
  /** `undefined`: one consumer at a time. */
  readonly group: GroupTerms | undefined;
}

/** Who wants to consume a subscription. */
export interface Consumer {
  readonly id: string;
  /** In a group, a name; `undefined` for one that is made up. Means nothing otherwise. */
  readonly member: string | undefined;
  /**
   * In a group: it comes in pieces, as by Poll. Its membership then outlives each of its streams, until nothing is heard of it
   * for `ackDeadlineMs`; otherwise it ends with the stream, and what was given to it goes to others at once. Default false.
   */
  readonly inPieces?: boolean | undefined;
  /** From the definition, for this call: deadline, peer, codec. */
  readonly terms: (record: SubscriptionRecord) => SubscriptionTerms;
}

/** What a consumer says about what it was given. */
export interface Acknowledgement {
  readonly id: string;
  /** 0 without a group: whoever has it. */
  readonly generation: number;
  readonly member: string | undefined;
  /** Text of a cursor: everything up to it. */
  readonly cursor: string | undefined;
  /** Single events; of a group. */
  readonly versions: readonly Version[];
  /** Of a group. */
  readonly rejections: readonly Rejection[];
}

/** An event that a member could not process. */
export interface Rejection {
  readonly version: Version;
  readonly reason: string;
  /** It becomes a dead letter now. */
  readonly giveUp: boolean;
}

/** Where the subscription stands once it is durable. */
export interface Acknowledged {
  readonly cursor: string;
  readonly version: Version;
  /** In a group, how many events were this member's to acknowledge. */
  readonly accepted: number;
}

/** What the subscriptions of a feed have done, for metrics; totals only rise as long as it lives. */
export interface SubscriptionStats {
  /** Streams of subscriptions without group, at the moment. */
  readonly streams: number;
  /** Total of acknowledgements that are durable. */
  readonly acknowledgements: number;
  /** Total of events that were delivered again. */
  readonly redelivered: number;
  /** Total of what came too late: acknowledgements, and streams that were taken over. */
  readonly fenced: number;
  /** Total of writes that carried all that. */
  readonly flushes: number;
  /** `undefined` where there are no groups. */
  readonly groups: GroupStats | undefined;
}

/** Durable subscriptions over a feed and a store of their own. One for each feed; failures are `FeedError`s. */
export interface Subscriptions extends Service {
  create(
    subscription: Omit<NewSubscription, "position">,
    start: Start,
    signal: AbortSignal,
  ): Promise<{ readonly record: SubscriptionRecord; readonly existed: boolean }>;
  get(id: string, signal: AbortSignal): Promise<SubscriptionRecord>;
  list(filter: SubscriptionFilter, page: PageOf, signal: AbortSignal): Promise<Listed<SubscriptionRecord>>;
  delete(id: string, signal: AbortSignal): Promise<SubscriptionRecord>;
  pause(id: string, paused: boolean, signal: AbortSignal): Promise<SubscriptionRecord>;
  seek(id: string, start: Start, signal: AbortSignal): Promise<SubscriptionRecord>;

  /**
   * Takes the subscription up: a stream whose `opened` has a lease, and whose events come after what was acknowledged. Ends with
   * `closing` when somebody else takes it over, or when it is paused, moved or deleted.
   */
  open(consumer: Consumer, signal: AbortSignal): Promise<OpenStream>;

  /**
   * Goes on as the consumer of this generation, without taking the subscription up anew: for consumers that come in pieces.
   * @throws FeedError SUBSCRIPTION_FENCED when it is not that generation's any more
   */
  reopen(consumer: Consumer & { readonly generation: number }, signal: AbortSignal): Promise<OpenStream>;

  /**
   * The server goes down: streams that come from another replica, which the feed's own `drain` knows nothing of, say so. Resolves
   * when they have ended, or the grace period is over.
   */
  drain(graceMs: number): Promise<void>;

  /** Whether this process has the group at the moment. False for what is no group's. */
  holds(id: string): boolean;

  /** Resolves once it is durable. */
  acknowledge(acknowledgement: Acknowledgement, signal: AbortSignal): Promise<Acknowledged>;

  /** Answers from memory. */
  stats(): SubscriptionStats;
  /** All subscriptions in a few numbers, as of some seconds ago; `undefined` before the first look. Answers from memory. */
  summary(): SubscriptionSummary | undefined;

  deadLetters(
    id: string,
    filter: DeadLetterFilter,
    page: PageOf<Version>,
    signal: AbortSignal,
  ): Promise<Listed<DeadLetter & { readonly replaying: boolean }>>;
  replayDeadLetters(
    id: string,
    filter: DeadLetterFilter,
    limit: number,
    signal: AbortSignal,
  ): Promise<{ readonly replaying: number; readonly remaining: number }>;
  discardDeadLetters(
    id: string,
    filter: DeadLetterFilter,
    signal: AbortSignal,
  ): Promise<{ readonly discarded: number; readonly remaining: number }>;
}
