import type { SeenEvent } from "./seen.ts";

/** What a stream wants, in plain words: which events it sees, and as what. */
export interface Selection {
  readonly name: string;
  /** Everything passes, whole. */
  readonly everything: boolean;
  /** The event as the stream is to see it; `undefined` when it is not to. */
  readonly see: (event: SeenEvent) => SeenEvent | undefined;
}

/** The events of a history that a selection lets through. Grows with it. */
export class Matching {
  readonly #selection: Selection;
  readonly #history: readonly SeenEvent[];
  readonly #views: SeenEvent[] = [];
  #looked = 0;

  constructor(selection: Selection, history: readonly SeenEvent[]) {
    this.#selection = selection;
    this.#history = history;
  }

  /** The first one after a version; `undefined` when there is none yet. */
  after(version: number): SeenEvent | undefined {
    return this.#all()[this.#index(version)];
  }

  /** Those after a version, up to another. */
  between(after: number, to: number): readonly SeenEvent[] {
    const all = this.#all();
    return all.slice(this.#index(after), this.#index(to));
  }

  count(after: number, to: number): number {
    return this.#index(to) - this.#index(after);
  }

  /** How many there are up to a version, and so where the next one stands. */
  #index(version: number): number {
    const all = this.#all();
    let low = 0;
    let high = all.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((all[middle]?.version ?? 0) <= version) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }

  #all(): readonly SeenEvent[] {
    for (; this.#looked < this.#history.length; this.#looked++) {
      const event = this.#history[this.#looked];
      const view = event && this.#selection.see(event);
      if (view !== undefined) {
        this.#views.push(view);
      }
    }
    return this.#views;
  }
}

/** A row filter, by its meaning: what happens to the set of rows of which `holds` is true. */
export function rowsThat(holds: (row: string) => boolean, event: SeenEvent): SeenEvent | undefined {
  const { operation, before, after } = event;
  const was = before !== undefined && holds(before);
  const is = after !== undefined && holds(after);
  switch (operation) {
    case "TRUNCATE":
      return event;
    case "DELETE":
      return was ? event : undefined;
    case "UPDATE":
      if (is) return was ? event : { ...event, transition: "ENTERED" };
      return was ? { ...event, before: undefined, after: undefined, transition: "LEFT" } : undefined;
    default:
      return is ? event : undefined;
  }
}
