import { withBuilders } from "../../src/core/builder/built-store.ts";
import { systemClock, systemTimers } from "../../src/core/clock.ts";
import type { FeedStore } from "../../src/core/ports.ts";
import type { ContractHarness } from "./harness.ts";

const TABLES = [
  { table: "public.orders", topic: "orders" },
  { table: "public.parcels", topic: "parcels.{region}" },
  { table: "public.returns", topic: "returns" },
];

/** The same adapter behind builders that build what was there: every event is made anew, and nobody may notice. */
export function builtHarness(harness: ContractHarness): ContractHarness {
  return {
    capabilities: harness.capabilities,
    async open(options) {
      const world = await harness.open(options);
      return {
        get store() {
          return built(world.store);
        },
        replica: async () => {
          const replica = await world.replica();
          return { ...replica, store: built(replica.store) };
        },
        writer: () => world.writer(),
        commitPrepared: (name) => world.commitPrepared(name),
        retainFrom: (version) => world.retainFrom(version),
        watchReturns: (watched) => world.watchReturns(watched),
        outage: world.outage,
        backup: () => world.backup(),
        [Symbol.asyncDispose]: () => world[Symbol.asyncDispose](),
      };
    },
  };
}

function built(store: FeedStore): FeedStore {
  return withBuilders({
    store,
    sources: TABLES.map(({ table, topic }) => ({
      topic,
      source: {
        table,
        topics: [topic.replace("{region}", "*")],
        build: ({ topic: written, key, before, after, operation }) => ({
          topic: written,
          key: key ?? null,
          payload: operation === "DELETE" ? copied(before) : copied(after),
          before: copied(before),
        }),
      },
    })),
    watched: async () => TABLES,
    clock: systemClock,
    timers: systemTimers,
  });
}

function copied(row: Readonly<Record<string, unknown>> | undefined): unknown {
  return row === undefined ? undefined : { ...row };
}
