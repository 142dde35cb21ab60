import type { Event, Version } from "../event.ts";
import { eventBytes, type Page } from "../page.ts";
import type { Clock, FeedStore, SnapshotReader, SnapshotRequest, SnapshotRows, Timers } from "../ports.ts";
import { type Built, type EventBuilder, isSameEvent } from "./build-event.ts";
import { type BoundSource, TopicBindings, type WatchedTopic } from "./topic-bindings.ts";

/** What building takes. */
export interface BuiltStoreOptions {
  readonly store: FeedStore;
  readonly sources: readonly BoundSource[];
  /** Which tables are watched now. Asked seldom: for topics that were not met before, and every ten seconds. */
  readonly watched: (signal: AbortSignal) => Promise<readonly WatchedTopic[]>;
  readonly clock: Pick<Clock, "monotonic">;
  readonly timers: Pick<Timers, "turn">;
  /** Told of each event that a builder failed for, each time that it is built. Default: nobody is. */
  readonly onFailure?: ((failure: BuilderFailure) => void) | undefined;
  /** Told when a builder has made two events of one change: of some it is asked twice. Default: nobody is. */
  readonly onImpure?: ((impure: Omit<BuilderFailure, "reason">) => void) | undefined;
}

/** An event that became a dead letter. */
export interface BuilderFailure {
  readonly table: string;
  readonly version: Version;
  readonly reason: string;
}

/** What builders have done. An event counts each time that it is read: live, from history, in a snapshot. */
export interface BuilderStats {
  readonly built: number;
  readonly hidden: number;
  readonly failed: number;
  /** Time that was spent in builders, in milliseconds. */
  readonly ms: number;
}

/** A store whose events are built. */
export interface BuiltStore extends FeedStore {
  readonly builderStats: BuilderStats;
}

/** How long it is believed which tables are watched, in milliseconds. */
const BELIEVED_MS = 10_000;
/** One of so many events is built twice, the first among them. */
const PROBED = 256;
/** How long builders may keep everybody else waiting, in milliseconds, if each of them returns at once. */
const TURN_MS = 5;

/**
 * A store whose pages and snapshots show, of sources that have a builder, what that makes of their events: at the same version,
 * in the same place. A page without such an event is handed on as it is.
 *
 * What it shows depends on nothing but the event and its builder, so that whatever reads a version, whenever and on whichever
 * replica, finds the same. Where the log, a page of history and a snapshot come from it, they agree.
 */
export function withBuilders(options: BuiltStoreOptions): BuiltStore {
  const { store } = options;
  const building = new Building(options);
  return {
    hides: true,
    get epoch() {
      return store.epoch;
    },
    get lineage() {
      return store.lineage;
    },
    get builderStats() {
      return building.stats;
    },
    bounds: (signal) => store.bounds(signal),
    advance: async (after, signal) => await building.page(await store.advance(after, signal), signal),
    readAfter: async (after, signal) => await building.page(await store.readAfter(after, signal), signal),
    tickOf: (version, signal) => store.tickOf(version, signal),
    tickAt: (timeMicros, signal) => store.tickAt(timeMicros, signal),
    snapshot: (request, signal) => building.snapshot(request, signal),
    publish: (request, signal) => store.publish(request, signal),
    settled: (xid, signal) => store.settled(xid, signal),
  };
}

class Building {
  readonly #options: BuiltStoreOptions;
  readonly #bindings: TopicBindings;
  /** The builders as text: a snapshot is not gone on with under others. */
  readonly #fingerprint: string;
  #learntMs = Number.NEGATIVE_INFINITY;
  /** Events that went through a builder. */
  #built = 0;
  readonly stats = { built: 0, hidden: 0, failed: 0, ms: 0 };

  constructor(options: BuiltStoreOptions) {
    this.#options = options;
    this.#bindings = new TopicBindings(options.sources);
    this.#fingerprint = JSON.stringify(options.sources.map(({ source }) => [source.table, String(source.build)]));
  }

  async page(page: Page | undefined, signal: AbortSignal): Promise<Page | undefined> {
    if (page === undefined) return undefined;
    await this.#meet(page.events, signal);
    const events = await this.#all(page.events, (topic) => this.#bindings.of(topic));
    if (events === page.events) return page;
    return { ...page, events, bytes: events.reduce((sum, event) => sum + eventBytes(event), 0) };
  }

