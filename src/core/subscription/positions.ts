import { type Cursor, decodeCursor, encodeCursor } from "../cursor.ts";
import type { StoredPosition } from "./subscription-store.ts";

/** A cursor as it is kept. */
export function storedPosition(cursor: Cursor): StoredPosition {
  return { cursor: encodeCursor(cursor), epoch: cursor.epoch, version: cursor.version };
}

/** The cursor that is kept. */
export function cursorOfPosition({ cursor }: StoredPosition): Cursor {
  return decodeCursor(cursor);
}

/**
 * Whether a position of the same epoch lies before another: by its version, and in the middle of the same snapshot by the rows
 * that were delivered. Positions of two epochs have no order here.
 */
export function isBehind(position: Cursor, other: Cursor): boolean {
  if (position.epoch !== other.epoch) {
    return false;
  }
  return position.version < other.version || (position.version === other.version && rank(position) < rank(other));
}

/** Within one version: the snapshot yet to be taken, its rows one after the other, what follows it. */
function rank({ snapshot }: Cursor): number {
  if (snapshot === undefined) {
    return Number.POSITIVE_INFINITY;
  }
  return snapshot === "anew" ? -1 : snapshot.rows;
}
