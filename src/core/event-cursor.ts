import type { Cursor } from "./cursor.ts";
import { type Event, rowKey } from "./event.ts";
import type { EventsFrame } from "./frame.ts";
import { tickHolding } from "./page.ts";
import { isPiece, type Thinned } from "./policy/policy.ts";

/** What a frame says of its events' places. */
export interface PlacedEvents extends Pick<EventsFrame, "cursor" | "complete" | "ticks"> {
  readonly events: readonly Pick<Event, "version" | "operation" | "key" | "origin">[];
}

/**
 * Resumes exactly after the event with this index, as the frame's own cursor does after the last. For transports that hand
 * out events one by one: whoever is cut in the middle of a frame gets the rest of it, and nothing twice.
 *
 * @param thinned - the piece that a policy had thinned as the frame came, as an earlier frame's cursor told: the last frame of
 *   a piece has none
 */
export function cursorAfter(frame: PlacedEvents, index: number, thinned?: Thinned): Cursor {
  const { events, cursor } = frame;
  const event = events[index];
  if (event === undefined || index >= events.length - 1) {
    return cursor;
  }
  const { epoch, snapshot } = cursor;
  if (snapshot !== undefined && event.operation === "SNAPSHOT") {
    // Rows of one source: the place moves from key to key, and the version stands.
    const rows = typeof snapshot === "object" ? snapshot.rows - (events.length - 1 - index) : 0;
    return snapshot === "anew" ? cursor : { ...cursor, snapshot: { ...snapshot, key: rowKey(event), rows } };
  }
  const { version } = event;
  const at = { epoch, version, fingerprint: fingerprintAt(frame, version), snapshot };
  if (cursor.delivery !== undefined) {
    const { delivery, deliveredTo } = cursor;
    return { ...at, delivery: delivery - (events.length - 1 - index), deliveredTo };
  }
  return thinned !== undefined && isPiece(version, thinned) ? { ...at, thinned } : at;
}

/** 0 where nobody knows: such a cursor is good, and does not notice that history was rolled back. */
function fingerprintAt({ cursor, complete, ticks }: PlacedEvents, version: number): number {
  if (ticks !== undefined) {
    return tickHolding(ticks, version)?.fingerprint ?? 0;
  }
  // A frame that is not complete lies in a single tick, but for snapshots and for what a policy thinned.
  const inOneTick = !complete && cursor.snapshot === undefined && cursor.thinned === undefined;
  return inOneTick ? cursor.fingerprint : 0;
}
