import { create } from "@bufbuild/protobuf";
import { type Duration, durationFromMs } from "@bufbuild/protobuf/wkt";
import {
  BatchSchema,
  type Delivery,
  DeliverySchema,
  PolicyKind,
  PolicySchema,
  type Policy as WirePolicy,
} from "../../gen/millrace/v1/feed_service_pb.js";
import {
  DEFAULT_MAX_LAG_EVENTS,
  DEFAULT_SAMPLE_EVERY,
  type PolicyKind as Kind,
  type Policy,
} from "../core/policy/policy.ts";

/** How a stream delivers, every default filled in. */
export interface DeliveryTerms {
  readonly policy: Policy;
  /** `undefined` for as many as fit. */
  readonly maxBatchEvents: number | undefined;
  /** With the envelope. */
  readonly maxBatchBytes: number;
  readonly maxBatchDelayMs: number;
  /** `undefined` for no limit. */
  readonly maxEventsPerSecond: number | undefined;
  readonly checkpointEveryTick: boolean;
  readonly checkpointIntervalMs: number;
}

/** What the server gives to those who do not ask. */
export interface DeliveryDefaults {
  readonly maxMessageBytes: number;
  readonly checkpointIntervalMs: number;
}

/** Large enough to spread the cost of a message over many events, small enough that streams take turns. */
const MAX_BATCH_BYTES = 1_048_576;

/** The policies by the names that people type: in options of the command line and in URLs. */
export const policyKinds: Readonly<Record<string, PolicyKind>> = {
  block: PolicyKind.BLOCK,
  "drop-oldest": PolicyKind.DROP_OLDEST,
  "drop-newest": PolicyKind.DROP_NEWEST,
  latest: PolicyKind.LATEST,
  sample: PolicyKind.SAMPLE,
  disconnect: PolicyKind.DISCONNECT,
};

const numbers: Readonly<Record<Kind, PolicyKind>> = {
  BLOCK: PolicyKind.BLOCK,
  DROP_OLDEST: PolicyKind.DROP_OLDEST,
  DROP_NEWEST: PolicyKind.DROP_NEWEST,
  LATEST: PolicyKind.LATEST,
  SAMPLE: PolicyKind.SAMPLE,
  DISCONNECT: PolicyKind.DISCONNECT,
};

const kinds: Readonly<Record<PolicyKind, Kind>> = {
  [PolicyKind.UNSPECIFIED]: "BLOCK",
  [PolicyKind.BLOCK]: "BLOCK",
  [PolicyKind.DROP_OLDEST]: "DROP_OLDEST",
  [PolicyKind.DROP_NEWEST]: "DROP_NEWEST",
  [PolicyKind.LATEST]: "LATEST",
  [PolicyKind.SAMPLE]: "SAMPLE",
  [PolicyKind.DISCONNECT]: "DISCONNECT",
};

/** What a request that passed validation and the server's defaults agree on. */
export function deliveryTerms(delivery: Delivery | undefined, defaults: DeliveryDefaults): DeliveryTerms {
  const { maxEvents = 0, maxBytes = 0, maxDelay } = delivery?.batch ?? {};
  const interval = delivery?.checkpointInterval;
  return {
    policy: policyFromWire(delivery?.policy),
    maxBatchEvents: orNone(maxEvents),
    maxBatchBytes: Math.min(maxBytes === 0 ? MAX_BATCH_BYTES : maxBytes, defaults.maxMessageBytes),
    maxBatchDelayMs: maxDelay === undefined ? 0 : milliseconds(maxDelay),
    maxEventsPerSecond: orNone(delivery?.maxEventsPerSecond ?? 0),
    checkpointEveryTick: delivery?.checkpointEveryTick ?? false,
    checkpointIntervalMs: interval === undefined ? defaults.checkpointIntervalMs : milliseconds(interval),
  };
}

/** The terms in force, as `opened` tells them. */
export function deliveryMessage(terms: DeliveryTerms): Delivery {
  const { kind, maxLagEvents, sampleEvery } = terms.policy;
  return create(DeliverySchema, {
    policy: create(PolicySchema, {
      kind: numbers[kind],
      ...(kind === "BLOCK" ? {} : { maxLagEvents: BigInt(maxLagEvents) }),
      ...(kind === "SAMPLE" ? { sampleEvery } : {}),
    }),
    batch: create(BatchSchema, {
      maxEvents: terms.maxBatchEvents ?? 0,
      maxBytes: terms.maxBatchBytes,
      maxDelay: durationFromMs(terms.maxBatchDelayMs),
    }),
    maxEventsPerSecond: terms.maxEventsPerSecond ?? 0,
    checkpointEveryTick: terms.checkpointEveryTick,
    checkpointInterval: durationFromMs(terms.checkpointIntervalMs),
  });
}

function policyFromWire(policy: WirePolicy | undefined): Policy {
  return {
    kind: kinds[policy?.kind ?? PolicyKind.UNSPECIFIED],
    maxLagEvents: orNone(Number(policy?.maxLagEvents ?? 0)) ?? DEFAULT_MAX_LAG_EVENTS,
    sampleEvery: orNone(policy?.sampleEvery ?? 0) ?? DEFAULT_SAMPLE_EVERY,
  };
}

function orNone(value: number): number | undefined {
  return value === 0 ? undefined : value;
}

/** Whole ones: `opened` tells them, and clients count on them. */
function milliseconds(duration: Duration): number {
  return Number(duration.seconds) * 1000 + Math.ceil(duration.nanos / 1e6);
}
