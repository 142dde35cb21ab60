import { describe } from "vitest";
import { builtHarness } from "./built-harness.ts";
import { feedContract } from "./feed-contract.ts";
import { memoryHarness } from "./memory-harness.ts";
import { postgresHarness } from "./postgres-harness.ts";
import { orderContract } from "./suite/order.ts";
import { resumedSnapshotContract } from "./suite/resumed-snapshots.ts";
import { snapshotContract } from "./suite/snapshots.ts";

feedContract("memory, built", builtHarness(memoryHarness));

// What differs between the adapters is where events come from: pages, and snapshots.
describe("the feed over postgres, built", () => {
  const harness = builtHarness(postgresHarness);
  orderContract(harness);
  snapshotContract(harness);
  resumedSnapshotContract(harness);
});
