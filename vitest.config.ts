import { availableParallelism } from "node:os";
import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    // One Postgres per file that asks for one: files run side by side as far as the machine has cores.
    pool: "forks",
    // Half of the time of a file goes by in Postgres: one core less, as is the default, leaves two cores half idle.
    maxWorkers: Math.max(2, availableParallelism() - 1),
    testTimeout: 60_000,
    hookTimeout: 120_000,
    teardownTimeout: 30_000,
  },
});
