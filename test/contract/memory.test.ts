import { feedContract } from "./feed-contract.ts";
import { memoryHarness } from "./memory-harness.ts";

feedContract("memory", memoryHarness);
