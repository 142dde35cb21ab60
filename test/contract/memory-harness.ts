import { EpochOver } from "../../src/core/lineage.ts";
import type { NewEvent } from "../../src/core/ports.ts";
import { createMemoryStore, type MemoryStore } from "../../src/memory/store.ts";
import type { MemoryTransaction } from "../../src/memory/transaction.ts";
import type { ContractHarness, World, WorldOptions, Writer } from "./harness.ts";

/** The in-memory adapter under contract. */
export const memoryHarness: ContractHarness = {
  capabilities: new Set(["two_phase", "retention", "outage", "page_size", "snapshot_cut", "restore"]),
  open: async (options: WorldOptions = {}) => openWorld(options),
};

function openWorld(options: WorldOptions): World {
  let store = createMemoryStore({
    sources: ["orders", "parcels.{region}"],
    pageEvents: options.pageEvents ?? 100,
    snapshotRows: options.pageEvents ?? 100,
    ...(options.cutSnapshots === true ? { snapshotMaxRows: 3 } : {}),
  });
  const prepared = new Map<string, MemoryTransaction>();
  return {
    get store() {
      return store;
    },
    replica: async () => {
      return { store, wakeUp: store.wakeUp, mail: store.mail, subscriptions: store.subscriptions };
    },
    writer: async () => new MemoryWriter(store, prepared),
    commitPrepared: async (name) => {
      prepared.get(name)?.commit();
      prepared.delete(name);
    },
    retainFrom: async (version) => store.retainFrom(version),
    watchReturns: async (watched) => (watched ? store.watch("returns") : store.unwatch("returns")),
    outage: { begin: async () => store.outage.refuse(), end: async () => store.outage.lift() },
    backup: async () => {
      const from = store;
      const { head } = await from.bounds(new AbortController().signal);
      return {
        restore: async () => {
          const replaced = store;
          store = from.fork(head);
          replaced.outage.refuseForGood(new EpochOver(`The epoch in force is ${store.epoch}.`));
        },
      };
    },
    [Symbol.asyncDispose]: async () => undefined,
  };
}

class MemoryWriter implements Writer {
  readonly #store: MemoryStore;
  readonly #prepared: Map<string, MemoryTransaction>;
  #open: MemoryTransaction | undefined;

  constructor(store: MemoryStore, prepared: Map<string, MemoryTransaction>) {
    this.#store = store;
    this.#prepared = prepared;
  }

  get #transaction(): MemoryTransaction {
    if (this.#open === undefined) {
      throw new Error("no transaction has begun");
    }
    return this.#open;
  }

  async begin(): Promise<void> {
    this.#open = this.#store.begin();
  }

  async xid(): Promise<string> {
    return this.#transaction.xid();
  }

  async emit(topic: string, key: string | undefined, n: number): Promise<void> {
    const event: NewEvent = { topic, key, operation: "MESSAGE", payload: JSON.stringify({ n }), headers: {} };
    this.#transaction.emit(event);
  }

  async put(topic: string, key: string, n: number): Promise<void> {
    await this.#transaction.put(topic, key, JSON.stringify({ id: key, n }));
  }

  async remove(topic: string, key: string): Promise<void> {
    await this.#transaction.remove(topic, key);
  }

  async truncate(source: string): Promise<void> {
    await this.#transaction.truncate(source);
  }

  async commit(): Promise<void> {
    this.#transaction.commit();
    this.#open = undefined;
  }

  async rollback(): Promise<void> {
    this.#transaction.rollback();
    this.#open = undefined;
  }

  async prepare(name: string): Promise<void> {
    this.#transaction.prepare();
    this.#prepared.set(name, this.#transaction);
    this.#open = undefined;
  }
}
