import type { FeedLimits } from "../../src/core/feed/feed-limits.ts";
import type { StreamRequest } from "../../src/core/feed.ts";
import type { Policy, PolicyKind } from "../../src/core/policy/policy.ts";
import type { Terms } from "../support/checker/story.ts";
import type { Random } from "../support/workload/random.ts";
import type { Appetite } from "./outlet.ts";
import { FAST } from "./outlet.ts";
import type { ReplicaOptions } from "./replica.ts";
import type { TimeOptions } from "./virtual-time.ts";
import { measure, sizeOf, WANTS, type Want } from "./wants.ts";

/** What a world is like: chosen by its seed, before anything happens in it. */
export interface WorldOptions {
  readonly time: TimeOptions;
  readonly replica: ReplicaOptions;
  readonly latencyMs: number;
  readonly pageEvents: number;
  readonly failing: number;
  /** Milliseconds between two happenings, on average. */
  readonly paceMs: number;
  readonly clients: number;
  /** Old history is forgotten; otherwise the database is put back to earlier moments. */
  readonly forgets: boolean;
}

/** One of these. */
export function pick<T>(random: Random, from: readonly [T, ...T[]]): T {
  return from[random.below(from.length)] ?? from[0];
}

export function chooseWorld(random: Random): WorldOptions {
  const limits: Partial<FeedLimits> = {
    logMaxBytes: pick(random, [1, 2_000, 20_000, 1_000_000]),
    warmBytes: pick(random, [0, 1_000, 1_000_000]),
    maxReads: pick(random, [1, 2, 4]),
    historyCacheBytes: pick(random, [0, 5_000, 1_000_000]),
    maxLaneBytes: pick(random, [200, 5_000, 1_000_000]),
    maxLanesBytes: pick(random, [500, 20_000, 1_000_000]),
  };
  return {
    time: {
      lateMs: pick(random, [0, 1, 5]),
      turnMs: pick(random, [0, 0.05, 0.5]),
      lookMs: pick(random, [0, 0, 0.01, 0.2]),
    },
    replica: {
      limits,
      staleAfterMs: pick(random, [500, 2_000]),
      maxStreamAgeMs: pick(random, [0, 0, 4_000, 30_000]),
    },
    latencyMs: pick(random, [0.2, 2, 20]),
    pageEvents: pick(random, [1, 5, 40, 400]),
    failing: pick(random, [0, 0, 0.05, 0.3]),
    paceMs: pick(random, [0.5, 3, 20]),
    clients: 4 + random.below(40),
    forgets: random.chance(0.6),
  };
}

const KINDS: readonly [PolicyKind, ...PolicyKind[]] = [
  "BLOCK",
  "BLOCK",
  "BLOCK",
  "DROP_OLDEST",
  "DROP_NEWEST",
  "LATEST",
  "SAMPLE",
  "DISCONNECT",
];

/** What one client asks for. */
export interface Wish {
  readonly want: Want;
  readonly request: Omit<StreamRequest, "start">;
  readonly terms: Terms;
}

export function chooseWish(random: Random): Wish {
  const want = WANTS[random.below(WANTS.length)] ?? WANTS[0];
  if (want === undefined) {
    throw new Error("nothing is wanted");
  }
  const policy: Policy = {
    kind: pick(random, KINDS),
    maxLagEvents: pick(random, [1, 10, 60, 400]),
    sampleEvery: pick(random, [2, 3, 7]),
  };
  const everyTick = random.chance(0.15);
  const maxBatchEvents = pick(random, [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY, 1, 3, 10]);
  const maxBatchBytes = pick(random, [1_000_000, 1_000_000, 300]);
  const request = {
    selectors: want.selectors,
    checkpointIntervalMs: pick(random, [100, 1_000, 15_000]),
    maxBatchBytes,
    maxBatchEvents,
    codec: { identity: "simulated", measure },
    policy,
    maxEventsPerSecond: random.chance(0.12) ? pick(random, [40, 300, 2_000]) : undefined,
    checkpointEveryTick: everyTick,
    maxBatchDelayMs: random.chance(0.2) ? pick(random, [10, 150]) : 0,
    afterTransaction: undefined,
    deadlineMs: undefined,
  };
  return { want, request, terms: { selection: want, policy, everyTick, maxBatchEvents, maxBatchBytes, sizeOf } };
}

export function chooseAppetite(random: Random): Appetite {
  const kind = random.next();
  if (kind < 0.5) {
    return FAST;
  }
  if (kind < 0.75) {
    return { capacity: 1 + random.below(4), takesMs: pick(random, [0.5, 5, 60]) };
  }
  if (kind < 0.9) {
    return { capacity: 5 + random.below(60), takesMs: pick(random, [50, 700, 5_000]) };
  }
  return { capacity: 1 + random.below(5), takesMs: Number.POSITIVE_INFINITY };
}
