import { describe } from "vitest";
import { acknowledging } from "./suite/acknowledging.ts";
import { claiming } from "./suite/claiming.ts";
import { deadLetters } from "./suite/dead-letters.ts";
import { epochs } from "./suite/epochs.ts";
import { keeping } from "./suite/keeping.ts";
import { listing } from "./suite/listing.ts";
import type { SubscriptionWorld } from "./world.ts";

/** What every `SubscriptionStore` must do. */
export function subscriptionStoreContract(name: string, open: () => Promise<SubscriptionWorld>): void {
  describe(`subscriptions in ${name}`, () => {
    for (const part of [listing, claiming, acknowledging, deadLetters, keeping, epochs]) part(open);
  });
}
