import type { Version } from "../../../src/core/event.ts";
import type {
  NewSubscription,
  StoredPosition,
  SubscriptionStore,
} from "../../../src/core/subscription/subscription-store.ts";

/** Two replicas over one history, which the test moves on. */
export interface SubscriptionWorld extends AsyncDisposable {
  readonly a: SubscriptionStore;
  readonly b: SubscriptionStore;
  readonly epoch: string;
  /** Settles so many events, each in a tick of its own. Resolves with the last version. */
  settle(events: number): Promise<Version>;
  /** Forgets what is older, cap or no cap. */
  retainFrom(version: Version): Promise<void>;
  /** Lets so much time pass, and does what is done at times. */
  pass(ms: number): Promise<void>;
  /** A new epoch that shares with the present one the versions up to this one. `a`, `b` and `epoch` are of it from then on. */
  fork(version: Version): Promise<void>;
}

export const never = new AbortController().signal;

/** A position, with a cursor that tells it from others. */
export function at(version: Version, { epoch }: Pick<SubscriptionWorld, "epoch">, place = ""): StoredPosition {
  return { epoch, version, cursor: `cursor-${version}${place}` };
}

/** A subscription that begins after version 0, unless told otherwise. */
export function subscription(
  id: string,
  world: Pick<SubscriptionWorld, "epoch">,
  rest: Partial<NewSubscription> = {},
): NewSubscription {
  return {
    id,
    definition: '{"selectors":[]}',
    isGroup: false,
    topics: [],
    owner: "",
    labels: {},
    expireAfterMs: undefined,
    position: at(0, world),
    ...rest,
  };
}

/** A replica that others can reach, or cannot. */
export function claimant(replica: string, url?: string) {
  return { replica, url, leaseMs: 30_000 };
}
