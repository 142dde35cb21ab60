import { FeedError } from "../core/errors.ts";
import type { Event, Version } from "../core/event.ts";
import { eventBytes, type Page, type Tick, tickEnd, tickHolding, tickIndexFrom } from "../core/page.ts";

/** The settled events and their ticks; what the outbox and the tick table are to Postgres. */
export class History {
  readonly #events: Event[] = [];
  /** Every tick, empty ones too, by its number less that of the first kept. */
  readonly #ticks: Tick[];
  /** The non-empty ones: no two of them hold one version. */
  readonly #filled: Tick[] = [];
  /** How often this was forked: what two forks settle is never the same. */
  readonly #generation: number;
  #oldest: Version = 1;

  constructor(timeMicros: number, generation = 0) {
    this.#generation = generation;
    this.#ticks = [makeTick(0, 1, 0, timeMicros, generation)];
  }

  get oldest(): Version {
    return this.#oldest;
  }

  /** From the oldest version on. */
  get events(): readonly Event[] {
    return this.#events;
  }

  get head(): Version {
    return this.#oldest + this.#events.length - 1;
  }

  /** Settles these events as one tick; none make an empty tick. */
  settle(make: (version: Version) => readonly Event[], nowMicros: number): Tick {
    const last = this.#ticks.at(-1);
    const events = make(this.head + 1);
    const timeMicros = Math.max(last?.timeMicros ?? 0, nowMicros);
    const tick = makeTick((last?.tick ?? -1) + 1, this.head + 1, events.length, timeMicros, this.#generation);
    this.#ticks.push(tick);
    if (events.length > 0) {
      this.#filled.push(tick);
      for (const event of events) {
        this.#events.push(event);
      }
    }
    return tick;
  }

  /** A copy that ends with this version, which must be the last of a tick. */
  until(version: Version): History {
    const ticks = this.#ticks.filter((tick) => tickEnd(tick) <= version);
    const [first, ...others] = ticks;
    const last = ticks.at(-1);
    if (first?.tick !== 0 || last === undefined || tickEnd(last) !== version) {
      throw new FeedError(
        "INVALID_REQUEST",
        `No tick ends with version ${version}, or what came before it is not kept.`,
        "Fork where a tick ends, before anything is forgotten.",
      );
    }
    const copy = new History(first.timeMicros, this.#generation + 1);
    copy.#ticks.splice(0, 1, first, ...others);
    copy.#filled.push(...others.filter(({ count }) => count > 0));
    copy.#events.push(...this.#events.slice(0, version));
    return copy;
  }

  page(after: Version, maxEvents: number): Page | undefined {
    const events = this.#events.slice(after + 1 - this.#oldest, after + 1 - this.#oldest + maxEvents);
    if (events.length === 0) {
      return undefined;
    }
    const last = after + events.length;
    const ticks = this.#filled.slice(tickIndexFrom(this.#filled, after + 1), tickIndexFrom(this.#filled, last) + 1);
    return { firstVersion: after + 1, events, ticks, bytes: events.reduce((sum, event) => sum + eventBytes(event), 0) };
  }

  tickOf(version: Version): Tick | undefined {
    if (version === 0) {
      return this.#ticks[0]?.tick === 0 ? this.#ticks[0] : undefined;
    }
    return tickHolding(this.#filled, version);
  }

  lastVersionOf(transaction: string): Version | undefined {
    return this.#events.findLast((event) => event.transaction === transaction)?.version;
  }

  tickAt(timeMicros: number): Tick | undefined {
    return this.#ticks.findLast((tick) => tick.timeMicros <= timeMicros);
  }

  /** Forgets versions below this, and the ticks before the one that holds its predecessor. */
  retainFrom(version: Version): void {
    const cut = Math.min(version, this.head + 1);
    if (cut <= this.#oldest) {
      return;
    }
    this.#events.splice(0, cut - this.#oldest);
    this.#oldest = cut;
    const keep = this.#filled[tickIndexFrom(this.#filled, cut - 1)];
    while (keep !== undefined && (this.#ticks[0]?.tick ?? keep.tick) < keep.tick) {
      this.#ticks.shift();
    }
    this.#filled.splice(0, tickIndexFrom(this.#filled, cut - 1));
  }
}

function makeTick(tick: number, firstVersion: Version, count: number, timeMicros: number, generation: number): Tick {
  const end = firstVersion + count - 1;
  return { tick, firstVersion, count, timeMicros, fingerprint: digest([tick, end, count, timeMicros, generation]) };
}

function digest(values: readonly number[]): number {
  let hash = 0x811c9dc5;
  for (const value of values) {
    for (const half of [value >>> 0, Math.floor(value / 2 ** 32) >>> 0]) {
      hash = Math.imul(hash ^ half, 0x01000193) ^ (hash >>> 15);
    }
  }
  return hash >>> 0;
}
