import { FeedError } from "../core/errors.ts";
import { type Event, rowKey, rowTopic } from "../core/event.ts";
import { type Tick, tickEnd } from "../core/page.ts";
import type { SnapshotPart, SnapshotPlace, SnapshotReader, SnapshotRequest, SnapshotRows } from "../core/ports.ts";
import { compareKeys, type Row, type Tables } from "./tables.ts";

/** What is copied, and how much of it at once. */
export interface CopyOptions {
  readonly request: SnapshotRequest;
  readonly unordered: readonly string[];
  readonly batchRows: number;
  /** Rows after which the copy is cut. */
  readonly maxRows: number;
}

/** The wanted sources as of a tick that has just settled. Nothing is copied before it returns or changes afterwards. */
export function copyTables(tables: Tables, tick: Tick, options: CopyOptions, signal: AbortSignal): SnapshotReader {
  const { request, unordered } = options;
  const topics = tables.sources.filter((source) => request.wantsSource(source));
  const rows = topics.map((topic) => wantedRows(tables.settled(topic), request.wantedKeys?.(topic)));
  const shape = digest(JSON.stringify([request.selection ?? "", topics]));
  const parts = topics.map((topic, at): SnapshotPart => {
    return { topic, ordered: !unordered.includes(topic), estimatedRows: rows[at]?.length };
  });
  const { after } = request;
  const place = after !== undefined && isGood(after, shape, parts) ? after : undefined;
  return new TableCopy({ tables, tick, options, signal, rows, shape, parts, place });
}

interface Copied {
  readonly tables: Tables;
  readonly tick: Tick;
  readonly options: CopyOptions;
  readonly signal: AbortSignal;
  /** Of each part, in the order of keys. */
  readonly rows: readonly (readonly Row[])[];
  readonly shape: number;
  readonly parts: readonly SnapshotPart[];
  /** Where the rows begin; `undefined` for at the first. */
  readonly place: SnapshotPlace | undefined;
}

class TableCopy implements SnapshotReader {
  readonly tick: Tick;
  readonly parts: readonly SnapshotPart[];
  readonly shape: number;
  readonly resumed: boolean;
  cut = false;
  readonly #copied: Copied;

  constructor(copied: Copied) {
    this.#copied = copied;
    this.tick = copied.tick;
    this.parts = copied.parts;
    this.shape = copied.shape;
    this.resumed = copied.place !== undefined;
  }

  async *rows(): AsyncGenerator<SnapshotRows, void, undefined> {
    const { place, rows, options, signal } = this.#copied;
    let left = options.maxRows;
    for (const [part, all] of rows.entries()) {
      const due = all.filter(({ key }) => place === undefined || !covers(place, part, key));
      for (let at = 0; at < due.length; ) {
        signal.throwIfAborted();
        if (left === 0) {
          this.#assertOrder(part, at);
          this.cut = true;
          yield { part, events: [] };
          return;
        }
        const batch = due.slice(at, at + Math.min(options.batchRows, left));
        at += batch.length;
        left -= batch.length;
        yield { part, events: batch.map((row) => this.#event(row)) };
      }
    }
  }

  async concerning(events: readonly Event[]): Promise<readonly Event[]> {
    const { place, tables, parts } = this.#copied;
    if (place === undefined) {
      throw new FeedError("INTERNAL", "This snapshot does not go on from an earlier one.", "Take it from its start.");
    }
    return events.filter((event) => {
      const source = tables.sourceOf(rowTopic(event));
      const part = parts.findIndex((one) => one.topic === source);
      return part < 0 || covers(place, part, rowKey(event));
    });
  }

  async close(): Promise<void> {
    // Nothing is held.
  }

  /** Where there is no order to go on in, too little room is an error. */
  #assertOrder(part: number, copied: number): void {
    if (copied > 0 && this.parts[part]?.ordered === false) {
      throw new FeedError("LIMIT_EXCEEDED", "A source without an order does not fit.", "Raise `snapshotMaxRows`.");
    }
  }

  #event({ topic, key, image }: Row): Event {
    return {
      version: tickEnd(this.tick),
      topic,
      key,
      operation: "SNAPSHOT",
      before: undefined,
      after: image,
      transaction: "",
      occurredAtMicros: this.tick.timeMicros,
      headers: undefined,
    };
  }
}

/** What has no key is about all rows: it concerns those that were copied as soon as there is one. */
function covers(place: SnapshotPlace, part: number, key: string | undefined): boolean {
  if (part !== place.sources) {
    return part < place.sources;
  }
  return place.key !== undefined && (key === undefined || compareKeys(key, place.key) <= 0);
}

function isGood(place: SnapshotPlace, shape: number, parts: readonly SnapshotPart[]): boolean {
  const within = place.key !== undefined;
  const possible = within ? parts[place.sources]?.ordered === true : place.sources <= parts.length;
  return place.shape === shape && possible;
}

function wantedRows(rows: readonly Row[], keys: readonly string[] | undefined): readonly Row[] {
  const wanted = keys === undefined ? undefined : new Set(keys);
  return wanted === undefined ? rows : rows.filter(({ key }) => wanted.has(key));
}

/** FNV-1a. */
function digest(text: string): number {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(text)) {
    hash = Math.imul(hash ^ byte, 0x01000193);
  }
  return hash >>> 0;
}
