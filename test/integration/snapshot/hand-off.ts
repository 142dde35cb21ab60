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

/**
 * What is wrong with a sequence of rows and events that should make these tables, held to the same rule: whatever changes a
 * row finds it as it says it was, and whatever brings one finds none.
 *
 * @param tables by table, which is a topic's first token, and key.
 */
export function sequenceProblems(
  steps: readonly Event[],
  tables: ReadonlyMap<string, ReadonlyMap<string, string>>,
): readonly string[] {
  const problems: string[] = [];
  const states = new Map([...tables.keys()].map((name) => [name, new Map<string, string>()]));
  for (const { topic, key = "", operation, before, after } of steps) {
    const name = topic.split(".")[0] ?? "";
    const state = states.get(name);
    if (state === undefined) continue;
    const found = state.get(key);
    if (operation === "TRUNCATE") state.clear();
    else if (operation === "SNAPSHOT" || operation === "INSERT") {
      if (found !== undefined) problems.push(`${operation} of ${name} ${key}, which is there`);
    } else if (found !== textOf(before)) {
      problems.push(`${operation} of ${name} ${key} changes ${textOf(before)} but ${found ?? "nothing"} is there`);
    }
    const image = textOf(after);
    if (image !== undefined) state.set(key, image);
    else if (operation === "DELETE") state.delete(key);
  }
  for (const [name, state] of states) {
    const table = tables.get(name) ?? new Map();
    for (const key of new Set([...state.keys(), ...table.keys()])) {
      if (state.get(key) !== table.get(key))
        problems.push(`${name} ${key} ends as ${state.get(key) ?? "nothing"}, the table has ${table.get(key)}`);
    }
  }
  return problems;
}

function textOf(image: Uint8Array | undefined): string | undefined {
  return image === undefined ? undefined : Buffer.from(image).toString();
}
