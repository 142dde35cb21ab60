import type pg from "pg";
import { type Event, rowKey, rowTopic } from "../../core/event.ts";
import type { SnapshotPlace } from "../../core/ports.ts";
import { withLease } from "../lease.ts";
import { look } from "../look.ts";
import { queryError } from "../query-error.ts";
import { keysUpTo, orderOf, orderTexts } from "./key-range.ts";
import { fits, type KeyType } from "./key-text.ts";
import type { SnapshotSource } from "./sources.ts";

/** Answers that are kept; a hot key is asked for once. */
const maxKnown = 50_000;

/** The source that a place lies in, and where. */
interface Middle {
  readonly order: readonly KeyType[];
  readonly texts: readonly string[];
}

/**
 * Which events concern what was delivered before a place in a snapshot. The rest are in the rows that follow it.
 *
 * Whatever cannot be told to lie behind the place is kept. An event too many is a change of a row that the client does not
 * have yet, and that comes afterwards; one too few would be a change that never comes. So are kept: messages; changes
 * without a key (a key column was gone when they were written); keys that are none of the source's, which an application
 * wrote before the topic was the source's.
 */
export class Concern {
  readonly #pool: pg.Pool;
  readonly #sources: readonly SnapshotSource[];
  readonly #complete: number;
  readonly #middle: Middle | undefined;
  readonly #patterns: readonly (readonly [source: number, pattern: RegExp])[];
  /** -1 for topics of no source. */
  readonly #sourceOf = new Map<string, number>();
  readonly #known = new Map<string, boolean>();

  constructor(pool: pg.Pool, sources: readonly SnapshotSource[], place: SnapshotPlace) {
    this.#pool = pool;
    this.#sources = sources;
    this.#complete = place.sources;
    const source = sources[place.sources];
    if (source !== undefined && place.key !== undefined) {
      this.#middle = { order: orderOf(source) ?? [], texts: orderTexts(source, place.key) ?? [] };
    }
    this.#patterns = sources.flatMap(({ topicPattern }, at) =>
      topicPattern === null ? [] : [[at, new RegExp(topicPattern)] as const],
    );
  }

  /** @throws FeedError DATABASE_UNAVAILABLE. */
  async of(events: readonly Event[], signal: AbortSignal): Promise<readonly Event[]> {
    if (this.#known.size >= maxKnown) this.#known.clear();
    const unknown = new Set<string>();
    for (const event of events) {
      const key = this.#keyInQuestion(event);
      if (key !== undefined && !this.#known.has(key)) unknown.add(key);
    }
    if (unknown.size > 0) await this.#ask([...unknown], signal);
    return events.filter((event) => this.#kept(event));
  }

  #kept(event: Event): boolean {
    const source = this.#find(rowTopic(event));
    if (source < this.#complete || event.operation === "MESSAGE") return true;
    if (source > this.#complete || this.#middle === undefined) return false;
    const key = this.#keyInQuestion(event);
    return key === undefined || (this.#known.get(key) ?? true);
  }

  #keyInQuestion(event: Event): string | undefined {
    const { operation } = event;
    if (this.#middle === undefined || operation === "MESSAGE" || operation === "TRUNCATE") return undefined;
    return this.#find(rowTopic(event)) === this.#complete ? rowKey(event) : undefined;
  }

  #find(topic: string): number {
    let found = this.#sourceOf.get(topic);
    if (found === undefined) {
      found = this.#sources.findIndex((source) => source.topic === topic);
      if (found < 0) found = this.#patterns.find(([, pattern]) => pattern.test(topic))?.[0] ?? -1;
      if (this.#sourceOf.size >= maxKnown) this.#sourceOf.clear();
      this.#sourceOf.set(topic, found);
    }
    return found;
  }

  async #ask(keys: readonly string[], signal: AbortSignal): Promise<void> {
    const source = this.#sources[this.#complete];
    const middle = this.#middle;
    if (source === undefined || middle === undefined) return;
    const asked: (readonly [key: string, texts: readonly string[]])[] = [];
    for (const key of keys) {
      const texts = orderTexts(source, key);
      const foreign = middle.order.some((type, at) => fits(texts?.[at] ?? "", type, source.utf8) === "no");
      this.#known.set(key, texts === undefined || foreign);
      if (texts !== undefined && !foreign) asked.push([key, texts]);
    }
    if (asked.length === 0) return;
    const arrays = middle.order.map((_, at) => asked.map(([, texts]) => texts[at] ?? ""));
    try {
      const upTo = await withLease(this.#pool, signal, (lease) =>
        look(lease.client, () => lease.rows<{ place: number }>(keysUpTo(middle.order), [...arrays, ...middle.texts])),
      );
      for (const { place } of upTo) this.#known.set(asked[place - 1]?.[0] ?? "", true);
    } catch (error) {
      // Not half an answer: whoever asks again asks anew.
      this.#known.clear();
      if (signal.aborted) throw signal.reason;
      throw queryError(error, "compare keys with the snapshot's place");
    }
  }
}
