import type { MemoryTransaction } from "../../src/memory/transaction.ts";
import type { Random } from "../support/workload/random.ts";
import type { Database } from "./database.ts";
import { pick } from "./world-options.ts";

/** Writers that wait for one another's rows, at most. */
const MOST_AT_ONCE = 5;

/** Who writes to the database. */
export class Writers {
  readonly #database: Database;
  readonly #random: Random;
  #busy = 0;
  #long: { readonly transaction: MemoryTransaction; readonly epoch: string } | undefined;

  constructor(database: Database, random: Random) {
    this.#database = database;
    this.#random = random;
  }

  /** One transaction: as a rule a small one. `committed` is called after it has. */
  write(committed: () => void): void {
    if (this.#busy >= MOST_AT_ONCE) {
      return;
    }
    const random = this.#random;
    const size = random.next();
    let events = 1;
    if (size > 0.985) {
      events = 60 + random.below(300);
    } else if (size > 0.6) {
      events = 2 + random.below(size > 0.85 ? 30 : 4);
    }
    this.#busy += 1;
    void this.#transact(this.#database.memory.begin(), events).then((done) => {
      this.#busy -= 1;
      if (done) {
        committed();
      }
    });
  }

  /** Begins a transaction that stays open, or ends the one that is. */
  toggleLong(): void {
    const { epoch } = this.#database.memory;
    if (this.#long === undefined) {
      const transaction = this.#database.memory.begin();
      transaction.emit({ topic: "notes", key: "long", operation: "MESSAGE", payload: '{"n":1}', headers: {} });
      this.#long = { transaction, epoch };
      return;
    }
    this.endLong();
  }

  endLong(): void {
    const long = this.#long;
    this.#long = undefined;
    if (long?.epoch === this.#database.memory.epoch) {
      long.transaction.emit({ topic: "notes", key: undefined, operation: "MESSAGE", payload: '{"n":2}', headers: {} });
      long.transaction.commit();
    } else {
      long?.transaction.rollback();
    }
  }

  async #transact(transaction: MemoryTransaction, events: number): Promise<boolean> {
    const random = this.#random;
    for (let i = 0; i < events; i++) {
      await this.#change(transaction);
    }
    if (random.chance(0.05)) {
      transaction.rollback();
      return false;
    }
    transaction.commit();
    return true;
  }

  async #change(transaction: MemoryTransaction): Promise<void> {
    const random = this.#random;
    const kind = random.next();
    const topic = pick(random, ["orders", "orders", "parcels.eu", "parcels.us"]);
    const key = `k${1 + random.below(random.chance(0.3) ? 40 : 6)}`;
    const n = random.below(120);
    if (kind < 0.6) {
      await transaction.put(topic, key, `{"n":${n},"note":"${"x".repeat(random.below(20))}"}`);
    } else if (kind < 0.75) {
      await transaction.remove(topic, key);
    } else if (kind < 0.994) {
      const payload = `{"n":${n}}`;
      const named = random.chance(0.5) ? key : undefined;
      transaction.emit({
        topic: pick(random, ["notes", "news"]),
        key: named,
        operation: "MESSAGE",
        payload,
        headers: {},
      });
    } else {
      await transaction.truncate(pick(random, ["orders", "parcels.{region}"]));
    }
  }
}
