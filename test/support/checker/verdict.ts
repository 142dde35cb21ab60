import { checkAtomicity, checkCheckpoints } from "./atomicity.ts";
import { checkDelivery } from "./delivery.ts";
import { checkKeyOrder } from "./key-order.ts";
import type { Ledger } from "./ledger.ts";
import { checkOrder } from "./order.ts";
import type { Complaint, Recording } from "./seen.ts";

/** Everything that can be said of a story that selects all and began before the first version. */
export function checkFullStory(recording: Recording, ledger: Ledger): readonly Complaint[] {
  return [
    ...checkOrder(recording, { dense: true }),
    ...checkDelivery(recording, ledger),
    ...checkKeyOrder(recording, ledger),
    ...checkAtomicity(recording),
    ...checkCheckpoints(recording),
  ];
}

/** Everything that can be said of one stream without the ledger. */
export function checkStream(recording: Recording, options: { readonly dense: boolean }): readonly Complaint[] {
  return [...checkOrder(recording, options), ...checkAtomicity(recording), ...checkCheckpoints(recording)];
}

/** The first few complaints as text, and how many there are of each guarantee: for `expect(...).toBe("")`. */
export function verdict(complaints: readonly Complaint[]): string {
  if (complaints.length === 0) return "";
  const counts = new Map<string, number>();
  for (const { guarantee } of complaints) counts.set(guarantee, (counts.get(guarantee) ?? 0) + 1);
  const summary = [...counts].map(([guarantee, count]) => `${guarantee} x ${count}`).join(", ");
  const lines = complaints.slice(0, 10).map(({ guarantee, client, text }) => `${guarantee} [${client}] ${text}`);
  return [summary, ...lines].join("\n");
}
