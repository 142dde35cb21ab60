import type { Event, Image } from "../core/event.ts";
import { isTopicTemplate, patternMatches } from "../core/selector/topic.ts";
import type { Transactions } from "./transactions.ts";

/** A row as the last tick left it, or as writers see it. */
export interface Row {
  readonly topic: string;
  readonly key: string;
  readonly image: Image;
}

/**
 * The rows of the sources, twice: as writers see them, with the locks that make conflicting writers wait for one another,
 * and as the last tick left them, which is what a snapshot copies. A source has one row of a key, whatever its topic.
 */
export class Tables {
  #sources: readonly string[];
  readonly #transactions: Transactions;
  readonly #working = new Map<string, Row>();
  readonly #settled = new Map<string, Map<string, Row>>();
  /** Who holds a row. Entries of transactions that are over mean nothing and are written over. */
  readonly #locks = new Map<string, { readonly xid: number; readonly source: string }>();
  readonly #truncating = new Map<string, number>();

  constructor(sources: readonly string[], transactions: Transactions) {
    this.#sources = sources;
    this.#transactions = transactions;
    for (const source of sources) {
      this.#settled.set(source, new Map());
    }
  }

  get sources(): readonly string[] {
    return this.#sources;
  }

  add(source: string): void {
    this.#sources = [...this.#sources, source];
    this.#settled.set(source, new Map());
  }

  drop(source: string): void {
    this.clear(source);
    this.#settled.delete(source);
    this.#sources = this.#sources.filter((one) => one !== source);
  }

  /** The source that an event of this topic would come from. */
  sourceOf(topic: string): string | undefined {
    const tokens = topic.split(".");
    const exact = { text: topic, tokens, tail: false, exact: true };
    return this.sources.find(
      (source) => source === topic || (isTopicTemplate(source) && patternMatches(exact, source)),
    );
  }

  /** The row of this key, perhaps at another topic of the same source. */
  row(topic: string, key: string): Row | undefined {
    return this.#working.get(this.#rowId(topic, key));
  }

  /** Waits for the transaction that holds the row, or its whole source. */
  async lockRow(xid: number, topic: string, key: string, signal: AbortSignal): Promise<void> {
    const id = this.#rowId(topic, key);
    const source = this.sourceOf(topic) ?? topic;
    await this.#transactions.until(() => {
      return !this.#heldByOther(this.#locks.get(id)?.xid, xid) && !this.#heldByOther(this.#truncating.get(source), xid);
    }, signal);
    this.#locks.set(id, { xid, source });
  }

  async lockSource(xid: number, source: string, signal: AbortSignal): Promise<void> {
    await this.#transactions.until(() => {
      const rowHeld = this.#locks.values().some((lock) => lock.source === source && this.#heldByOther(lock.xid, xid));
      return !rowHeld && !this.#heldByOther(this.#truncating.get(source), xid);
    }, signal);
    this.#truncating.set(source, xid);
  }

  /** Sets or, with no image, removes a row; the result undoes it. */
  write(topic: string, key: string, image: Image | undefined): () => void {
    const id = this.#rowId(topic, key);
    const before = this.#working.get(id);
    setOrDelete(this.#working, id, image === undefined ? undefined : { topic, key, image });
    return () => setOrDelete(this.#working, id, before);
  }

  /** Removes all rows of a source; the result undoes it. */
  clear(source: string): () => void {
    const gone = [...this.#working].filter(([, row]) => this.sourceOf(row.topic) === source);
    for (const [id] of gone) {
      this.#working.delete(id);
    }
    return () => {
      for (const [id, row] of gone) {
        this.#working.set(id, row);
      }
    };
  }

  /** Brings the settled rows up to a tick. */
  apply(events: readonly Event[]): void {
    for (const { topic, key, operation, after } of events) {
      const source = this.sources.includes(topic) ? topic : this.sourceOf(topic);
      const rows = source === undefined ? undefined : this.#settled.get(source);
      if (operation === "TRUNCATE") {
        rows?.clear();
      } else if (key !== undefined && operation !== "MESSAGE" && rows !== undefined) {
        setOrDelete(rows, this.#rowId(topic, key), after === undefined ? undefined : { topic, key, image: after });
      }
    }
  }

  /** Brings empty tables to where these events led, all of them, for writers too. */
  restore(events: readonly Event[]): void {
    this.apply(events);
    for (const rows of this.#settled.values()) {
      for (const [id, row] of rows) {
        this.#working.set(id, row);
      }
    }
  }

  /** The settled rows of a source, in key order. */
  settled(source: string): readonly Row[] {
    const rows = [...(this.#settled.get(source)?.values() ?? [])];
    return rows.sort((a, b) => compareKeys(a.key, b.key));
  }

  #rowId(topic: string, key: string): string {
    return `${this.sourceOf(topic) ?? topic}\0${key}`;
  }

  #heldByOther(holder: number | undefined, xid: number): boolean {
    return holder !== undefined && holder !== xid && this.#transactions.running(holder);
  }
}

/** The order of a source's rows. */
export function compareKeys(a: string, b: string): number {
  return a < b ? -1 : Number(a > b);
}

function setOrDelete<T>(map: Map<string, T>, key: string, value: T | undefined): void {
  if (value === undefined) {
    map.delete(key);
  } else {
    map.set(key, value);
  }
}
