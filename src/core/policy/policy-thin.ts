import type { Event, Version } from "../event.ts";
import type { Log } from "../log/log.ts";
import { type Page, tickEnd } from "../page.ts";
import type { Progress } from "../stream/scan.ts";
import { type Course, FREE, MAX_PIECE, type Thinned, type Verdict } from "./policy.ts";

/** Events looked at before others get their turn. */
const LOOK_BUDGET = 4_096;

/** What LATEST and SAMPLE go by. */
export interface ThinOptions {
  readonly feed: { readonly log: Log };
  /** As the stream's lane sees events. */
  readonly view: (event: Event) => Event | undefined;
  /** As `Thinned.every`. */
  readonly every: number;
  readonly maxLagEvents: number;
}

/**
 * Delivers a choice of what it is behind, piece by piece: first it looks through a piece and says in a gap how many of its
 * events it leaves out, then it delivers the others in their places.
 *
 * A piece ends with a tick, unless not a single tick ends within its bounds; so nothing is left out for the sake of an event
 * on the other side of a checkpoint. The choice is made from the piece's end backwards: what is kept after a version depends
 * on what follows it alone, so a cursor in the middle of a piece needs no more than the piece's end to go on with the same
 * choice, of which the gap has told already.
 */
export class Thin implements Course {
  readonly #options: ThinOptions;
  /** A piece that is being looked through. */
  #look: Look | undefined;
  /** A piece that is being delivered. */
  #piece: { readonly thinned: Thinned; readonly kept: ReadonlySet<Version> } | undefined;
  /** Up to here there is nothing to leave out. */
  #clearTo: Version = 0;

  constructor(options: ThinOptions) {
    this.#options = options;
  }

  get piece(): Thinned | undefined {
    return this.#piece?.thinned;
  }

  next(progress: Progress, pageAfter: (after: Version) => Page | undefined): Verdict {
    const { scanned } = progress;
    if (this.#piece !== undefined && scanned >= this.#piece.thinned.until) {
      this.#piece = undefined;
    }
    if (this.#piece !== undefined) {
      return { kind: "deliver", until: this.#piece.thinned.until, kept: this.#piece.kept };
    }
    if (this.#look === undefined) {
      const { head } = this.#options.feed.log;
      if (scanned < this.#clearTo || head - scanned <= this.#options.maxLagEvents) {
        return FREE;
      }
      this.#look = new Look(scanned, Math.min(head, scanned + MAX_PIECE), this.#options.view);
    }
    const verdict = this.#look.goOn(pageAfter);
    return verdict ?? this.#begin(this.#look);
  }

  #begin(look: Look): Verdict {
    const { every } = this.#options;
    const until = look.end;
    const { kept, dropped } = look.choose({ until, every });
    this.#look = undefined;
    if (dropped === 0) {
      this.#clearTo = until;
      return FREE;
    }
    this.#piece = { thinned: { until, every }, kept };
    return {
      kind: "announce",
      leftOut: { lastVersion: until, dropped, reason: every === 0 ? "LATEST" : "SAMPLE" },
    };
  }
}

/** What another stream left out of a piece and said so: this one goes on with it, and then as its own policy says. */
export class ThinnedBefore implements Course {
  readonly #thinned: Thinned;
  readonly #after: Version;
  readonly #view: (event: Event) => Event | undefined;
  readonly #then: Course;
  #look: Look | undefined;
  #kept: ReadonlySet<Version> | undefined;
  #over = false;

  constructor(after: Version, thinned: Thinned, view: (event: Event) => Event | undefined, then: Course) {
    this.#after = after;
    this.#thinned = thinned;
    this.#view = view;
    this.#then = then;
  }

  get piece(): Thinned | undefined {
    return this.#over ? this.#then.piece : this.#thinned;
  }

