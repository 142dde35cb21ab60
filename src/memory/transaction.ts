import { FeedError } from "../core/errors.ts";
import type { Image, Operation } from "../core/event.ts";
import type { NewEvent } from "../core/ports.ts";
import type { Outbox } from "./outbox.ts";
import type { Tables } from "./tables.ts";
import type { Transactions } from "./transactions.ts";

/** A writer's transaction. Nothing of it is seen before `commit`, and nothing at all after `rollback`. */
export interface MemoryTransaction {
  /** Its xid8 in decimal. Assigns one if nothing was written yet: so a script can begin early and write late. */
  xid(): string;
  /** Appends an event of the application's own. Rejected with TOPIC_FORBIDDEN for topics of sources. */
  emit(event: NewEvent): void;
  /**
   * Inserts or updates a row of a source, or moves it here from another topic of the same source, as a DELETE there and an
   * INSERT here. Waits for whoever holds the row. `json` is the row's image.
   */
  put(topic: string, key: string, json: string): Promise<void>;
  /** Deletes a row; nothing happens when there is none. Waits for whoever holds the row. */
  remove(topic: string, key: string): Promise<void>;
  /** Empties a source, named by its topic or template. Waits for whoever holds any row of it. */
  truncate(source: string): Promise<void>;
  /** Takes no more writes but stays in progress, like PREPARE TRANSACTION. */
  prepare(): void;
  commit(): void;
  rollback(): void;
}

/** What a transaction writes to. */
export interface TransactionContext {
  readonly transactions: Transactions;
  readonly outbox: Outbox;
  readonly tables: Tables;
  readonly nowMicros: () => number;
  readonly committed: () => void;
  readonly signal: AbortSignal;
}

type TransactionState = "open" | "prepared" | "over";

const encoder = new TextEncoder();

/** Begins a writer's transaction. It has no xid before it writes or is asked for one. */
export function beginTransaction(context: TransactionContext): MemoryTransaction {
  return new Transaction(context);
}

class Transaction implements MemoryTransaction {
  readonly #context: TransactionContext;
  readonly #undo: (() => void)[] = [];
  #xid: number | undefined;
  #state: TransactionState = "open";

  constructor(context: TransactionContext) {
    this.#context = context;
  }

  xid(): string {
    return String(this.#assigned());
  }

  emit(event: NewEvent): void {
    const { topic, key, operation, payload, headers } = event;
    if (this.#context.tables.sourceOf(topic) !== undefined) {
      throw new FeedError(
        "TOPIC_FORBIDDEN",
        `The topic \`${topic}\` belongs to a source.`,
        "Write to the source, or publish to a topic of your own.",
      );
    }
    const image = payload === undefined ? undefined : encoder.encode(payload);
    const deleted = operation === "DELETE";
    this.#insert(topic, key, operation, deleted ? image : undefined, deleted ? undefined : image, headers);
  }

  async put(topic: string, key: string, json: string): Promise<void> {
    const { tables, signal } = this.#context;
    this.#assertSource(tables.sourceOf(topic), topic);
    await tables.lockRow(this.#assigned(), topic, key, signal);
    const row = tables.row(topic, key);
    const after = encoder.encode(json);
    this.#undo.push(tables.write(topic, key, after));
    if (row !== undefined && row.topic !== topic) {
      this.#insert(row.topic, key, "DELETE", row.image, undefined);
    }
    const before = row?.topic === topic ? row.image : undefined;
    this.#insert(topic, key, before === undefined ? "INSERT" : "UPDATE", before, after);
  }

  async remove(topic: string, key: string): Promise<void> {
    const { tables, signal } = this.#context;
    await tables.lockRow(this.#assigned(), topic, key, signal);
    const row = tables.row(topic, key);
    if (row?.topic === topic) {
      this.#undo.push(tables.write(topic, key, undefined));
      this.#insert(topic, key, "DELETE", row.image, undefined);
    }
  }

  async truncate(source: string): Promise<void> {
    const { tables, signal } = this.#context;
    this.#assertSource(tables.sources.includes(source) ? source : undefined, source);
    await tables.lockSource(this.#assigned(), source, signal);
    this.#undo.push(tables.clear(source));
    this.#insert(source, undefined, "TRUNCATE", undefined, undefined);
  }

  prepare(): void {
    this.#assertState("open");
    this.#state = "prepared";
  }

  commit(): void {
    this.#end();
    this.#context.committed();
  }

  rollback(): void {
    for (const undo of this.#undo.reverse()) {
      undo();
    }
    if (this.#xid !== undefined) {
      this.#context.outbox.discard(this.#xid);
    }
    this.#end();
  }

  #end(): void {
    if (this.#state === "over") {
      this.#assertState("open");
    }
    this.#state = "over";
    if (this.#xid !== undefined) {
      this.#context.transactions.end(this.#xid);
    }
  }

  #assigned(): number {
    this.#assertState("open");
    this.#xid ??= this.#context.transactions.begin();
    return this.#xid;
  }

  #insert(
    topic: string,
    key: string | undefined,
    operation: Operation,
    before: Image | undefined,
    after: Image | undefined,
    headers: Readonly<Record<string, string>> = {},
  ): void {
    this.#context.outbox.insert(this.#assigned(), {
      topic,
      key,
      operation,
      before,
      after,
      occurredAtMicros: this.#context.nowMicros(),
      headers: Object.keys(headers).length === 0 ? undefined : encoder.encode(JSON.stringify(headers)),
    });
  }

  #assertState(state: TransactionState): void {
    if (this.#state !== state) {
      throw new FeedError("INVALID_REQUEST", `The transaction is ${this.#state}.`, "Begin another one.");
    }
  }

  #assertSource(source: string | undefined, topic: string): void {
    if (source === undefined) {
      throw new FeedError("SOURCE_NOT_FOUND", `No source has the topic \`${topic}\`.`, "Name it in `sources`.");
    }
  }
}
