import type { Event, Version } from "../event.ts";
import { eventBytes } from "../page.ts";
import type { GroupMember } from "./group-member.ts";
import { slotOf } from "./group-slots.ts";

/** Not yet given out, or taken back · with a member that has not acknowledged it · acknowledged, or a dead letter. */
export type ItemState = "waiting" | "in_flight" | "settled";

/** One event of a group, until it is settled. Changed in place: there is one for every event that passes. */
export class GroupItem {
  readonly version: Version;
  readonly slot: number;
  readonly bytes: number;
  /** A dead letter that is delivered again: it has no place in the window, and moves no position. */
  readonly replay: boolean;
  state: ItemState = "waiting";
  /** Place in the window; see `GroupWindow`. */
  index = -1;
  /** Who has it, or had it last. */
  member: GroupMember | undefined;
  /** Which of the member's deliveries it was. */
  seq = 0;
  /** It came to its member after everything of a lower version that the member has had. */
  inOrder = false;
  deliveredAtMs = 0;
  deliveries: number;
  /** Of these, those that ended because an earlier event of its key was taken back: no fault of its own. */
  spared: number;
  /** Why its last delivery ended; empty before. */
  reason = "";
  #event: Event | undefined;

  constructor(event: Event, deliveries = 0, spared = 0, replay = false) {
    this.version = event.version;
    this.slot = slotOf(event);
    this.bytes = eventBytes(event);
    this.deliveries = deliveries;
    this.spared = spared;
    this.replay = replay;
    this.#event = event;
  }

  /** What it is about; gone once it is settled. */
  get event(): Event | undefined {
    return this.#event;
  }

  /** Deliveries that count against it. */
  get failures(): number {
    return this.deliveries - this.spared;
  }

  /** Lets go of the event. */
  settle(): void {
    this.state = "settled";
    this.member = undefined;
    this.#event = undefined;
  }
}

/** An event without a key, or a TRUNCATE: nothing passes it, and it passes nothing. */
export function isBarrier(event: Event): boolean {
  return event.key === undefined || event.operation === "TRUNCATE";
}

/** What order is kept of: one key of one topic. Empty for barriers. */
export function orderKeyOf({ topic, key }: Pick<Event, "topic" | "key">): string {
  return key === undefined ? "" : `${topic}\n${key}`;
}
