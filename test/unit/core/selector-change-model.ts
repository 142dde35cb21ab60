import type { Event } from "../../../src/core/event.ts";
import type { Frame } from "../../../src/core/frame.ts";
import type { Selector } from "../../../src/core/selector/selector.ts";

/** One selector, as the model knows it: a row passes when its topic, its key and its `n` do. */
export interface Want {
  /** Empty for all. */
  readonly topics: readonly string[];
  readonly keys: readonly string[];
  /** Of `n`; `undefined` for any. */
  readonly least: number | undefined;
}

/** Selectors, and the columns that all of them show; `undefined` for all columns. */
export interface Selection {
  readonly wants: readonly Want[];
  readonly fields: readonly string[] | undefined;
}

export type Row = Readonly<Record<string, unknown>>;
type Rows = ReadonlyMap<string, Row>;

const decoder = new TextDecoder();

export function selectorsOf({ wants, fields = [] }: Selection): readonly Selector[] {
  return wants.map(({ topics, keys, least }) => ({
    topics,
    keys,
    operations: [],
    filter: least === undefined ? "" : `row.n >= ${least}`,
    fields,
  }));
}

/** The table as of any version, worked out from the whole history, one event at a time. */
export class Truth {
  readonly #events: Event[] = [];
  readonly #tables: Rows[] = [new Map()];
  /** Versions at which a tick ends. */
  readonly boundaries = new Set([0]);

  get head(): number {
    return this.#events.length;
  }

  add(event: Event): void {
    this.#events.push(event);
    const rows = new Map(this.#tables.at(-1));
    if (event.operation === "TRUNCATE") {
      dropTable(rows, event.topic);
    } else if (event.operation !== "MESSAGE") {
      const row = rowOf(event.after);
      if (row === undefined) {
        rows.delete(placeOf(event));
      } else {
        rows.set(placeOf(event), row);
      }
    }
    this.#tables.push(rows);
  }

  /** Rows as of a version, as a selection shows them. */
  rows(version: number, selection: Selection): Rows {
    const shown = new Map<string, Row>();
    for (const [place, row] of this.#tables[version] ?? []) {
      if (selects(selection, place, row)) {
        shown.set(place, columns(row, selection));
      }
    }
    return shown;
  }

  /** Versions after one and up to another that a selection has something to tell of. */
  versions(after: number, last: number, selection: Selection): readonly number[] {
    return this.#events
      .slice(after, last)
      .filter((event) => concerns(selection, event))
      .map(({ version }) => version);
  }
}

/** A client that applies what comes to the rows that it holds, and objects to what does not fit. */
export class Client {
  readonly objections: string[] = [];
  readonly rows = new Map<string, Row>();
  /** Changes that took effect, and snapshots that began again. */
  changes = 0;
  restarts = 0;
  gaps = 0;
  selection: Selection;
  readonly #truth: () => Truth;
  readonly #asked = new Map<number, Selection>();
  /** Everything up to here came. */
  #mark = 0;
  #came: number[] = [];
  /** Of the gaps since then; `undefined` when one does not say. */
  #dropped: number | undefined = 0;
  #gapTo = 0;
  #last = 0;
  #phase: "opening" | "snapshot" | "adding" | "events" = "opening";
  #rowsAt = 0;

  readonly #lossy: boolean;

  /** @param lossy - its policy leaves events out: what it holds is no table, but what it was told adds up */
  constructor(selection: Selection, truth: () => Truth, lossy: boolean) {
    this.selection = selection;
    this.#truth = truth;
    this.#lossy = lossy;
  }

  /** Its stream has accepted these selectors. */
  asked(number: number, selection: Selection): void {
    this.#asked.set(number, selection);
  }

  /** It goes on in another call, whose changes are counted anew. */
  reconnected(): void {
    this.#asked.clear();
  }

  take(frame: Frame): void {
    switch (frame.kind) {
      case "events":
        for (const event of frame.events) {
          this.#event(event);
        }
        break;
      case "gap":
        this.#gap(frame);
        break;
      case "checkpoint":
        if (frame.state !== "SNAPSHOT") {
          this.#check(frame.version, "a checkpoint");
        }
        break;
      case "selectors_changed":
        this.#change(frame.version, frame.number);
        break;
      case "snapshot_started":
        this.#start(frame);
        break;
      case "snapshot_complete":
        this.#phase = "events";
        this.#mark = frame.version;
        this.#last = frame.version;
        this.#came = [];
        this.#dropped = 0;
        this.#check(frame.version, "a snapshot");
        break;
      default:
    }
  }

  #change(version: number, number: number): void {
    this.#check(version, "a change");
    const selection = this.#asked.get(number);
    if (selection === undefined) {
      this.objections.push(`change ${number} was not asked for`);
      return;
    }
    const before = this.selection;
    if (!this.#truth().boundaries.has(version)) {
      this.objections.push(`a change takes effect at ${version}, in the middle of a tick`);
    }
    this.selection = selection;
    this.changes += 1;
    const kept = this.#truth().rows(version, selection);
    for (const place of [...this.rows.keys()]) {
      const row = kept.get(place);
      if (row === undefined || !showsAll(before, selection)) {
        this.rows.delete(place);
      } else {
        this.rows.set(place, row);
      }
    }
  }

