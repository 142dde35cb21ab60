import type { Operation } from "../event.ts";

/** A row, parsed: numbers that a double cannot hold exactly are bigints when they are whole. */
export type Row = Readonly<Record<string, unknown>>;

/**
 * A change of one row, as its builder sees it. A row of a snapshot is one with operation SNAPSHOT. TRUNCATE, and messages about
 * the schema, are no changes of a row: no builder sees them.
 */
export interface Change {
  readonly operation: Exclude<Operation, "TRUNCATE" | "MESSAGE">;
  /** As the configuration names it. */
  readonly table: string;
  /** Where the event goes unless the builder says otherwise. */
  readonly topic: string;
  readonly key: string | undefined;
  /** The old row: of UPDATE and DELETE, where the source keeps before-values. */
  readonly before: Row | undefined;
  /** The row as it is now; `undefined` in a DELETE. */
  readonly after: Row | undefined;
  /** What there is of the row: as it is now, in a DELETE as it was; empty where that is not kept. */
  readonly row: Row;
  readonly headers: Readonly<Record<string, string>>;
  /** When the change was written; of a snapshot's row, when the snapshot settled. */
  readonly occurredAt: Date;
}

/** What becomes of a change. What is left out stays as it was, except for `payload` and `before`. */
export interface BuiltEvent {
  /** A topic, no pattern. */
  readonly topic?: string | undefined;
  /** `null` for none. */
  readonly key?: string | null | undefined;
  /** Whatever JSON can say, and bigints: the event's `after`, or its `before` in a DELETE. Absent: the event has none. */
  readonly payload?: unknown;
  /** The event's `before` in an UPDATE. Absent: it has none, and row filters cannot tell what enters and leaves. */
  readonly before?: unknown;
  /** Instead of those that the change has. */
  readonly headers?: Readonly<Record<string, string>> | undefined;
}

/**
 * Makes an event of a change, or nothing: `undefined` and `null` hide it from everybody.
 *
 * It must be a pure and synchronous function of the change. It is run whenever the event is read, by every replica, today and
 * after the next restart: one that looks at a clock, a counter or the network shows different clients different histories.
 */
export type Builder = (change: Change) => BuiltEvent | undefined | null;

/** A source whose events are built. */
export interface BuiltSource {
  /** As the configuration names it. */
  readonly table: string;
  readonly build: Builder;
  /** Patterns of the topics that it builds; `undefined` when they may be any. */
  readonly topics: readonly string[] | undefined;
}
