import type { Version } from "../event.ts";
import type { Feed, OpenStream } from "../feed.ts";
import type { GroupWait } from "../group/group-limits.ts";
import type { Clock, Service, Timers } from "../ports.ts";
import type {
  DeadLetterFilter,
  SubscriptionRecord,
  SubscriptionState,
  SubscriptionStore,
} from "./subscription-store.ts";
import type { Acknowledged, Acknowledgement, Consumer } from "./subscriptions.ts";

/** What groups work with. */
export interface GroupsOptions {
  /**
   * Opens the one stream that is dealt out to the members. Its `closing` (DRAINING, …) and its errors (EPOCH_CHANGED when
   * another epoch comes into force, …) are the members' too.
   */
  readonly feed: Pick<Feed, "open" | "status" | "locate" | "recognise">;
  readonly store: SubscriptionStore;
  readonly clock: Clock;
  readonly timers: Timers;
  /** This feed, as `Claimant.replica`. */
  readonly replica: string;
  /** Where other replicas reach it; `undefined` when they cannot. */
  readonly url: string | undefined;
  /** Told of failures that nobody else is told of. */
  readonly report: (message: string, error?: unknown) => void;
}

/**
 * The subscriptions of a feed that members share. `Subscriptions` decides what is a group's and hands it on; it has read the
 * record just before. Failures are `FeedError`s.
 */
export interface Groups extends Service {
  /**
   * A member's stream, whose `opened` has a lease with `member` and `maxInFlight`, and no stream id. Takes the group up, or
   * passes the member on to the replica that has it.
   *
   * @throws FeedError SUBSCRIPTION_BUSY, SUBSCRIPTION_PAUSED, HISTORY_LOST
   */
  open(consumer: Consumer, record: SubscriptionRecord, signal: AbortSignal): Promise<OpenStream>;

  /**
   * Goes on as the member of this generation, for members that come in pieces: what it has and did not acknowledge comes first.
   *
   * @throws FeedError SUBSCRIPTION_FENCED
   */
  reopen(
    consumer: Consumer & { readonly generation: number },
    record: SubscriptionRecord,
    signal: AbortSignal,
  ): Promise<OpenStream>;

  /** Resolves once it is durable. */
  acknowledge(acknowledgement: Acknowledgement, record: SubscriptionRecord, signal: AbortSignal): Promise<Acknowledged>;

  /** Has dead letters delivered again. */
  replayDeadLetters(
    record: SubscriptionRecord,
    filter: DeadLetterFilter,
    limit: number,
    signal: AbortSignal,
  ): Promise<{ readonly replaying: number; readonly remaining: number }>;

  /** Those of a group that are being delivered again, as far as this replica knows. */
  replaying(id: string): ReadonlySet<Version>;

  /** Somebody has discarded dead letters of a group, here: parked keys of which none is left flow again. */
  discarded(id: string): void;

  /** The groups that this replica holds: `Subscriptions` asks after them with its own, every few seconds and when hinted. */
  held(): readonly string[];

  /**
   * What the database says of a held group, or `undefined` when it is not there any more. PAUSED, DELETED, a newer generation
   * (MOVED when `movedGeneration` is newer than the one held, else TAKEN_OVER): the members' streams end with that. Called
   * with what nothing has become of, too.
   */
  observe(id: string, state: SubscriptionState | undefined): void;

  /** As `Subscriptions.drain`; and members of groups that are held here are told. */
  drain(graceMs: number): Promise<void>;

  /** For metrics. */
  stats(): GroupStats;
}

/** What the groups of a feed hold and have done; totals only rise. */
export interface GroupStats {
  readonly groups: number;
  readonly members: number;
  readonly inFlight: number;
  /** Totals of events. */
  readonly acknowledged: number;
  readonly redelivered: number;
  readonly deadLetters: number;
  /** Total of acknowledgements that came too late. */
  readonly fenced: number;
  /** Groups that give nothing new out, by the reason. */
  readonly waiting: Readonly<Partial<Record<GroupWait, number>>>;
}
