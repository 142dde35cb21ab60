import { type Cursor, decodeCursor } from "../cursor.ts";
import type { StoredPosition } from "./subscription-store.ts";

/**
 * Orders positions of one version: -1 before a snapshot's first row, then its rows one after the other, and a number above all
 * of them for what is in no snapshot, or has a cursor that nobody can read.
 */
export function placeInVersion({ cursor }: Pick<StoredPosition, "cursor">): number {
  const { snapshot } = readable(cursor) ?? {};
  if (snapshot === undefined) return Number.MAX_SAFE_INTEGER;
  return snapshot === "anew" ? -1 : snapshot.rows;
}

function readable(text: string): Cursor | undefined {
  try {
    return decodeCursor(text);
  } catch {
    return undefined;
  }
}
