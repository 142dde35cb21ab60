/**
 * The truth that streams are judged by: what every writer did and knows to be committed, kept outside the database.
 *
 * A row's history is a chain of lives: an INSERT begins one with counter 1, each UPDATE raises the counter by one, a DELETE
 * ends it. Rows carry `life` and `counter` in their own columns, so that an image alone says which change it is, and two
 * changes can be told apart even when everything else about them is equal.
 */

/** One change of one key by one statement. */
export interface Change {
  readonly topic: string;
  readonly key: string;
  readonly operation: "INSERT" | "UPDATE" | "DELETE" | "MESSAGE";
  /** For rows: which life of the key. For messages: `message`. */
  readonly life: string;
  /** For rows: the counter after the change, or of the row that was deleted. For messages: the writer's own count. */
  readonly counter: number;
  /** For INSERT: the life of this key that ended last before; `undefined` for the first. */
  readonly previousLife?: string | undefined;
}

/** One transaction that is known to have committed. */
export interface CommittedTransaction {
  readonly writer: number;
  /** Rises by one per transaction of its writer, committed or not. */
  readonly number: number;
  /** Decimal xid8. */
  readonly xid: string;
  /** In the order of the statements; what a savepoint took back is not here. */
  readonly changes: readonly Change[];
  /** Committed in two phases: its place among its writer's other transactions is open. */
  readonly prepared: boolean;
}

/** What the writers know once they have stopped and every outcome is known. */
export interface Ledger {
  readonly committed: readonly CommittedTransaction[];
  /** Decimal xid8s of transactions that rolled back, were never acknowledged and did not commit, or died. */
  readonly rolledBack: ReadonlySet<string>;
  /** The tables' rows at the end, as JSON text by topic and key. */
  readonly tables: ReadonlyMap<string, ReadonlyMap<string, string>>;
}

/** Names one change; the image of an event gives the same name. */
export function nameOfChange(change: Pick<Change, "topic" | "key" | "operation" | "life" | "counter">): string {
  return `${change.operation} ${change.topic}/${change.key} ${change.life}#${change.counter}`;
}
