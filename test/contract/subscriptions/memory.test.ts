import { openMemoryWorld } from "./memory-world.ts";
import { subscriptionStoreContract } from "./subscription-store-contract.ts";

subscriptionStoreContract("memory", openMemoryWorld);
