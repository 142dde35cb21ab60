import type { Event } from "../../../src/core/event.ts";

/** A change as it lies in the outbox, in the total order. */
export interface Change {
  readonly tick: number;
  readonly operation: string;
  readonly key: string;
  readonly before: string | null;
  readonly after: string | null;
}

/**
 * What is wrong with "rows of the snapshot, then the changes after it, are the table". Every change must find exactly the
 * row that it says it changed, so that one that is missing, comes twice or belongs before the seam is seen at the seam and
 * not only if it shows in the end.
 */
export function handOffProblems(
  rows: readonly Event[],
  changes: readonly Change[],
  table: ReadonlyMap<string, string>,
): readonly string[] {
  const problems: string[] = [];
  const state = new Map<string, string>();
  for (const { key = "", after } of rows) {
    if (state.has(key)) problems.push(`snapshot has row ${key} twice`);
    state.set(key, Buffer.from(after ?? []).toString());
  }
  for (const { operation, key, before, after } of changes) {
    const found = state.get(key);
    if (operation === "I") {
      if (found !== undefined) problems.push(`insert of ${key}, which is there`);
    } else if (found !== before) {
      problems.push(`${operation} of ${key} changes ${before} but ${found ?? "nothing"} is there`);
    }
    if (after === null) state.delete(key);
    else state.set(key, after);
  }
  for (const [key, image] of table) {
    if (state.get(key) !== image)
      problems.push(`${key} ends as ${state.get(key) ?? "nothing"}, the table has ${image}`);
  }
  for (const key of state.keys()) if (!table.has(key)) problems.push(`${key} is not in the table`);
  return problems;
}
