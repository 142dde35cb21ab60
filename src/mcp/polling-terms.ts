import type { Subscription } from "../../gen/millrace/v1/subscription_service_pb.js";
import type { ConsumerMemory, Remembered } from "./consumer-memory.ts";

/** Where a subscription keeps what only these tools know of it: any replica, and any later agent, finds it there. */
const labelNames = { pollingIntervalSeconds: "mcp.polling_interval_seconds", batchSize: "mcp.batch_size" } as const;

/** How a subscription is polled. */
export interface PollingTerms {
  readonly intervalSeconds: number;
  readonly batchSize: number;
}

/** When nobody said how. */
export const pollingDefaults: PollingTerms = { intervalSeconds: 10, batchSize: 50 };

/** As labels. */
export function pollingLabels({ intervalSeconds, batchSize }: PollingTerms): Readonly<Record<string, string>> {
  return { [labelNames.pollingIntervalSeconds]: String(intervalSeconds), [labelNames.batchSize]: String(batchSize) };
}

/** The labels that somebody chose. */
export function otherLabels(labels: Readonly<Record<string, string>>): Record<string, string> {
  const own: readonly string[] = Object.values(labelNames);
  return Object.fromEntries(Object.entries(labels).filter(([name]) => !own.includes(name)));
}

/** What is worth remembering of it. */
export function rememberedOf({ labels }: Subscription): Remembered {
  return {
    pollingIntervalSeconds: numberFrom(labels[labelNames.pollingIntervalSeconds]),
    batchSize: numberFrom(labels[labelNames.batchSize]),
  };
}

/** What it says itself, or the defaults. */
export function pollingTermsOf(remembered: Remembered | undefined): PollingTerms {
  return {
    intervalSeconds: remembered?.pollingIntervalSeconds ?? pollingDefaults.intervalSeconds,
    batchSize: remembered?.batchSize ?? pollingDefaults.batchSize,
  };
}

/** The same from memory, and only where that has nothing, from the subscription. */
export async function knownPollingTerms(
  subscriptionId: string,
  memory: ConsumerMemory,
  ask: () => Promise<Subscription | undefined>,
): Promise<PollingTerms> {
  const known = memory.get(subscriptionId);
  if (known !== undefined && "batchSize" in known) return pollingTermsOf(known);
  const subscription = await ask();
  if (subscription !== undefined) memory.add(subscriptionId, rememberedOf(subscription));
  return pollingTermsOf(memory.get(subscriptionId));
}

function numberFrom(label: string | undefined): number | undefined {
  const number = Number(label ?? Number.NaN);
  return Number.isFinite(number) && number >= 0 ? number : undefined;
}