  next(progress: Progress, pageAfter: (after: Version) => Page | undefined): Verdict {
    const { until } = this.#thinned;
    if (this.#over || progress.scanned >= until) {
      this.#over = true;
      return this.#then.next(progress, pageAfter);
    }
    if (this.#kept === undefined) {
      this.#look ??= new Look(this.#after, until, this.#view);
      const verdict = this.#look.goOn(pageAfter);
      if (verdict !== undefined) {
        return verdict;
      }
      this.#kept = this.#look.choose(this.#thinned).kept;
      this.#look = undefined;
    }
    return { kind: "deliver", until, kept: this.#kept };
  }
}

interface Mark {
  readonly version: Version;
  readonly topic: string;
  readonly key: string | undefined;
  readonly truncates: boolean;
}

/** Looks through a piece before any of it is delivered. Remembers of its events only what the choice needs. */
class Look {
  readonly #after: Version;
  readonly #last: Version;
  readonly #view: (event: Event) => Event | undefined;
  readonly #marks: Mark[] = [];
  #looked: Version;
  #boundary: Version | undefined;

  constructor(after: Version, last: Version, view: (event: Event) => Event | undefined) {
    this.#after = after;
    this.#last = last;
    this.#looked = after;
    this.#view = view;
  }

  /** Where the piece ends: with its last whole tick, if there is one. */
  get end(): Version {
    return this.#boundary ?? this.#last;
  }

  /** `undefined` when all of it was looked at. */
  goOn(pageAfter: (after: Version) => Page | undefined): Verdict | undefined {
    const stopAt = Math.min(this.#last, this.#looked + LOOK_BUDGET);
    while (this.#looked < stopAt) {
      const page = pageAfter(this.#looked);
      if (page === undefined) {
        return { kind: "look", after: this.#looked };
      }
      this.#through(page, stopAt);
    }
    return this.#looked < this.#last ? { kind: "more" } : undefined;
  }

  choose({ until, every }: Thinned): { readonly kept: ReadonlySet<Version>; readonly dropped: number } {
    const within = this.#marks.filter(({ version }) => version <= until);
    const kept = every === 0 ? newestOfEachKey(within) : eachFromTheLast(within, every);
    return { kept, dropped: within.length - kept.size };
  }

  #through({ firstVersion, events, ticks }: Page, stopAt: Version): void {
    const last = Math.min(stopAt, firstVersion + events.length - 1);
    for (let at = this.#looked + 1 - firstVersion; at <= last - firstVersion; at++) {
      const settled = events[at];
      const event = settled && this.#view(settled);
      if (event !== undefined) {
        const { version, topic, key, operation } = event;
        this.#marks.push({ version, topic, key, truncates: operation === "TRUNCATE" });
      }
    }
    this.#looked = last;
    for (const tick of ticks) {
      const end = tickEnd(tick);
      if (end > this.#after && end <= last) {
        this.#boundary = Math.max(end, this.#boundary ?? 0);
      }
    }
  }
}

/**
 * Of events without a key all are kept, for no other takes their place; but a TRUNCATE takes that of everything with a key
 * before it on its topic. Where the topic is a template it takes the place of earlier TRUNCATEs alone: which topics are of
 * the same table cannot be told from their names.
 */
function newestOfEachKey(marks: readonly Mark[]): ReadonlySet<Version> {
  const kept = new Set<Version>();
  const keys = new Map<string, Set<string>>();
  const truncated = new Set<string>();
  for (const { version, topic, key, truncates } of marks.toReversed()) {
    if (truncates) {
      if (!truncated.has(topic)) {
        truncated.add(topic);
        kept.add(version);
      }
    } else if (key === undefined) {
      kept.add(version);
    } else if (!truncated.has(topic)) {
      const seen = keys.get(topic) ?? new Set();
      keys.set(topic, seen);
      if (!seen.has(key)) {
        seen.add(key);
        kept.add(version);
      }
    }
  }
  return kept;
}

function eachFromTheLast(marks: readonly Mark[], every: number): ReadonlySet<Version> {
  const kept = new Set<Version>();
  for (let at = marks.length - 1; at >= 0; at -= every) {
    const mark = marks[at];
    if (mark !== undefined) {
      kept.add(mark.version);
    }
  }
  return kept;
}
