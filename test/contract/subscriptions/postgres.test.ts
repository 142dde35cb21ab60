import { openPostgresWorld } from "./postgres-world.ts";
import { subscriptionStoreContract } from "./subscription-store-contract.ts";

subscriptionStoreContract("postgres", openPostgresWorld);
