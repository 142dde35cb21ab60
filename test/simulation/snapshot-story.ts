import type { SeenEvent, SeenFrame } from "../support/checker/seen.ts";
import type { Selection } from "../support/checker/selection.ts";

type Rows = Map<string, string>;

/** What a client holds of a snapshot that is being delivered, kept as docs/filters.md tells it to. */
export class SnapshotStory {
  readonly #rows: Rows = new Map();
  readonly #object: (text: string) => void;

  constructor(object: (text: string) => void) {
    this.#object = object;
  }

  started({ restart, resumed }: Extract<SeenFrame, { kind: "snapshot_started" }>): void {
    if (restart) {
      this.#rows.clear();
    } else if (!resumed && this.#rows.size > 0) {
      this.#object("a snapshot goes on with rows of an earlier one, and says nothing of it");
    }
  }

  apply(events: readonly SeenEvent[]): void {
    for (const event of events) {
      const place = `${event.topic}/${event.key}`;
      if (event.operation === "SNAPSHOT" && this.#rows.has(place)) {
        this.#object(`a snapshot has ${place} twice`);
      }
      applyTo(this.#rows, event);
    }
  }

  /** It is whole: these are the rows that there were, as far as they are wanted. */
  complete(version: number, history: readonly SeenEvent[], selection: Selection): void {
    const table: Rows = new Map();
    for (const event of history.slice(0, version)) {
      applyTo(table, event);
    }
    const rows: Rows = new Map();
    for (const [place, after] of table) {
      const [topic = "", key] = place.split("/");
      const row = { ...ROW, version, topic, key, after };
      applyTo(rows, selection.see(row) ?? { ...row, after: undefined });
    }
    for (const place of new Set([...rows.keys(), ...this.#rows.keys()])) {
      if (rows.get(place) !== this.#rows.get(place)) {
        this.#object(`at v${version} the snapshot has ${place} as ${this.#rows.get(place)}, not ${rows.get(place)}`);
      }
    }
  }
}

const ROW = {
  operation: "SNAPSHOT",
  before: undefined,
  transaction: "",
  occurredAtMicros: 0,
  headers: undefined,
} as const;

function applyTo(rows: Rows, { topic, key, operation, after, transition }: SeenEvent): void {
  if (operation === "MESSAGE") {
    return;
  }
  const place = `${topic}/${key}`;
  if (operation === "TRUNCATE") {
    const name = topic.split(".")[0];
    for (const each of rows.keys()) {
      if (each.startsWith(`${name}/`) || each.startsWith(`${name}.`)) rows.delete(each);
    }
  } else if (operation === "DELETE" || transition === "LEFT" || after === undefined) {
    rows.delete(place);
  } else {
    rows.set(place, after);
  }
}