  #start({ version, resumed, restart }: Extract<Frame, { kind: "snapshot_started" }>): void {
    this.#rowsAt = version;
    if (!resumed) {
      this.restarts += restart ? 1 : 0;
      this.rows.clear();
      this.#last = 0;
    }
    this.#phase = resumed && this.#phase === "events" ? "adding" : "snapshot";
  }

  #event(event: Event): void {
    const name = `${event.version} ${event.operation} ${placeOf(event)}`;
    if (event.operation === "SNAPSHOT") {
      // What it holds against what it was told to forget in a gap is no matter.
      const held = !this.#lossy && this.rows.has(placeOf(event));
      if (this.#phase === "events" || event.version !== this.#rowsAt || held) {
        this.objections.push(`${name} is no row that is missing`);
      }
      this.rows.set(placeOf(event), rowOf(event.after) ?? {});
      return;
    }
    if (this.#phase === "adding" || event.version <= this.#last) {
      this.objections.push(`${name} comes after ${this.#last} (${this.#phase})`);
    }
    this.#last = event.version;
    this.#came.push(event.version);
    this.#apply(event);
  }

  #apply(event: Event): void {
    if (event.operation === "TRUNCATE") {
      dropTable(this.rows, event.topic);
    } else if (event.operation !== "MESSAGE") {
      const row = event.transition === "LEFT" ? undefined : rowOf(event.after);
      if (row === undefined) {
        this.rows.delete(placeOf(event));
      } else {
        this.rows.set(placeOf(event), row);
      }
    }
  }

  #gap({ firstVersion, lastVersion, dropped }: Extract<Frame, { kind: "gap" }>): void {
    if (!this.#lossy || firstVersion <= this.#gapTo || this.#phase !== "events") {
      this.objections.push(`a gap from ${firstVersion} to ${lastVersion} after one to ${this.#gapTo} (${this.#phase})`);
    }
    this.#gapTo = lastVersion;
    this.#dropped = dropped === undefined || this.#dropped === undefined ? undefined : this.#dropped + dropped;
    this.gaps += 1;
  }

  /** Everything came, or was said to be left out. */
  #adds(due: readonly number[]): boolean {
    const dropped = this.#dropped ?? due.length - this.#came.length;
    return due.length === this.#came.length + dropped && this.#came.every((version) => due.includes(version));
  }

  #check(version: number, at: string): void {
    const truth = this.#truth();
    const due = truth.versions(this.#mark, version, this.selection);
    if (!this.#adds(due) || this.#gapTo > version) {
      this.objections.push(`at ${at} of ${version}: ${this.#came} came after ${this.#mark} where ${due} is due`);
    }
    this.#mark = version;
    this.#came = [];
    this.#dropped = 0;
    if (this.#lossy) {
      return;
    }
    const [held, should] = [textOf(this.rows), textOf(truth.rows(version, this.selection))];
    if (held !== should) {
      this.objections.push(`at ${at} of ${version} it holds ${held} and not ${should}`);
    }
  }
}

function showsAll(before: Selection, next: Selection): boolean {
  return before.fields === undefined || (next.fields?.every((field) => before.fields?.includes(field)) ?? false);
}

function concerns(selection: Selection, event: Event): boolean {
  const { operation, before, after } = event;
  const place = placeOf(event);
  if (operation === "TRUNCATE") {
    return selection.wants.some(({ topics }) => topics.length === 0 || topics.some((t) => wantsTable(t, event.topic)));
  }
  if (operation === "MESSAGE") {
    return selection.wants.some((want) => wantsTopic(want, event.topic) && want.keys.length + (want.least ?? 0) === 0);
  }
  return [before, after].some((image) => {
    const row = rowOf(image);
    return row !== undefined && selects(selection, place, row);
  });
}

function selects({ wants }: Selection, place: string, row: Row): boolean {
  const [topic = "", key = ""] = place.split("/");
  return wants.some(
    (want) =>
      wantsTopic(want, topic) &&
      (want.keys.length === 0 || want.keys.includes(key)) &&
      (want.least === undefined || Number(row.n) >= want.least),
  );
}

function wantsTopic({ topics }: Want, topic: string): boolean {
  return topics.length === 0 || topics.some((pattern) => pattern === topic || matchesWild(pattern, topic));
}

function matchesWild(pattern: string, topic: string): boolean {
  return pattern.endsWith(".*") && topic.startsWith(pattern.slice(0, -1));
}

function wantsTable(pattern: string, source: string): boolean {
  return pattern.split(".")[0] === source.split(".")[0];
}

function dropTable(rows: Map<string, Row>, source: string): void {
  for (const place of [...rows.keys()]) {
    if (wantsTable(place.split("/")[0] ?? "", source)) {
      rows.delete(place);
    }
  }
}

function columns(row: Row, { fields }: Selection): Row {
  return fields === undefined ? row : Object.fromEntries(Object.entries(row).filter(([name]) => fields.includes(name)));
}

function placeOf({ topic, key }: Event): string {
  return `${topic}/${key ?? ""}`;
}

function rowOf(image: Uint8Array | undefined): Row | undefined {
  return image === undefined ? undefined : JSON.parse(decoder.decode(image));
}

function textOf(rows: Rows): string {
  return JSON.stringify([...rows].sort(([a], [b]) => (a < b ? -1 : 1)));
}
