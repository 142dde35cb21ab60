/** What happened to a key. The order is the wire's: see `Operation` in `proto/millrace/v1/event.proto`. */
export type Operation = "INSERT" | "UPDATE" | "DELETE" | "TRUNCATE" | "SNAPSHOT" | "MESSAGE";

/**
 * How an UPDATE moves its row across the border of what a row filter selects: `ENTERED` from outside to inside, `LEFT` from
 * inside to outside (then the event is its key, without images).
 */
export type Transition = "ENTERED" | "LEFT";

/**
 * One row image or message payload: JSON text in UTF-8, exactly the bytes that Postgres wrote.
 *
 * Bytes and not a string, because nearly every event goes from the database's socket to the client's without anybody
 * looking inside: binary codecs copy them, and only a JSON codec decodes them.
 */
export type Image = Uint8Array;

/** One committed row of the outbox in its place in the total order. Immutable. */
export interface Event {
  /** Dense within an epoch, from 1. All rows of one snapshot carry the version that the snapshot was taken at. */
  readonly version: Version;
  /** `HIDDEN_TOPIC` where nobody is to see it. */
  readonly topic: string;
  /** `undefined` for TRUNCATE and for messages without a key. */
  readonly key: string | undefined;
  readonly operation: Operation;
  readonly before: Image | undefined;
  readonly after: Image | undefined;
  /** The writer's xid8 in decimal; empty on snapshot rows. */
  readonly transaction: string;
  /** Microseconds since the Unix epoch, by the database's clock. */
  readonly occurredAtMicros: number;
  /** JSON object of strings in UTF-8; `undefined` when there are none. */
  readonly headers: Image | undefined;
  /** Set by row filters alone, on the view of one selection; absent on events as they were committed. */
  readonly transition?: Transition;
  /** Set on the deliveries of a subscription alone, from the second one on. */
  readonly attempt?: number;
  /** Where it was written, of an event that a builder has made: cursors of snapshots go by the rows, and not by what is shown. */
  readonly origin?: { readonly topic: string; readonly key: string | undefined };
}

/**
 * The topic of an event that a builder has hidden. It has its version, so that these stay dense, and no selector selects it,
 * not even the empty one.
 */
export const HIDDEN_TOPIC = "";

/** The key of the row that an event tells of. */
export function rowKey({ key, origin }: Pick<Event, "key" | "origin">): string | undefined {
  return origin === undefined ? key : origin.key;
}

/** The topic that an event was written to. */
export function rowTopic({ topic, origin }: Event): string {
  return origin === undefined ? topic : origin.topic;
}

/**
 * A place in the total order: 0 is before the first event. A safe integer: at a million events per second they last for
 * 285 years.
 */
export type Version = number;
