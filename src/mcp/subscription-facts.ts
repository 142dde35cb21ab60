import { z } from "zod";
import { PayloadForm } from "../../gen/millrace/v1/event_pb.js";
import { type Subscription, SubscriptionState } from "../../gen/millrace/v1/subscription_service_pb.js";
import { isoTime } from "./event-facts.ts";
import { otherLabels, pollingTermsOf, rememberedOf } from "./polling-terms.ts";
import { selectorFactsFrom, selectorSchema, selectorsText } from "./selector-facts.ts";

/** A subscription as programs get it. */
export const subscriptionSchema = z.object({
  subscription_id: z.string(),
  state: z.string().describe("ACTIVE, PAUSED, or LOST: something that it had not acknowledged is gone"),
  selectors: z.array(selectorSchema).describe("What it delivers: the union. Empty: everything"),
  shortened: z.boolean().optional().describe("Something of `selectors` is too long to be shown"),
  include_data: z.boolean(),
  owner: z.string(),
  labels: z.record(z.string(), z.string()),
  polling_interval_seconds: z.number(),
  batch_size: z.number().int(),
  cursor: z.string().describe("Everything up to here is acknowledged"),
  version: z.number().int().describe("Version of `cursor`"),
  lag_versions: z.number().int().optional().describe("Versions behind the newest; absent when unknown"),
  group: z.boolean().describe("Several members share it"),
  dead_letters: z.number().int(),
  created_at: z.string().optional(),
  last_used_at: z.string().optional(),
  expires_at: z.string().optional().describe("When it is deleted if nobody uses it; absent: never"),
  oldest_version: z.number().int().optional().describe("In LOST, the oldest version that is still there"),
});

/** One subscription, for programs. */
export type SubscriptionFacts = z.output<typeof subscriptionSchema>;

/** What the wire says of it. */
export function subscriptionFactsFrom(subscription: Subscription): SubscriptionFacts {
  const { createdAt, lastUsedAt, expiresAt, lagVersions, oldestVersion } = subscription;
  const { intervalSeconds, batchSize } = pollingTermsOf(rememberedOf(subscription));
  const { selectors, shortened } = selectorFactsFrom(subscription.selectors);
  return {
    subscription_id: subscription.subscriptionId,
    state: SubscriptionState[subscription.state],
    selectors,
    ...(shortened ? { shortened } : {}),
    include_data: subscription.payloadForm !== PayloadForm.NONE,
    owner: subscription.owner,
    labels: otherLabels(subscription.labels),
    polling_interval_seconds: intervalSeconds,
    batch_size: batchSize,
    cursor: subscription.cursor,
    version: Number(subscription.version),
    ...(lagVersions === undefined ? {} : { lag_versions: Number(lagVersions) }),
    group: subscription.group !== undefined,
    dead_letters: Number(subscription.deadLetters),
    ...(createdAt === undefined ? {} : { created_at: isoTime(createdAt) }),
    ...(lastUsedAt === undefined ? {} : { last_used_at: isoTime(lastUsedAt) }),
    ...(expiresAt === undefined ? {} : { expires_at: isoTime(expiresAt) }),
    ...(oldestVersion === undefined ? {} : { oldest_version: Number(oldestVersion) }),
  };
}

/** A subscription in three or four lines. */
export function subscriptionText(facts: SubscriptionFacts): string {
  const lag = facts.lag_versions === undefined ? "lag unknown" : `${facts.lag_versions} versions behind`;
  const delivers = [
    `  delivers ${selectorsText(facts.selectors)}`,
    ...(facts.shortened === true ? ["and more that is too long for this list"] : []),
    ...(facts.include_data ? [] : ["without the rows"]),
  ];
  const about = [
    `  owner ${facts.owner === "" ? "nobody" : facts.owner}`,
    ...Object.entries(facts.labels).map(([name, value]) => `${name}=${value}`),
    ...(facts.group ? ["a group"] : []),
    ...(facts.dead_letters === 0 ? [] : [`${facts.dead_letters} dead letters`]),
    facts.expires_at === undefined ? "kept until deleted" : `deleted at ${facts.expires_at} if nobody uses it`,
  ];
  return [
    `${facts.subscription_id} ${facts.state}, at version ${facts.version}, ${lag}`,
    delivers.join(", "),
    about.join("; "),
    ...(facts.oldest_version === undefined
      ? []
      : [`  LOST: what lay before version ${facts.oldest_version} is gone; unsubscribe, and subscribe again`]),
  ].join("\n");
}
