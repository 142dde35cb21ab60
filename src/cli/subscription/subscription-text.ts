import { type Duration, durationMs, type Timestamp, timestampDate } from "@bufbuild/protobuf/wkt";
import { PayloadForm } from "../../../gen/millrace/v1/event_pb.js";
import { PolicyKind } from "../../../gen/millrace/v1/feed_service_pb.js";
import {
  type DeadLetter,
  DeadLetterPolicy,
  type Group,
  type Subscription,
  SubscriptionState,
} from "../../../gen/millrace/v1/subscription_service_pb.js";
import { columns, duration } from "../layout.ts";
import { eventLine } from "../tail/event-line.ts";

/** With null for what is not there: what is left out of JSON looks forgotten. */
export function subscriptionJson(subscription: Subscription): unknown {
  const { selectors, delivery, group } = subscription;
  return {
    subscriptionId: subscription.subscriptionId,
    state: SubscriptionState[subscription.state],
    version: subscription.version,
    lagVersions: subscription.lagVersions ?? null,
    cursor: subscription.cursor,
    generation: subscription.generation,
    selectors: selectors.map(({ topics, keys, operations, filter, fields }) => {
      return { topics, keys, operations, filter, fields };
    }),
    policy: delivery?.policy === undefined ? null : PolicyKind[delivery.policy.kind],
    payloads: subscription.payloadForm !== PayloadForm.NONE,
    owner: subscription.owner,
    labels: subscription.labels,
    expireAfterMs: milliseconds(subscription.expireAfter),
    group: group === undefined ? null : groupJson(group),
    createdAt: time(subscription.createdAt),
    lastUsedAt: time(subscription.lastUsedAt),
    expiresAt: time(subscription.expiresAt),
    deadLetters: subscription.deadLetters,
    oldestVersion: subscription.oldestVersion ?? null,
  };
}

/** One subscription, a line for each thing that there is to say. */
export function subscriptionText(subscription: Subscription): string {
  const { selectors, group, owner, labels, expireAfter, deadLetters } = subscription;
  const filters = selectors.flatMap(({ filter }) => (filter === "" ? [] : [["filter", filter]]));
  return columns([
    ["subscription", subscription.subscriptionId],
    ["state", stateText(subscription)],
    ["acknowledged", `up to version ${subscription.version}`],
    ["behind", lagText(subscription)],
    ["topics", topicsText(subscription)],
    ...filters,
    ...(group === undefined ? [] : [["group", groupText(group)]]),
    ...(owner === "" ? [] : [["owner", owner]]),
    ...Object.entries(labels).map(([name, value]) => ["label", `${name}=${value}`]),
    ["used", time(subscription.lastUsedAt) ?? ""],
    ...(expireAfter === undefined ? [] : [["expires", `${duration(durationMs(expireAfter))} after its last use`]]),
    ...(deadLetters === 0n ? [] : [["dead letters", String(deadLetters)]]),
    ["cursor", subscription.cursor],
  ]);
}

/** One line for each. */
export function subscriptionTable(subscriptions: readonly Subscription[], total: bigint): string {
  if (subscriptions.length === 0) return "there are no subscriptions\n";
  const rows = subscriptions.map((subscription) => [
    subscription.subscriptionId,
    SubscriptionState[subscription.state],
    String(subscription.version),
    lagText(subscription),
    subscription.group === undefined ? "" : "group",
    String(subscription.deadLetters),
    subscription.owner,
    topicsText(subscription),
  ]);
  const head = ["SUBSCRIPTION", "STATE", "VERSION", "BEHIND", "KIND", "DEAD", "OWNER", "TOPICS"];
  const more = total > BigInt(subscriptions.length) ? `${subscriptions.length} of ${total}\n` : "";
  return columns([head, ...rows]) + more;
}

/** One dead letter as one line of JSON: the event as `tail` prints it, with what became of it. */
export function deadLetterLine({ event, attempts, reason, deadAt, replaying }: DeadLetter): string {
  const line = event === undefined ? "{}\n" : eventLine(event, undefined);
  const told = JSON.stringify({ attempts, reason, deadAt: time(deadAt), replaying });
  return `${line.trimEnd().slice(0, -1)}${event === undefined ? "" : ","}"dead":${told}}\n`;
}

/** Dead letters for people. */
export function deadLetterTable(letters: readonly DeadLetter[], total: bigint): string {
  if (letters.length === 0) return "there are no dead letters\n";
  const rows = letters.map(({ event, attempts, reason, deadAt, replaying }) => [
    String(event?.version ?? ""),
    event?.topic ?? "",
    event?.key ?? "",
    attempts === 0 ? "parked" : String(attempts),
    replaying ? "replaying" : (time(deadAt) ?? ""),
    reason,
  ]);
  const more = total > BigInt(letters.length) ? `${letters.length} of ${total}\n` : "";
  return columns([["VERSION", "TOPIC", "KEY", "TRIED", "SINCE", "REASON"], ...rows]) + more;
}

function groupJson(group: Group): unknown {
  return {
    maxInFlight: group.maxInFlight,
    ackDeadlineMs: milliseconds(group.ackDeadline),
    maxAttempts: group.maxAttempts,
    deadLetterPolicy: DeadLetterPolicy[group.deadLetterPolicy],
    maxMembers: group.maxMembers,
  };
}

function groupText({ maxInFlight, ackDeadline, maxAttempts, deadLetterPolicy, maxMembers }: Group): string {
  const told = [
    maxInFlight === 0 ? [] : `${maxInFlight} in flight`,
    ackDeadline === undefined ? [] : `${duration(durationMs(ackDeadline))} to acknowledge`,
    maxAttempts === 0 ? [] : `${maxAttempts} attempts`,
    deadLetterPolicy === DeadLetterPolicy.SKIP ? "skips dead keys" : [],
    maxMembers === 0 ? [] : `at most ${maxMembers} members`,
  ].flat();
  return told.length === 0 ? "as by default" : told.join(", ");
}

function stateText({ state, oldestVersion }: Subscription): string {
  const name = SubscriptionState[state];
  return oldestVersion === undefined ? name : `${name}: what lies before version ${oldestVersion} is gone`;
}

function lagText({ lagVersions, state }: Subscription): string {
  if (lagVersions !== undefined) return `${lagVersions} versions`;
  return state === SubscriptionState.LOST ? "" : "unknown";
}

function topicsText({ selectors }: Subscription): string {
  const all = selectors.length === 0 || selectors.some(({ topics }) => topics.length === 0);
  return all ? "all" : [...new Set(selectors.flatMap(({ topics }) => topics))].join(" ");
}

function milliseconds(value: Duration | undefined): number | null {
  return value === undefined ? null : durationMs(value);
}

function time(value: Timestamp | undefined): string | null {
  return value === undefined ? null : timestampDate(value).toISOString();
}
