import { FeedError } from "../errors.ts";
import type { Version } from "../event.ts";
import type { Lineage } from "../lineage.ts";
import type { StoredPosition } from "./subscription-store.ts";

/** What every `SubscriptionStore` answers for a name that is not there. */
export function subscriptionNotFound(id: string): FeedError {
  return new FeedError(
    "SUBSCRIPTION_NOT_FOUND",
    `There is no subscription "${id}": it was never created, was deleted, or expired.`,
    "Create it, or list those that there are.",
  );
}

/** For a name that stands for something else. */
export function subscriptionExists(id: string): FeedError {
  return new FeedError(
    "SUBSCRIPTION_EXISTS",
    `There is a subscription "${id}" with another definition, owner, labels or expiry.`,
    "Ask for what it is, delete it first, or take another name.",
  );
}

/** For one that delivers nothing at present. */
export function subscriptionPaused(id: string): FeedError {
  return new FeedError("SUBSCRIPTION_PAUSED", `Subscription "${id}" is paused.`, "Resume it.");
}

/** What is still there, for those who want more. */
export interface Kept {
  readonly epoch: string;
  readonly oldestVersion: Version;
  readonly headVersion: Version;
}

/** For one that lost history before it was acknowledged. */
export function subscriptionLost(id: string, version: Version, kept: Kept): FeedError {
  return new FeedError(
    "HISTORY_LOST",
    `Subscription "${id}" stands at version ${version}, and the oldest version that is kept is ${kept.oldestVersion}: what lies between is gone.`,
    "Seek it to where it is to go on: `oldest` accepts the loss.",
    kept,
  );
}

/** For a position to begin or go on at that history does not reach back to. */
export function positionNotKept(version: Version, kept: Kept): FeedError {
  return new FeedError(
    "HISTORY_LOST",
    `The events after version ${version} are not all kept: the oldest version is ${kept.oldestVersion}.`,
    "Begin at `snapshot` to get the state and go on from there, or at `oldest` to accept the loss.",
    kept,
  );
}

/** For a position of a history that this one does not descend from. */
export function positionUnrelated(position: StoredPosition, inForce: Pick<Lineage, "epoch">): FeedError {
  return new FeedError(
    "EPOCH_CHANGED",
    `The position belongs to epoch ${position.epoch}, and the history in force, ${inForce.epoch}, does not descend from it.`,
    "Begin at `snapshot` or `oldest`: positions of unrelated epochs mean nothing to each other.",
    { epoch: inForce.epoch },
  );
}
