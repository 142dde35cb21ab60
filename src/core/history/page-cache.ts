import type { Version } from "../event.ts";
import { type Page, pageEnd } from "../page.ts";
import type { Clock, Timers } from "../ports.ts";

/** However small they are: a lookup passes them all. */
const MAX_PAGES = 256;

/** How much a cache keeps, and for how long. */
export interface PageCacheOptions {
  /** By `eventBytes`. A page that is larger is not kept; 0 keeps none. */
  readonly maxBytes: number;
  /** Milliseconds after its last use at which a page goes, so that a cache that nobody uses holds nothing. */
  readonly maxIdleMs: number;
  readonly clock: Pick<Clock, "monotonic">;
  readonly timers: Pick<Timers, "after">;
}

interface Kept {
  readonly page: Page;
  usedAtMs: number;
}

/** Pages that were read a moment ago, the least recently used leaving first. */
export class PageCache {
  readonly #options: PageCacheOptions;
  /** By first version, in the order of their last use. */
  readonly #kept = new Map<Version, Kept>();
  #bytes = 0;
  #cancelSweep: (() => void) | undefined;

  constructor(options: PageCacheOptions) {
    this.#options = options;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get pages(): number {
    return this.#kept.size;
  }

  /** A page that holds this version, not necessarily as its first. */
  holding(version: Version): Page | undefined {
    for (const [firstVersion, kept] of this.#kept) {
      if (firstVersion <= version && version <= pageEnd(kept.page)) {
        kept.usedAtMs = this.#options.clock.monotonic();
        this.#kept.delete(firstVersion);
        this.#kept.set(firstVersion, kept);
        return kept.page;
      }
    }
    return undefined;
  }

  add(page: Page): void {
    const { maxBytes, clock } = this.#options;
    this.#drop(page.firstVersion);
    if (page.bytes > maxBytes) {
      return;
    }
    this.#kept.set(page.firstVersion, { page, usedAtMs: clock.monotonic() });
    this.#bytes += page.bytes;
    for (const firstVersion of this.#kept.keys()) {
      if (this.#bytes <= maxBytes && this.#kept.size <= MAX_PAGES) {
        break;
      }
      this.#drop(firstVersion);
    }
    this.#sweepLater();
  }

  clear(): void {
    this.#cancelSweep?.();
    this.#cancelSweep = undefined;
    this.#kept.clear();
    this.#bytes = 0;
  }

  #drop(firstVersion: Version): void {
    this.#bytes -= this.#kept.get(firstVersion)?.page.bytes ?? 0;
    this.#kept.delete(firstVersion);
  }

  /** One timer for all pages: it is set for the one that was used longest ago. */
  #sweepLater(): void {
    const [first] = this.#kept.values();
    if (this.#cancelSweep !== undefined || first === undefined) {
      return;
    }
    const { maxIdleMs, clock, timers } = this.#options;
    // Never for this very moment: by rounding it may lie a hair before the page's time, again and again.
    this.#cancelSweep = timers.after(Math.max(1, first.usedAtMs + maxIdleMs - clock.monotonic()), () => {
      this.#cancelSweep = undefined;
      const before = clock.monotonic() - maxIdleMs;
      for (const [firstVersion, { usedAtMs }] of this.#kept) {
        if (usedAtMs > before) {
          break;
        }
        this.#drop(firstVersion);
      }
      this.#sweepLater();
    });
  }
}
