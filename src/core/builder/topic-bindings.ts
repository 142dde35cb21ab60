import type { Event } from "../event.ts";
import { isTopicTemplate, parseTopicPattern, patternMatches } from "../selector/topic.ts";
import { isSameTable, parseTableName } from "../source/table-name.ts";
import { EventBuilder } from "./build-event.ts";
import type { BuiltSource } from "./builder.ts";

/** A table that is watched, and the topic or template that its events have. */
export interface WatchedTopic {
  readonly table: string;
  readonly topic: string;
}

/** A builder, and the topic that its source is declared with, where that is said. */
export interface BoundSource {
  readonly source: BuiltSource;
  readonly topic: string | undefined;
}

interface Known {
  readonly builder: EventBuilder | undefined;
  /** A table that is watched has events of the topic. */
  readonly watched: boolean;
}

/** Topics whose builder is remembered. */
const KNOWN_TOPICS = 50_000;
const PLAIN = /^[A-Za-z0-9_-]+$/;

/**
 * Which topic's events are whose builder's. The table that is watched now under a topic decides. Where none is, the
 * declaration does: what a source had written before it was unwatched goes through its builder, too.
 */
export class TopicBindings {
  readonly #builders: readonly { readonly builder: EventBuilder; readonly topic: string | undefined }[];
  #watched: readonly WatchedTopic[] = [];
  readonly #known = new Map<string, Known>();

  constructor(sources: readonly BoundSource[]) {
    this.#builders = sources.map(({ source, topic }) => ({
      builder: new EventBuilder(source),
      topic: topic ?? defaultTopic(source.table),
    }));
  }

  /** What is watched now. What was known is forgotten if it may have changed. */
  learn(watched: readonly WatchedTopic[]): void {
    if (JSON.stringify(watched) === JSON.stringify(this.#watched)) return;
    this.#watched = watched;
    this.#known.clear();
  }

  /**
   * Whether it is known, as far as was learnt, whose this event is. A change of a row on a topic of no table that is watched
   * may be the first of a table that is watched since.
   */
  knows({ topic, operation }: Pick<Event, "topic" | "operation">): boolean {
    const known = this.#known.get(topic);
    if (known === undefined) return this.#sourceOf(topic) !== undefined;
    return known.watched || operation === "MESSAGE";
  }

  /** Of a topic, or of a source's template; `undefined` when its events stay as they are. */
  of(topic: string): EventBuilder | undefined {
    let known = this.#known.get(topic);
    if (known === undefined) {
      known = this.#find(topic);
      if (this.#known.size >= KNOWN_TOPICS) this.#known.clear();
      this.#known.set(topic, known);
    }
    return known.builder;
  }

  #find(topic: string): Known {
    const source = this.#sourceOf(topic);
    const bound =
      source === undefined
        ? this.#builders.find((one) => one.topic !== undefined && covers(one.topic, topic))
        : this.#builders.find(({ builder }) => isSameTable(builder.source.table, source.table));
    return { builder: bound?.builder, watched: source !== undefined };
  }

  #sourceOf(topic: string): WatchedTopic | undefined {
    return (
      this.#watched.find((source) => source.topic === topic) ??
      this.#watched.find((source) => covers(source.topic, topic))
    );
  }
}

function defaultTopic(table: string): string | undefined {
  const name = parseTableName(table)?.table ?? "";
  return PLAIN.test(name) ? name : undefined;
}

/** Whether a source of this topic or template has events of that topic. */
function covers(source: string, topic: string): boolean {
  if (source === topic) return true;
  if (!isTopicTemplate(source)) return false;
  const parsed = parseTopicPattern(topic);
  return "pattern" in parsed && patternMatches(parsed.pattern, source);
}
