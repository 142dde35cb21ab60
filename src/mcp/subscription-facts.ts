import { z } from "zod";
import { Operation, PayloadForm } from "../../gen/millrace/v1/event_pb.js";
import type { Selector } from "../../gen/millrace/v1/selector_pb.js";
import { type Subscription, SubscriptionState } from "../../gen/millrace/v1/subscription_service_pb.js";
import type { ConsumerMemory, Remembered } from "./consumer-memory.ts";
import { isoTime } from "./event-facts.ts";

/** Where a subscription keeps what only these tools know of it. */
const labelNames = { pollingIntervalSeconds: "mcp.polling_interval_seconds", batchSize: "mcp.batch_size" } as const;

/** When nobody said how often to poll, or how much at once. */
export const pollingDefaults = { intervalSeconds: 10, batchSize: 50 } as const;

/** A subscription as programs get it. */
export const subscriptionSchema = z.object({
  subscription_id: z.string(),
  state: z.string().describe("ACTIVE, PAUSED, or LOST: something that it had not acknowledged is gone"),
  selectors: z
    .array(
      z.object({
        topics: z.array(z.string()).optional(),
        keys: z.array(z.string()).optional(),
        operations: z.array(z.string()).optional(),
        filter: z.string().optional(),
        fields: z.array(z.string()).optional(),
      }),
    )
    .describe("What it delivers: the union. Empty: everything"),
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

/** What a subscription keeps beside its labels, so that any replica, and any later agent, knows it. */
export function pollingLabels(intervalSeconds: number, batchSize: number): Readonly<Record<string, string>> {
  return { [labelNames.pollingIntervalSeconds]: String(intervalSeconds), [labelNames.batchSize]: String(batchSize) };
}

/** What is worth remembering of it. */
export function rememberedOf({ labels }: Subscription): Remembered {
  return {
    pollingIntervalSeconds: numberFrom(labels[labelNames.pollingIntervalSeconds]),
    batchSize: numberFrom(labels[labelNames.batchSize]),
  };
}

/** What the wire says of it. */
export function factsFrom(subscription: Subscription): SubscriptionFacts {
  const { createdAt, lastUsedAt, expiresAt, lagVersions, oldestVersion } = subscription;
  const remembered = rememberedOf(subscription);
  const hidden: readonly string[] = Object.values(labelNames);
  return {
    subscription_id: subscription.subscriptionId,
    state: SubscriptionState[subscription.state] ?? "UNSPECIFIED",
    selectors: subscription.selectors.map(selectorFacts),
    include_data: subscription.payloadForm !== PayloadForm.NONE,
    owner: subscription.owner,
    labels: Object.fromEntries(Object.entries(subscription.labels).filter(([name]) => !hidden.includes(name))),
    polling_interval_seconds: remembered.pollingIntervalSeconds ?? pollingDefaults.intervalSeconds,
    batch_size: remembered.batchSize ?? pollingDefaults.batchSize,
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

/** A subscription in two or three lines. */
export function subscriptionText(facts: SubscriptionFacts): string {
  const lag = facts.lag_versions === undefined ? "lag unknown" : `${facts.lag_versions} versions behind`;
  const labels = Object.entries(facts.labels).map(([name, value]) => `${name}=${value}`);
  return [
    `${facts.subscription_id} ${facts.state}, at version ${facts.version}, ${lag}`,
    `  delivers ${facts.selectors.length === 0 ? "everything" : facts.selectors.map(selectorText).join(" | ")}${
      facts.include_data ? "" : ", without the rows"
    }`,
    `  owner ${facts.owner === "" ? "nobody" : facts.owner}${labels.length === 0 ? "" : `; ${labels.join(", ")}`}${
      facts.group ? "; a group" : ""
    }${facts.dead_letters === 0 ? "" : `; ${facts.dead_letters} dead letters`}${
      facts.expires_at === undefined ? "; kept until deleted" : `; deleted at ${facts.expires_at} if nobody uses it`
    }`,
    ...(facts.oldest_version === undefined
      ? []
      : [`  LOST: what lay before version ${facts.oldest_version} is gone; unsubscribe, and subscribe again`]),
  ].join("\n");
}

/** How often and how much to poll, from memory, or from the subscription itself. */
export async function pollingOf(
  subscriptionId: string,
  memory: ConsumerMemory,
  ask: () => Promise<Subscription | undefined>,
): Promise<{ readonly intervalSeconds: number; readonly batchSize: number }> {
  let known = memory.get(subscriptionId);
  if (known === undefined || !("batchSize" in known)) {
    const subscription = await ask();
    if (subscription !== undefined) memory.add(subscriptionId, rememberedOf(subscription));
    known = memory.get(subscriptionId);
  }
  return {
    intervalSeconds: known?.pollingIntervalSeconds ?? pollingDefaults.intervalSeconds,
    batchSize: known?.batchSize ?? pollingDefaults.batchSize,
  };
}

function selectorFacts({ topics, keys, operations, filter, fields }: Selector): SubscriptionFacts["selectors"][number] {
  return {
    ...(topics.length === 0 ? {} : { topics }),
    ...(keys.length === 0 ? {} : { keys }),
    ...(operations.length === 0 ? {} : { operations: operations.map((operation) => Operation[operation]) }),
    ...(filter === "" ? {} : { filter }),
    ...(fields.length === 0 ? {} : { fields }),
  };
}

function selectorText(selector: SubscriptionFacts["selectors"][number]): string {
  const { topics, keys, operations, filter, fields } = selector;
  return [
    topics === undefined ? "all topics" : topics.join(", "),
    ...(keys === undefined ? [] : [`keys ${shortened(keys)}`]),
    ...(operations === undefined ? [] : [operations.join(", ")]),
    ...(filter === undefined ? [] : [`where ${filter}`]),
    ...(fields === undefined ? [] : [`only ${fields.join(", ")}`]),
  ].join("; ");
}

function shortened(names: readonly string[]): string {
  return names.length <= 10 ? names.join(", ") : `${names.slice(0, 10).join(", ")} and ${names.length - 10} more`;
}

function numberFrom(label: string | undefined): number | undefined {
  const number = Number(label ?? Number.NaN);
  return Number.isFinite(number) && number >= 0 ? number : undefined;
}
