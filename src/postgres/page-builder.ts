import { FeedError } from "../core/errors.ts";
import type { Event, Version } from "../core/event.ts";
import { eventBytes, type Page, type Tick } from "../core/page.ts";
import { type PagePlan, TickFinder } from "./page-plan.ts";

/**
 * Puts rows that come in the order of seq into the order of versions, and refuses to hand out a page in which a tick has
 * more or fewer rows than were settled: a hole in the order would otherwise go unnoticed for good.
 */
export class PageBuilder {
  readonly #plan: PagePlan;
  readonly #finder: TickFinder;
  /** Per batch: the version of its next row, and rows that are still to come. */
  readonly #next: Version[];
  readonly #left: number[];
  readonly #events: Event[];
  #bytes = 0;
  #rows = 0;
  /** The seq of the row added last. */
  lastSeq = 0;

  constructor(plan: PagePlan) {
    this.#plan = plan;
    this.#finder = new TickFinder(plan.batches);
    const single = plan.batches.length === 1;
    // Only the first batch begins anywhere else than at its first row.
    const ahead = (index: number) => (index === 0 ? plan.skip - plan.dropped : 0);
    this.#next = plan.batches.map(({ tick }, index) => tick.firstVersion + ahead(index));
    this.#left = plan.batches.map(({ tick }) => (single ? plan.dropped + plan.rows : tick.count));
    this.#events = new Array(plan.rows);
  }

  get bytes(): number {
    return this.#bytes;
  }

  get rows(): number {
    return this.#rows;
  }

  /** The version of the next row, which this transaction wrote. */
  versionOf(xid: number): Version {
    const index = this.#finder.indexOf(xid);
    const version = this.#next[index] ?? 0;
    const left = this.#left[index] ?? 0;
    if (left === 0) throw this.#mismatch(index, "more");
    this.#next[index] = version + 1;
    this.#left[index] = left - 1;
    return version;
  }

  add(event: Event, seq: number): void {
    if (event.version < this.#plan.firstVersion) return;
    this.#events[event.version - this.#plan.firstVersion] = event;
    this.#bytes += eventBytes(event);
    this.#rows += 1;
    this.lastSeq = seq;
  }

  /**
   * The page; after `cut`, when reading stopped early, as far as it has no holes: rows of a later tick may have come before
   * those of an earlier one. `undefined` when nothing is left then.
   */
  build(cut: boolean): Page | undefined {
    const ticks: Tick[] = [];
    let count = 0;
    for (const [index, { tick }] of this.#plan.batches.entries()) {
      const left = this.#left[index] ?? 0;
      if (left > 0 && !cut) throw this.#mismatch(index, "fewer");
      const got = Math.max(0, (this.#next[index] ?? 0) - Math.max(tick.firstVersion, this.#plan.firstVersion));
      if (got > 0) ticks.push(tick);
      count += got;
      if (left > 0) break;
    }
    if (count === 0) return undefined;
    const whole = count === this.#rows;
    const events = count === this.#events.length ? this.#events : this.#events.slice(0, count);
    const bytes = whole ? this.#bytes : events.reduce((sum, event) => sum + eventBytes(event), 0);
    return { firstVersion: this.#plan.firstVersion, events, ticks, bytes };
  }

  #mismatch(index: number, which: "more" | "fewer"): FeedError {
    const { tick } = this.#plan.batches[index] ?? { tick: { tick: -1, count: 0 } };
    return new FeedError(
      "INTERNAL",
      `Tick ${tick.tick} settled ${tick.count} events and has ${which} now.`,
      "Something changed millrace.outbox from outside: restore it, or report this with what was done.",
    );
  }
}
