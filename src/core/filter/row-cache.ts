import type { Event, Image } from "../event.ts";
import { type Row, rowFromImage } from "./row.ts";

/** Events whose rows are remembered: those of a batch or two, for lanes go through the log one after the other. */
const PLACES = 4_096;
/** Bytes of images behind the rows that are remembered; a row holds its text, and the values that were read. */
const MAX_BYTES = 16 * 1024 * 1024;

interface Entry {
  readonly event: Event;
  before: Row | undefined;
  after: Row | undefined;
}

/**
 * The rows of recent events, so that each image is taken apart at most once for all filters that look inside. An image that
 * is no JSON has no row.
 */
export class RowCache {
  readonly #entries: (Entry | undefined)[] = new Array(PLACES).fill(undefined);
  #bytes = 0;

  before(event: Event): Row | undefined {
    const entry = this.#entryOf(event);
    entry.before ??= this.#rowOf(event.before);
    return entry.before;
  }

  after(event: Event): Row | undefined {
    const entry = this.#entryOf(event);
    entry.after ??= this.#rowOf(event.after);
    return entry.after;
  }

  #entryOf(event: Event): Entry {
    const place = event.version % PLACES;
    const known = this.#entries[place];
    if (known?.event === event) {
      return known;
    }
    const entry: Entry = { event, before: undefined, after: undefined };
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

/** The rows of all feeds of this process: what they are made of never changes. */
export const sharedRows: RowCache = new RowCache();