  async snapshot(request: SnapshotRequest, signal: AbortSignal): Promise<SnapshotReader> {
    await this.#learn(signal);
    const { wantsSource, wantedKeys, selection } = request;
    const reader = await this.#options.store.snapshot(
      {
        ...request,
        wantsSource: (topic) => this.#mayYield(topic, wantsSource),
        // Keys are what the builder makes of them.
        wantedKeys: (topic) => (this.#bindings.of(topic) === undefined ? wantedKeys?.(topic) : undefined),
        selection: JSON.stringify([selection ?? "", this.#fingerprint]),
      },
      signal,
    );
    return this.#builtReader(reader);
  }

  /** Whether a source's rows may become events that are wanted. */
  #mayYield(topic: string, wants: (topic: string) => boolean): boolean {
    const builder = this.#bindings.of(topic);
    if (builder === undefined) return wants(topic);
    const { topics } = builder.source;
    // A template's column stands for one token, as `*` does; for several there is no template.
    return topics === undefined || topics.some((one) => one.endsWith(">") || wants(one.replaceAll("*", "{any}")));
  }

  #builtReader(reader: SnapshotReader): SnapshotReader {
    const builders = reader.parts.map(({ topic }) => this.#bindings.of(topic));
    const all = (events: readonly Event[], builder: EventBuilder) => this.#all(events, () => builder);
    return {
      tick: reader.tick,
      parts: reader.parts,
      shape: reader.shape,
      resumed: reader.resumed,
      get cut() {
        return reader.cut;
      },
      async *rows(): AsyncGenerator<SnapshotRows, void, undefined> {
        for await (const { part, events } of reader.rows()) {
          const builder = builders[part];
          yield { part, events: builder === undefined ? events : await all(events, builder) };
        }
      },
      concerning: (events, signal) => reader.concerning(events, signal),
      close: () => reader.close(),
    };
  }

  /** Asks which tables are watched, when it has not for a while, or there is a topic that no source was known to have. */
  async #meet(events: readonly Event[], signal: AbortSignal): Promise<void> {
    const { clock } = this.#options;
    let fresh = clock.monotonic() - this.#learntMs < BELIEVED_MS;
    let last: Event | undefined;
    for (const event of events) {
      if (!fresh) break;
      if (event.topic !== last?.topic || event.operation !== last.operation) fresh = this.#bindings.knows(event);
      last = event;
    }
    if (!fresh) await this.#learn(signal);
  }

  async #learn(signal: AbortSignal): Promise<void> {
    const { watched, clock } = this.#options;
    this.#bindings.learn(await watched(signal));
    this.#learntMs = clock.monotonic();
  }

  /** The same list when none of them is built. Lets others have their turn in between: builders are not ours. */
  async #all(
    events: readonly Event[],
    builderOf: (topic: string) => EventBuilder | undefined,
  ): Promise<readonly Event[]> {
    const { clock, timers } = this.#options;
    let results: Event[] | undefined;
    let topic = "";
    let builder: EventBuilder | undefined;
    let sinceMs = clock.monotonic();
    for (const [at, event] of events.entries()) {
      if (event.topic !== topic) {
        topic = event.topic;
        builder = builderOf(topic);
      }
      const built = builder?.build(event);
      if (built === undefined || builder === undefined) continue;
      results ??= events.slice();
      results[at] = built.event;
      this.#count(built, builder);
      this.#probe(event, built, builder);
      const spentMs = clock.monotonic() - sinceMs;
      if (spentMs < TURN_MS) continue;
      this.stats.ms += spentMs;
      await timers.turn();
      sinceMs = clock.monotonic();
    }
    if (results === undefined) return events;
    this.stats.ms += clock.monotonic() - sinceMs;
    return results;
  }

  /** A look at a clock may well give the same twice. A counter, or chance, does not. */
  #probe(event: Event, { event: first }: Built, builder: EventBuilder): void {
    this.#built += 1;
    if (this.#built % PROBED !== 1) return;
    const second = builder.build(event)?.event;
    if (second !== undefined && isSameEvent(first, second)) return;
    this.#options.onImpure?.({ table: builder.source.table, version: event.version });
  }

  #count({ outcome, event, reason = "" }: Built, { source }: EventBuilder): void {
    this.stats[outcome] += 1;
    if (outcome === "failed") {
      this.#options.onFailure?.({ table: source.table, version: event.version, reason });
    }
  }
}
