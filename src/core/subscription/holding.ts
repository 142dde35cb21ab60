import type { Cursor } from "../cursor.ts";
import type { Event, Version } from "../event.ts";
import type { EventsFrame, Frame } from "../frame.ts";
import { beyond, type Deliveries, deliveredAgain, deliveriesOf } from "./deliveries.ts";
import { cursorOfPosition, isBehind } from "./positions.ts";
import type { StoredPosition, SubscriptionRecord } from "./subscription-store.ts";

/** A stream of a holding, as far as others end it. */
export interface HeldStream {
  endWith(reason: "TAKEN_OVER" | "PAUSED" | "MOVED" | "DELETED"): void;
}

/** How a holding came to be. */
export interface HoldingOptions {
  readonly record: SubscriptionRecord;
  readonly delivered: Deliveries;
  /** Of the looks at the database: what an earlier one found says nothing about it. */
  readonly bornAtLook: number;
  readonly nowMs: number;
}

/**
 * One generation of a subscription, as the process that was given it knows it: what was acknowledged, and what was delivered
 * beyond that, in this stream and in those before. It outlives its streams, for consumers that come in pieces.
 */
export class Holding {
  readonly id: string;
  readonly generation: number;
  readonly expireAfterMs: number | undefined;
  readonly bornAtLook: number;
  stream: HeldStream | undefined;
  /** What was told of it last; never rejects. */
  telling: Promise<void> = Promise.resolve();
  /** Monotonic milliseconds: when its stream began or ended. */
  usedAtMs: number;
  /** Monotonic milliseconds: when the database was last told that it is used. */
  toldAtMs: number;
  #position: Cursor;
  /** Before its present stream. */
  #before: Deliveries;
  /** The present stream has delivered everything from the position that it began at up to here. */
  #upTo: Version;
  /** Where all that was delivered ends, and so what must be acknowledged before the stream's progress can be. */
  #owed: Cursor;
  /** The last consistent moment that its stream said. */
  #moment: Cursor | undefined;
  #untold = false;

  constructor({ record, delivered, bornAtLook, nowMs }: HoldingOptions) {
    this.id = record.id;
    this.generation = record.generation;
    this.expireAfterMs = record.expireAfterMs;
    this.bornAtLook = bornAtLook;
    this.usedAtMs = nowMs;
    this.toldAtMs = nowMs;
    this.#position = cursorOfPosition(record.position);
    this.#before = delivered;
    this.#upTo = this.#position.version;
    this.#owed = this.#position;
  }

  /** Everything up to here is acknowledged. */
  get position(): Cursor {
    return this.#position;
  }

  /** How often what lies beyond the position was delivered. */
  get deliveries(): Deliveries {
    return this.deliveriesBeyond(this.#position.version);
  }

  /** The same beyond a position that it has yet to come to. */
  deliveriesBeyond(version: Version): Deliveries {
    return beyond(deliveredAgain(this.#before, this.#upTo), version);
  }

  /** Whether there are deliveries that the database has not been told of. */
  get untold(): boolean {
    return this.#untold;
  }

  /** They are on their way there. */
  tell(): Deliveries {
    this.#untold = false;
    return this.deliveries;
  }

  /** They were not told after all. */
  tellAgain(): void {
    this.#untold = true;
  }

  /** A position that needs no acknowledgement: nothing that was delivered lies before it which was not acknowledged. */
  get moment(): Cursor | undefined {
    const moment = this.#moment;
    const owes = isBehind(this.#position, this.#owed);
    return moment !== undefined && !owes && isBehind(this.#position, moment) ? moment : undefined;
  }

  /** A stream goes on from the position. */
  begin(position: StoredPosition, nowMs: number): void {
    this.acknowledged(position);
    this.#before = this.deliveries;
    this.#upTo = this.#position.version;
    this.#owed = this.#position;
    this.#moment = undefined;
    this.usedAtMs = nowMs;
  }

  /** The database has this position. */
  acknowledged(position: StoredPosition): void {
    const cursor = cursorOfPosition(position);
    // Of another epoch it is the same place, told in the terms of the epoch in force.
    if (cursor.epoch !== this.#position.epoch || isBehind(this.#position, cursor)) {
      this.#position = cursor;
    }
  }

  /**
   * A frame on its way to the consumer. Rows of a snapshot all have the version that it was taken at, and another one the next
   * time: of those nobody can say whether they come again.
   */
  saw(frame: Frame): void {
    const { cursor } = frame;
    if (frame.kind === "checkpoint") {
      this.#moment = frame.progress === undefined ? cursor : this.#moment;
      return;
    }
    if (frame.kind === "opened" || frame.kind === "closing") {
      return;
    }
    // Nobody can do anything about what was left out: it needs no acknowledgement.
    if (frame.kind !== "gap") {
      this.#owed = cursor;
    }
    if (cursor.snapshot === undefined && cursor.version > this.#upTo) {
      this.#upTo = cursor.version;
      this.#untold = true;
    }
  }

  /** Whether events of the frame were delivered before. */
  repeats({ events, cursor }: EventsFrame): boolean {
    const last = this.#before.at(-1);
    const first = events[0];
    return last !== undefined && first !== undefined && cursor.snapshot === undefined && first.version <= last.version;
  }

  /** The event as one that was delivered before, if it was. */
  marked(event: Event): Event {
    const attempts = deliveriesOf(event.version, this.#before);
    return attempts === 0 ? event : { ...event, attempt: attempts + 1 };
  }
}
