import type { Event, Image } from "../../event.ts";
import { type Row, rowFromImage } from "./row.ts";
import type { Scope } from "./scope.ts";

/** Events whose rows are remembered: those of a batch or two, for lanes go through the log one after the other. */
const PLACES = 4_096;
/** Bytes of images behind the rows that are remembered; a row holds its text, and the values that were read. */
const MAX_BYTES = 16 * 1024 * 1024;

interface Entry {
  readonly event: Event;
  before: Scope | undefined;
  after: Scope | undefined;
  whole: Scope | undefined;
}

/** What filters see of recent events, so that each image is taken apart at most once for all filters that look inside. */
export class RowCache {
  readonly #entries: (Entry | undefined)[] = new Array(PLACES).fill(undefined);
  #bytes = 0;

  /** For filters on rows: the row before. It is undefined when the image is no JSON. */
  before(event: Event): Scope {
    const entry = this.#entryOf(event);
    entry.before ??= scopeOf(this.#rowOf(event.before));
    return entry.before;
  }

  /** For filters on rows: the row after. It is undefined when the image is no JSON. */
  after(event: Event): Scope {
    const entry = this.#entryOf(event);
    entry.after ??= scopeOf(this.#rowOf(event.after));
    return entry.after;
  }

  /** For filters on events: all of it. `row` is what the event left, and where it left none, what it took. */
  whole(event: Event): Scope {
    const entry = this.#entryOf(event);
    if (entry.whole === undefined) {
      const before = this.before(event).row;
      const after = this.after(event).row;
      entry.whole = { row: after ?? before, before, after, event };
    }
    return entry.whole;
  }

  #entryOf(event: Event): Entry {
    const place = event.version % PLACES;
    const known = this.#entries[place];
    if (known?.event === event) {
      return known;
    }
    const entry: Entry = { event, before: undefined, after: undefined, whole: undefined };
    this.#entries[place] = entry;
    return entry;
  }

  #rowOf(image: Image | undefined): Row | undefined {
    if (image === undefined) {
      return undefined;
    }
    this.#bytes += image.length;
    if (this.#bytes > MAX_BYTES) {
      // Rows come and go with their places; it is enough to begin anew now and then.
      this.#entries.fill(undefined);
      this.#bytes = image.length;
    }
    try {
      return rowFromImage(image);
    } catch {
      return undefined;
    }
  }
}

function scopeOf(row: Row | undefined): Scope {
  return { row, before: undefined, after: undefined, event: undefined };
}

/** The rows of all feeds of this process: what they are made of never changes. */
export const sharedRows: RowCache = new RowCache();
