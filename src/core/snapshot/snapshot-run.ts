import { FeedError } from "../errors.ts";
import { type Event, rowKey, type Version } from "../event.ts";
import type { Log } from "../log/log.ts";
import { type Page, pageEnd, type Tick, tickEnd, tickHolding } from "../page.ts";
import type { FeedStore, SnapshotPlace, SnapshotReader } from "../ports.ts";
import type { Matcher } from "../selector/selector.ts";
import type { Position } from "../stream/scan.ts";

/** How far a snapshot has come: everything that `place` covers was delivered, and is as of `position`. */
export interface SnapshotState {
  readonly position: Position;
  /** "anew" in the middle of a source without an order: from here a snapshot cannot go on. */
  readonly place: SnapshotPlace | "anew";
  /** Rows delivered, of the whole snapshot. */
  readonly rows: number;
}

/** The rows that follow are as of `version`, which the state may have yet to reach. */
export interface SnapshotStarted {
  readonly kind: "started";
  readonly version: Version;
  readonly topics: readonly string[];
  /** What was delivered before is void. */
  readonly restart: boolean;
  /** What was delivered before stays; `changes` bring it up to `version`. */
  readonly resumed: boolean;
  readonly estimatedRows: number | undefined;
  readonly state: SnapshotState;
}

/** What a snapshot does next; `state` is how far it has come when all of the step is delivered. */
export type SnapshotStep =
  | SnapshotStarted
  /** Events that concern what was delivered before: only the position moves. */
  | {
      readonly kind: "changes";
      readonly events: readonly Event[];
      readonly ticks: readonly Tick[];
      readonly state: SnapshotState;
    }
  /** Rows of one source: only the place moves. */
  | { readonly kind: "rows"; readonly events: readonly Event[]; readonly state: SnapshotState };

/** Where an earlier call's snapshot was cut; "anew" when nothing is left of it to go on from. */
export type CutSnapshot = { readonly position: Position; readonly place: SnapshotPlace } | "anew";

/** What a snapshot is made of. */
export interface SnapshotRunOptions {
  readonly store: Pick<FeedStore, "snapshot" | "readAfter" | "tickOf">;
  readonly log: Pick<Log, "read" | "tickOf">;
  readonly matcher: Pick<Matcher, "view" | "wantsSource" | "wantedKeys" | "selection">;
  /** `undefined` for a snapshot that is nobody's continuation. */
  readonly from: CutSnapshot | undefined;
  readonly signal: AbortSignal;
}

/**
 * The whole of a snapshot, over as many readers as it takes: what one stream delivers before its first plain event.
 *
 * Its state is a version and a place: all that the place covers is as of the version. A new reader, at a later version,
 * changes that in two strokes. First the events in between that concern what the place covers, which move the version and
 * leave the place; those that concern the rest are skipped, because the rest comes as rows that already hold them. Then the
 * rows behind the place, which move the place and leave the version. So every version of every row is delivered once,
 * wherever it is cut, and it is cut by everybody alike: by clients that go away, by servers, and by a reader that may copy
 * no longer, after which this goes on by itself.
 *
 * Where that is impossible it begins anew, and says so: never an error, for what the client holds is void either way.
 */
export class SnapshotRun {
  readonly #options: SnapshotRunOptions;
  readonly #steps: AsyncIterator<SnapshotStep, undefined>;
  #reader: SnapshotReader | undefined;
  #closed = false;

  constructor(options: SnapshotRunOptions) {
    this.#options = options;
    this.#steps = this.#run();
  }

  /**
   * The next step, which begins with `started`; `undefined` when the snapshot is complete. One call at a time, and not
   * before the step before it is delivered.
   *
   * @throws FeedError what `FeedStore.snapshot` throws; LIMIT_EXCEEDED when the snapshot cannot be finished in pieces
   */
  async next(): Promise<SnapshotStep | undefined> {
    return (await this.#steps.next()).value;
  }

  /** Leaves nothing behind. Idempotent; a step that is waited for is rejected. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#closeReader();
  }

  async *#run(): AsyncGenerator<SnapshotStep, undefined> {
    const { from } = this.#options;
    let begun = from !== undefined;
    let cut: SnapshotState | undefined =
      from === undefined || from === "anew" ? undefined : { ...from, rows: from.place.rows };
    for (;;) {
      const reader = await this.#open(cut);
      const end = await this.#endOf(reader.tick);
      const resumed = cut !== undefined && reader.resumed;
      const place = { shape: reader.shape, sources: 0, key: undefined, rows: 0 };
      const state: SnapshotState = cut !== undefined && resumed ? cut : { position: end, place, rows: 0 };
      yield started(reader, end.version, state, { restart: begun && !resumed, resumed });
      begun = true;
      if (resumed && (yield* this.#changes(reader, state, end.version)) === "lost") {
        cut = undefined;
        continue;
      }
      const reached = yield* this.#rows(reader, { ...state, position: end });
      if (!reader.cut) {
        await this.#closeReader();
        return undefined;
      }
      assertGoesOn(state, reached);
      cut = reached;
    }
  }

  /** Moves the state's position to the reader's version, unless history in between has been dropped. */
  async *#changes(
    reader: SnapshotReader,
    state: SnapshotState,
    until: Version,
  ): AsyncGenerator<SnapshotStep, "done" | "lost"> {
    const { matcher, signal } = this.#options;
    for (let after = state.position.version; after < until; ) {
      const page = await this.#pageAfter(after);
      if (page === "lost") {
        return "lost";
      }
      const last = Math.min(pageEnd(page), until);
      const wanted = page.events
        .slice(after + 1 - page.firstVersion, last + 1 - page.firstVersion)
        .flatMap((event) => matcher.view(event) ?? []);
      const position = { version: last, tick: tickHolding(page.ticks, last) };
      const ticks = page.ticks.slice();
      const events = wanted.length === 0 ? wanted : await reader.concerning(wanted, signal);
      yield { kind: "changes", events, ticks, state: { ...state, position } };
      after = last;
    }
    return "done";
  }

