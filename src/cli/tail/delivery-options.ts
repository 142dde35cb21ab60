import { create } from "@bufbuild/protobuf";
import {
  type Delivery,
  DeliverySchema,
  type Policy,
  PolicyKind,
  PolicySchema,
} from "../../../gen/millrace/v1/feed_service_pb.js";
import { policyKinds } from "../../rpc/delivery-terms.ts";
import { usageFailure } from "../failure.ts";

/** How a tail wants its events, as its options say. */
export interface DeliveryOptions {
  readonly policy?: Policy;
  readonly maxLag?: number;
  readonly rate?: number;
}

/** The policies as `--policy` takes them. */
export const policyNames = "block, drop-oldest, drop-newest, latest, sample:N, disconnect";

/** Reads `--policy`: a name, and for `sample` of how many events one is kept. */
export function parsePolicy(text: string): Policy {
  const [, name = "", every] = /^([a-z-]+)(?::(\d+))?$/.exec(text.toLowerCase()) ?? [];
  const kind = policyKinds[name];
  const sampleEvery = Number(every ?? 0);
  const fits = every === undefined || (kind === PolicyKind.SAMPLE && sampleEvery >= 2 && sampleEvery < 2 ** 32);
  if (kind === undefined || !fits) {
    throw usageFailure(`\`${text}\` is no policy.`, `Give one of ${policyNames} (N at least 2).`);
  }
  return create(PolicySchema, { kind, sampleEvery });
}

/** What the request asks for; `undefined` when everything is as the server has it. */
export function deliveryFromOptions({ policy, maxLag, rate }: DeliveryOptions): Delivery | undefined {
  if (policy === undefined && rate === undefined) {
    if (maxLag !== undefined) {
      throw usageFailure("--max-lag means nothing without --policy.", "Say what is to be done with that lag.");
    }
    return undefined;
  }
  return create(DeliverySchema, {
    maxEventsPerSecond: rate ?? 0,
    ...(policy === undefined ? {} : { policy: { ...policy, maxLagEvents: BigInt(maxLag ?? 0) } }),
  });
}
