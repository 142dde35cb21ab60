import { createMemoryStore } from "../../../src/memory/store.ts";
import { never, type SubscriptionWorld } from "./world.ts";

/** In memory all replicas share one store. */
export async function openMemoryWorld(): Promise<SubscriptionWorld> {
  let nowMs = 1_700_000_000_000;
  let store = createMemoryStore({ clock: { now: () => nowMs, monotonic: () => nowMs, random: () => 0.5 } });
  return {
    get a() {
      return store.subscriptions;
    },
    get b() {
      return store.subscriptions;
    },
    get epoch() {
      return store.epoch;
    },
    settle: async (events) => {
      for (let n = 0; n < events; n++) {
        const writer = store.begin();
        writer.emit({ topic: "t", key: `${n}`, operation: "MESSAGE", payload: "{}", headers: {} });
        writer.commit();
        await store.advance(0, never);
      }
      return (await store.bounds(never)).head;
    },
    retainFrom: async (version) => store.retainFrom(version),
    pass: async (ms) => {
      nowMs += ms;
    },
    fork: async (version) => {
      store = store.fork(version);
    },
    [Symbol.asyncDispose]: async () => undefined,
  };
}