  /** Moves the state's place as far as the reader comes. */
  async *#rows(reader: SnapshotReader, from: SnapshotState): AsyncGenerator<SnapshotStep, SnapshotState> {
    let state = from;
    for await (const { part, events } of reader.rows()) {
      const matching = events.flatMap((event) => this.#options.matcher.view(event) ?? []);
      const rows = state.rows + matching.length;
      const last = events.at(-1);
      if (last === undefined && state.place !== "anew" && state.place.sources >= part) {
        continue;
      }
      const key = last === undefined ? undefined : rowKey(last);
      const behind = last === undefined || (reader.parts[part]?.ordered === true && key !== undefined);
      const place = behind ? { shape: reader.shape, sources: part, key, rows } : "anew";
      state = { position: state.position, place, rows };
      yield { kind: "rows", events: matching, state };
    }
    return state;
  }

  async #pageAfter(after: Version): Promise<Page | "lost"> {
    const { store, log, signal } = this.#options;
    try {
      const page = log.read(after) ?? (await store.readAfter(after, signal));
      if (page !== undefined) {
        return page;
      }
    } catch (error) {
      if (error instanceof FeedError && error.code === "HISTORY_LOST") {
        return "lost";
      }
      throw error;
    }
    throw new FeedError(
      "DATABASE_UNAVAILABLE",
      `Version ${after + 1} is settled, and the database does not show it.`,
      "Try again in a moment.",
      { retryAfterMs: 1_000 },
    );
  }

  async #open(cut: SnapshotState | undefined): Promise<SnapshotReader> {
    const { store, matcher, signal } = this.#options;
    const { wantsSource, wantedKeys, selection } = matcher;
    await this.#closeReader();
    const after = cut?.place === "anew" ? undefined : cut?.place;
    const reader = await store.snapshot({ wantsSource, wantedKeys, selection, after }, signal);
    this.#reader = reader;
    if (this.#closed) {
      await this.#closeReader();
      signal.throwIfAborted();
    }
    return reader;
  }

  async #closeReader(): Promise<void> {
    const reader = this.#reader;
    this.#reader = undefined;
    await reader?.close();
  }

  /** The snapshot's own tick is empty as often as not; a cursor remembers the tick that settled the version. */
  async #endOf(tick: Tick): Promise<Position> {
    const { store, log, signal } = this.#options;
    const version = tickEnd(tick);
    if (tick.count > 0) {
      return { version, tick };
    }
    return { version, tick: log.tickOf(version) ?? (await store.tickOf(version, signal)) };
  }
}

/** How far a snapshot has come when so many events of a step are delivered. */
export function stateAfter(step: SnapshotStep, before: SnapshotState, delivered: number): SnapshotState {
  if (step.kind === "started" || delivered >= step.events.length) {
    return step.state;
  }
  const last = step.events[delivered - 1];
  if (last === undefined) {
    return before;
  }
  if (step.kind === "changes") {
    return { ...step.state, position: { version: last.version, tick: tickHolding(step.ticks, last.version) } };
  }
  const { position, place } = step.state;
  const rows = step.state.rows - step.events.length + delivered;
  return { position, place: place === "anew" ? place : { ...place, key: rowKey(last), rows }, rows };
}

function started(
  reader: SnapshotReader,
  version: Version,
  state: SnapshotState,
  said: { readonly restart: boolean; readonly resumed: boolean },
): SnapshotStarted {
  const topics = reader.parts.map(({ topic }) => topic);
  return { kind: "started", version, topics, ...said, estimatedRows: estimate(reader), state };
}

function estimate({ parts }: SnapshotReader): number | undefined {
  let sum = 0;
  for (const { estimatedRows } of parts) {
    if (estimatedRows === undefined) {
      return undefined;
    }
    sum += estimatedRows;
  }
  return Math.round(sum);
}

function isSamePlace(a: SnapshotState["place"], b: SnapshotPlace): boolean {
  return a !== "anew" && a.sources === b.sources && a.key === b.key;
}

/** A snapshot that is cut before it moves would be taken over and over. */
function assertGoesOn(before: SnapshotState, after: SnapshotState): void {
  if (after.place === "anew" || isSamePlace(before.place, after.place)) {
    throw new FeedError(
      "LIMIT_EXCEEDED",
      after.place === "anew"
        ? "A source without an order of its rows could not be copied within the bounds of one snapshot."
        : "Not a single row could be copied within the bounds of one snapshot.",
      "Select fewer topics, give the table a primary key, or raise the bounds of snapshots.",
    );
  }
}
