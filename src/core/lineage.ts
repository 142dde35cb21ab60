import { FeedError } from "./errors.ts";
import type { Version } from "./event.ts";
import type { FeedStore } from "./ports.ts";

/**
 * A restore, a failover or a copy begins a new epoch: it takes over the versions of its parent up to the fork, and goes on
 * from there with events of its own. So a version means the same in two epochs of one lineage up to the lowest fork on the
 * way between them, and nothing beyond it.
 */
export interface Ancestor {
  /** UUID. */
  readonly epoch: string;
  /** The last version that its successor took over from it; its successor is the entry before, or the epoch in force. */
  readonly forkVersion: Version;
}

/** The epoch in force and all that it descends from, newest first. */
export interface Lineage {
  readonly epoch: string;
  readonly lineage: readonly Ancestor[];
}

/** A position as a client names it. */
export interface EpochPosition {
  /** UUID; `undefined` or empty for the epoch in force, whichever that is. */
  readonly epoch: string | undefined;
  readonly version: Version;
}

/**
 * What a store rejects with once the database does not continue the epoch that it was opened in: another replica has begun
 * a new one, another server or another state of the data stands at the address. Nothing that waits for this epoch can go
 * on; whoever opened the store opens another.
 */
export class EpochOver extends FeedError {
  constructor(message: string, options: { readonly cause?: unknown } = {}) {
    super(
      "EPOCH_CHANGED",
      message,
      "Reconnect with the last cursor: it goes on, or the error says from where.",
      options,
    );
    this.name = "EpochOver";
  }
}

/** The last version that an epoch shares with the one in force, infinity for itself; `undefined` when it is no ancestor. */
export function sharedVersion(inForce: Lineage, epoch: string): Version | undefined {
  if (epoch === inForce.epoch) {
    return Number.POSITIVE_INFINITY;
  }
  let shared = Number.POSITIVE_INFINITY;
  for (const ancestor of inForce.lineage) {
    shared = Math.min(shared, ancestor.forkVersion);
    if (ancestor.epoch === epoch) {
      return shared;
    }
  }
  return undefined;
}

/** What a position is held against. */
export interface EpochContext {
  readonly store: Pick<FeedStore, "epoch" | "lineage" | "bounds">;
  /** `head` is for what errors tell. */
  readonly log: { readonly head: Version };
}

/**
 * Makes sure that a position of whatever epoch means the same in the epoch in force.
 *
 * @throws FeedError EPOCH_CHANGED, with the fork when the position lies above it, without for an epoch that is no ancestor
 * @throws EpochOver when the epoch is one that another replica has begun
 */
export async function assertShared(position: EpochPosition, context: EpochContext, signal: AbortSignal): Promise<void> {
  const { epoch, version } = position;
  if (epoch === undefined || epoch === "") {
    return;
  }
  const { store, log } = context;
  const shared = await sharedInForce(epoch, context, signal);
  if (shared === undefined) {
    throw new FeedError(
      "EPOCH_CHANGED",
      `The position belongs to epoch ${epoch}, and the history in force, ${store.epoch}, does not descend from it.`,
      "Start again from `snapshot` or `oldest`: positions of unrelated epochs mean nothing to each other.",
      { epoch: store.epoch, headVersion: log.head },
    );
  }
  if (version > shared) {
    throw new FeedError(
      "EPOCH_CHANGED",
      `Version ${version} of epoch ${epoch} is no part of the history in force, ${store.epoch}: the two are the same up to version ${shared} and differ after it.`,
      discardAfter(shared),
      { epoch: store.epoch, headVersion: log.head, forkVersion: shared },
    );
  }
}

/**
 * Makes sure that a transaction can be waited for: their ids mean something in one epoch only.
 *
 * @throws FeedError EPOCH_CHANGED
 * @throws EpochOver when the epoch is one that another replica has begun
 */
export async function assertSameEpoch(epoch: string, context: EpochContext, signal: AbortSignal): Promise<void> {
  const { store, log } = context;
  if (epoch === store.epoch) {
    return;
  }
  const shared = await sharedInForce(epoch, context, signal);
  throw new FeedError(
    "EPOCH_CHANGED",
    `The transaction was written in epoch ${epoch}, and the history in force is ${store.epoch}, which may have lost it.`,
    "Look whether what was written is there, and leave `after_transaction` out.",
    { epoch: store.epoch, headVersion: log.head, ...(shared === undefined ? {} : { forkVersion: shared }) },
  );
}

/** An epoch that this store has not heard of may have been begun by another replica just now: only the database knows. */
async function sharedInForce(
  epoch: string,
  { store }: EpochContext,
  signal: AbortSignal,
): Promise<Version | undefined> {
  const shared = sharedVersion(store, epoch);
  if (shared === undefined) {
    await store.bounds(signal);
  }
  return shared;
}

/** What the streams of an epoch end with when another, with this last version, has come into force. */
export function epochChanged(ended: string, inForce: Lineage, head: Version): FeedError {
  const shared = sharedVersion(inForce, ended);
  const { epoch } = inForce;
  if (shared === undefined) {
    return new FeedError(
      "EPOCH_CHANGED",
      `Epoch ${ended} has ended: the history in force, ${epoch}, does not descend from it.`,
      "Start again from `snapshot` or `oldest`.",
      { epoch, headVersion: head },
    );
  }
  return new FeedError(
    "EPOCH_CHANGED",
    `Epoch ${ended} has ended: the history in force, ${epoch}, is the same up to version ${shared} and differs after it.`,
    `Reconnect with the last cursor, which goes on at or below version ${shared}. ${discardAfter(shared)}`,
    { epoch, headVersion: head, forkVersion: shared },
  );
}

function discardAfter(version: Version): string {
  return `Discard what came after version ${version} and go on from there, or start again from \`snapshot\`.`;
}
