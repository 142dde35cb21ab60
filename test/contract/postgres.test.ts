import { feedContract } from "./feed-contract.ts";
import { postgresHarness } from "./postgres-harness.ts";

feedContract("postgres", postgresHarness);
