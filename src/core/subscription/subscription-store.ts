import type { Event, Transition, Version } from "../event.ts";

/**
 * What durable subscriptions ask of a database. `src/postgres` and `src/memory` implement it, and one contract suite holds both
 * to the same meaning. Failures are `FeedError`s: SUBSCRIPTION_NOT_FOUND for a name that is not there, DATABASE_UNAVAILABLE.
 *
 * What it holds claims history: every subscription that is ACTIVE or PAUSED needs the events after its `version`, up to the
 * cap of retention. One of which something is gone is LOST from then on, until it is moved.
 */
export interface SubscriptionStore {
  /**
   * @returns the record, and whether it was there before with the same definition, owner, labels and expiry
   * @throws FeedError SUBSCRIPTION_EXISTS, HISTORY_LOST when its position is not kept any more, EPOCH_CHANGED when it is one of
   * an unrelated history, INVALID_REQUEST for what cannot be stored
   */
  create(
    subscription: NewSubscription,
    signal: AbortSignal,
  ): Promise<{ readonly record: SubscriptionRecord; readonly existed: boolean }>;

  get(id: string, signal: AbortSignal): Promise<SubscriptionRecord>;

  /** In the order of ids (by code point), those after `after`. */
  list(filter: SubscriptionFilter, page: PageOf, signal: AbortSignal): Promise<Listed<SubscriptionRecord>>;

  /** @returns what it was */
  delete(id: string, signal: AbortSignal): Promise<SubscriptionRecord>;

  pause(id: string, paused: boolean, signal: AbortSignal): Promise<SubscriptionRecord>;

  /**
   * Moves it, also back, and ends LOST; forgets `delivered` and `progress`, and raises the generation: what the older one says
   * is fenced.
   *
   * @throws FeedError HISTORY_LOST when the position is not kept any more, EPOCH_CHANGED when it is one of an unrelated history
   */
  seek(id: string, position: StoredPosition, signal: AbortSignal): Promise<SubscriptionRecord>;

  /**
   * Raises the generation: from then on the claimant alone may say something about it. Of a group, only when no other replica
   * holds it: what is not renewed within `leaseMs` has ended, and what somebody with the claimant's own `url` held has too.
   *
   * @throws FeedError SUBSCRIPTION_PAUSED, HISTORY_LOST when it is LOST
   */
  claim(id: string, claimant: Claimant, signal: AbortSignal): Promise<Claim>;

  /**
   * Writes what many subscriptions have come to, in one transaction and a number of statements that does not depend on how many
   * there are. The outcomes are in the order of the advances. Of several for the same subscription each sees what those before
   * it did, at the cost of further statements.
   */
  advance(advances: readonly Advance[], signal: AbortSignal): Promise<readonly AdvanceOutcome[]>;

  /**
   * Renews the claims of groups, and says of every subscription that somebody still waits for its events: only that keeps one
   * from expiring while nothing is delivered. All at once; for those without a group every 20 seconds is enough.
   *
   * @returns those that are somebody else's by now, or gone
   */
  renew(held: readonly HeldClaim[], leaseMs: number, signal: AbortSignal): Promise<readonly string[]>;

  /** Gives claims of groups up, so that nobody waits for their end. */
  release(held: readonly HeldClaim[], signal: AbortSignal): Promise<void>;

  /** By version. They outlive `seek`, and go with the subscription. */
  deadLetters(
    id: string,
    filter: DeadLetterFilter,
    page: PageOf<Version>,
    signal: AbortSignal,
  ): Promise<Listed<DeadLetter>>;

  /** @returns how many there were, and how many are left */
  discardDeadLetters(
    id: string,
    filter: DeadLetterFilter,
    signal: AbortSignal,
  ): Promise<{ readonly discarded: number; readonly remaining: number }>;

  /**
   * Calls the listener when somebody may have claimed, released, paused, moved or deleted a subscription, or discarded dead
   * letters of it: a hint that may come too often, late, or never. `undefined` when it may be any of them.
   */
  onChange(listener: (id: string | undefined) => void): () => void;

  /** Of many at once, what a holder must know: those that are not there are left out. */
  states(ids: readonly string[], signal: AbortSignal): Promise<readonly SubscriptionState[]>;

  /** Of all of them, for metrics and readiness. */
  summary(signal: AbortSignal): Promise<SubscriptionSummary>;
}

/** A position as it is kept. */
export interface StoredPosition {
  /** Text of the cursor. */
  readonly cursor: string;
  /** Its epoch and version. */
  readonly epoch: string;
  readonly version: Version;
}

/** A subscription to be. */
export interface NewSubscription {
  /** See `isSubscriptionId`. Whoever asks for another is told that there is no such subscription. */
  readonly id: string;
  /** What it delivers and how, as whoever reads it again wrote it. */
  readonly definition: string;
  /** Whether members share it. */
  readonly isGroup: boolean;
  /** Topic patterns of its selectors, for lists; empty when one of them takes every topic. */
  readonly topics: readonly string[];
  /** Empty for nobody's. */
  readonly owner: string;
  readonly labels: Readonly<Record<string, string>>;
  /** `undefined` for never. */
  readonly expireAfterMs: number | undefined;
  readonly position: StoredPosition;
}

