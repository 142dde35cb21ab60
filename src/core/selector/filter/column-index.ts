import type { Event } from "../../event.ts";
import { FAILED } from "./cel.ts";
import { Column } from "./column.ts";
import { type Key, keyOf, type Requirement } from "./requirement.ts";
import type { Row } from "./row.ts";
import { type RowCache, sharedRows } from "./row-cache.ts";

interface Shelf<T> {
  readonly column: Column;
  readonly all: Set<T>;
  readonly byKey: Map<Key, Set<T>>;
}

/**
 * Finds who may want an event by the values of its row, without looking at the others: whoever filters by
 * `row.customer == 42 && ...` lies under that value of that column.
 */
export class ColumnIndex<T> {
  readonly #rows: RowCache;
  readonly #shelves = new Map<string, Shelf<T>>();

  constructor(rows: RowCache = sharedRows) {
    this.#rows = rows;
  }

  get empty(): boolean {
    return this.#shelves.size === 0;
  }

  add(item: T, requirement: Requirement): void {
    for (const { column, values } of requirement) {
      const shelf = this.#shelves.get(column) ?? { column: new Column(column), all: new Set(), byKey: new Map() };
      this.#shelves.set(column, shelf);
      shelf.all.add(item);
      for (const value of values) {
        shelf.byKey.set(value, (shelf.byKey.get(value) ?? new Set()).add(item));
      }
    }
  }

  /** Takes away an item that leaves altogether: whatever else it was added with has to be taken away too. */
  delete(item: T, requirement: Requirement): void {
    for (const { column, values } of requirement) {
      const shelf = this.#shelves.get(column);
      shelf?.all.delete(item);
      for (const value of values) {
        const items = shelf?.byKey.get(value);
        items?.delete(item);
        if (items?.size === 0) {
          shelf?.byKey.delete(value);
        }
      }
      if (shelf?.all.size === 0) {
        this.#shelves.delete(column);
      }
    }
  }

  /**
   * Names everybody who may want the event, or whose filter may fail on it; some perhaps several times. Whoever is not named
   * would show nothing of it.
   */
  offer(event: Event, to: (item: T) => void): void {
    const rows = rowsOf(event, this.#rows);
    for (const shelf of this.#shelves.values()) {
      const keys = rows === undefined ? undefined : keysOf(shelf.column, rows);
      if (keys === undefined) {
        shelf.all.forEach(to);
        continue;
      }
      for (const key of keys) {
        shelf.byKey.get(key)?.forEach(to);
      }
    }
  }
}

/**
 * The rows that decide where the event's row stood and stands; `undefined` when something else does: TRUNCATE and what is told
 * of the schema pass every filter on rows, and where the row before is not known, its leaving is told to all.
 */
function rowsOf(event: Event, cache: RowCache): readonly Row[] | undefined {
  const { before, after, operation, key } = event;
  const changed = operation === "UPDATE" || operation === "DELETE";
  if (operation === "TRUNCATE" || (operation === "MESSAGE" && key === undefined) || (changed && before === undefined)) {
    return undefined;
  }
  const rows: Row[] = [];
  for (const scope of [before && cache.before(event), after && cache.after(event)]) {
    if (scope !== undefined && scope.row === undefined) {
      return undefined;
    }
    if (scope?.row !== undefined) {
      rows.push(scope.row);
    }
  }
  return rows;
}

/** `undefined` when a row lacks the column: then every filter that asks for it fails, and failures are counted. */
function keysOf(column: Column, rows: readonly Row[]): ReadonlySet<Key> | undefined {
  const keys = new Set<Key>();
  for (const row of rows) {
    const value = column.read(row);
    if (value === FAILED) {
      return undefined;
    }
    const key = keyOf(value);
    if (key !== undefined) {
      keys.add(key);
    }
  }
  return keys;
}
