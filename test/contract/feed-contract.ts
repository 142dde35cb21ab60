import { describe } from "vitest";
import type { ContractHarness } from "./harness.ts";
import { deliveryContract } from "./suite/delivery.ts";
import { epochContract } from "./suite/epochs.ts";
import { lifecycleContract } from "./suite/lifecycle.ts";
import { orderContract } from "./suite/order.ts";
import { policyContract } from "./suite/policies.ts";
import { resumedSnapshotContract } from "./suite/resumed-snapshots.ts";
import { selectionContract } from "./suite/selection.ts";
import { snapshotContract } from "./suite/snapshots.ts";
import { startContract } from "./suite/starts.ts";
import { streamUpdateContract } from "./suite/stream-updates.ts";
import { subscriptionContract } from "./suite/subscriptions.ts";

/** Everything that a feed over any adapter must do. */
export function feedContract(name: string, harness: ContractHarness): void {
  describe(`the feed over ${name}`, () => {
    orderContract(harness);
    startContract(harness);
    selectionContract(harness);
    snapshotContract(harness);
    resumedSnapshotContract(harness);
    deliveryContract(harness);
    policyContract(harness);
    streamUpdateContract(harness);
    subscriptionContract(harness);
    lifecycleContract(harness);
    epochContract(harness);
  });
}