/** One subscription. */
export interface SubscriptionRecord extends Omit<NewSubscription, "position"> {
  readonly state: "ACTIVE" | "PAUSED" | "LOST";
  /** Everything up to here is acknowledged. */
  readonly position: StoredPosition;
  readonly generation: number;
  /** Milliseconds since the Unix epoch, as are all times here. */
  readonly createdAtMs: number;
  readonly lastUsedAtMs: number;
  /** `undefined` for never. */
  readonly expiresAtMs: number | undefined;
  readonly deadLetters: number;
  /** Of a LOST one: the oldest version that is still there. */
  readonly oldestVersion: Version | undefined;
}

/** Which subscriptions to list; those that pass all of it. */
export interface SubscriptionFilter {
  /** Only those with a pattern that could match this topic. */
  readonly topic?: string | undefined;
  readonly owner?: string | undefined;
  /** All of these. */
  readonly labels?: Readonly<Record<string, string>> | undefined;
}

/** A page of a list. */
export interface PageOf<Key = string> {
  readonly limit: number;
  readonly after: Key | undefined;
}

/** One page. */
export interface Listed<T> {
  readonly items: readonly T[];
  /** Of all pages. */
  readonly total: number;
  /** Whether something follows. */
  readonly more: boolean;
}

/** Who takes a subscription up. */
export interface Claimant {
  /** A feed in one process. */
  readonly replica: string;
  /** Where other replicas reach it; `undefined` when they cannot. */
  readonly url: string | undefined;
  /** How long a group is held without being renewed. Means nothing to others. */
  readonly leaseMs: number;
}

/** What came of a claim. */
export type Claim =
  | {
      readonly kind: "claimed";
      readonly record: SubscriptionRecord;
      readonly delivered: readonly DeliveredUpTo[];
      /** As `Advance.progress` was last. */
      readonly progress: string | undefined;
    }
  | {
      /** A group that another replica holds. */
      readonly kind: "held";
      readonly record: SubscriptionRecord;
      readonly holder: Claimant & { readonly untilMs: number };
    };

/** Events up to this version, and after the one before in the list, were delivered so often. */
export interface DeliveredUpTo {
  readonly version: Version;
  readonly attempts: number;
}

/** What one subscription has come to. What is left out stays as it is. */
export interface Advance {
  readonly id: string;
  /** Of the one who says it; 0 for anybody, who can only move the position forward: the rest of what he says is ignored. */
  readonly generation: number;
  /**
   * Everything up to here is acknowledged. A position behind the one that is kept changes nothing, those of two epochs being
   * compared by what they mean in the epoch in force. One that is beyond what was LOST ends that.
   */
  readonly position?: StoredPosition | undefined;
  /** Ascending; of what lies after the position. */
  readonly delivered?: readonly DeliveredUpTo[] | undefined;
  /** A group's acknowledged ranges, attempts and parked keys, as the group writes them. */
  readonly progress?: string | undefined;
  /** To be added, or to take the place of those of the same version. */
  readonly deadLetters?: readonly NewDeadLetter[] | undefined;
  /** Versions of dead letters that were acknowledged after all. */
  readonly settledDeadLetters?: readonly Version[] | undefined;
}

/** What came of an advance. FENCED: somebody of a newer generation has it; the rest of the advance was dropped. */
export type AdvanceOutcome =
  | { readonly kind: "advanced"; readonly position: StoredPosition }
  | { readonly kind: "fenced"; readonly generation: number }
  | { readonly kind: "gone" };

/** A claim that a replica believes to hold. */
export interface HeldClaim {
  readonly id: string;
  readonly generation: number;
}

/** An event that was given up: history may forget it, so all of it is here. */
export interface NewDeadLetter extends Omit<Event, "transition" | "origin" | "attempt"> {
  readonly transition: Transition | undefined;
  /** Deliveries; 0 when it was parked behind another of its key. */
  readonly attempts: number;
  readonly reason: string;
}

/** One that is kept. */
export interface DeadLetter extends NewDeadLetter {
  readonly deadAtMs: number;
}

/** Of a dead letter, both when both are given. */
export interface DeadLetterFilter {
  readonly versions?: readonly Version[] | undefined;
  readonly key?: string | undefined;
}

/** As much of a subscription as decides whether its streams go on. */
export interface SubscriptionState {
  readonly id: string;
  readonly state: SubscriptionRecord["state"];
  readonly generation: number;
  /** The generation that the last `seek` raised it to; 0 when it was never moved. */
  readonly movedGeneration: number;
}

/** All subscriptions in a few numbers. */
export interface SubscriptionSummary {
  readonly active: number;
  readonly paused: number;
  /** Those that are LOST, at most a hundred of them by name. */
  readonly lost: readonly string[];
  readonly lostCount: number;
  readonly deadLetters: number;
  /** The least position of all that are not LOST, in the epoch in force; `undefined` when there is none. */
  readonly oldestVersion: Version | undefined;
}
