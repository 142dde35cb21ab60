import type { Version } from "../event.ts";
import { type Page, pageEnd } from "../page.ts";

/** Events that a page is expected to hold before any was seen. */
const FIRST_SPAN = 1_024;
/** Page ends that are remembered. */
const MAX_ENDS = 256;

/**
 * Where reads of history begin, so that readers which stand near one another need the same page.
 *
 * A page begins wherever its reader stands; a thousand readers in one second's worth of events would need a thousand pages
 * that overlap. So a read begins before what was asked for: at the end of a page that was read lately, so that pages make
 * a chain, or else at a multiple of a power of two. The price is at most half a page that its reader has no use for.
 */
export class PageAlignment {
  /** What the pages seen lately hold: grows at once, shrinks by halves, for the page at the head is short by chance. */
  #span = FIRST_SPAN;
  /** Versions that pages ended with, oldest first. */
  readonly #ends = new Set<Version>();
  /** Nothing at or below it is kept. */
  #floor: Version = 0;

  /** The version after which to read, for a reader that wants `after + 1`. */
  startFor(after: Version): Version {
    const grid = 2 ** Math.max(0, Math.floor(Math.log2(this.#span)) - 1);
    let start = Math.max(Math.floor(after / grid) * grid, Math.min(this.#floor, after));
    for (const end of this.#ends) {
      if (end > start && end <= after) {
        start = end;
      }
    }
    return start;
  }

  /** Whether a page from `start + 1` on probably holds the version. */
  covers(start: Version, version: Version): boolean {
    return start < version && version <= start + this.#span;
  }

  /** A page was read. */
  saw(page: Page): void {
    this.#span = Math.max(page.events.length, Math.floor(this.#span / 2), 1);
    const end = pageEnd(page);
    this.#ends.delete(end);
    this.#ends.add(end);
    for (const oldest of this.#ends) {
      if (this.#ends.size <= MAX_ENDS) {
        break;
      }
      this.#ends.delete(oldest);
    }
  }

  /** Retention has dropped what is older than this. */
  lost(oldest: Version): void {
    this.#floor = Math.max(this.#floor, oldest - 1);
  }
}
