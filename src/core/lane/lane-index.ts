import type { Event } from "../event.ts";
import { ColumnIndex } from "../selector/filter/column-index.ts";
import type { Matcher } from "../selector/selector.ts";
import { isTopicTemplate, mayBecome, type TopicPattern, topicTokens } from "../selector/topic.ts";
import type { Lane } from "./lane.ts";

/** Topics whose places are remembered. */
const CACHED_TOPICS = 4_096;
const ANY_TOKEN = "*";

/**
 * Which lanes an event may concern, found without looking at the others.
 *
 * Patterns hang in a tree of tokens, exact topics too; each end of a pattern has a shelf of the lanes that asked for it. Those
 * of them that listed keys lie there by key, and those whose filters require a value of a column by that. A topic's way through the tree is remembered until the tree grows. Lanes
 * that come to a shelf that is there change no way, so that ten thousand of them cost ten thousand entries of sets.
 */
export class LaneIndex {
  readonly #root: Branch = newBranch();
  readonly #ways = new Map<string, Way>();
  /** Rises whenever a way that is remembered may have become wrong. */
  #grown = 0;

  add(lane: Lane): void {
    for (const interest of interestOf(lane)) {
      for (const pattern of interest.patterns) {
        let branch = this.#root;
        for (const token of pattern.tokens) {
          branch = this.#grow(branch, token);
        }
        (pattern.tail ? this.#tailOf(branch) : this.#endOf(branch)).add(lane, interest);
      }
    }
  }

  delete(lane: Lane): void {
    for (const interest of interestOf(lane)) {
      for (const { tokens, tail } of interest.patterns) {
        const way = [this.#root];
        for (const token of tokens) {
          const next = way.at(-1)?.branches?.get(token);
          if (next === undefined) {
            break;
          }
          way.push(next);
        }
        const branch = way.length > tokens.length ? way.at(-1) : undefined;
        (tail ? branch?.tail : branch?.end)?.delete(lane, interest);
        prune(way, tokens);
      }
    }
  }

  /** Where lanes lie that may want an event of this topic or, for a source's template, of one of its topics. */
  shelvesOf(topic: string): readonly Shelf[] {
    const known = this.#ways.get(topic);
    if (known !== undefined && known.grown === this.#grown) {
      return known.shelves;
    }
    if (known === undefined && this.#ways.size >= CACHED_TOPICS) {
      this.#ways.clear();
    }
    const shelves: Shelf[] = [];
    follow(this.#root, topicTokens(topic), 0, isTopicTemplate(topic), shelves);
    this.#ways.set(topic, { grown: this.#grown, shelves });
    return shelves;
  }

  #grow(branch: Branch, token: string): Branch {
    branch.branches ??= new Map();
    let next = branch.branches.get(token);
    if (next === undefined) {
      next = newBranch();
      branch.branches.set(token, next);
    }
    return next;
  }

  #endOf(branch: Branch): Shelf {
    if (branch.end === undefined) {
      branch.end = new Shelf();
      this.#grown += 1;
    }
    return branch.end;
  }

  #tailOf(branch: Branch): Shelf {
    if (branch.tail === undefined) {
      branch.tail = new Shelf();
      this.#grown += 1;
    }
    return branch.tail;
  }
}

type Interest = Matcher["interest"][number];

/** Lanes that asked for one pattern of topics. */
export class Shelf {
  /** Whatever the key and the row. */
  readonly #any = new Set<Lane>();
  /** Those whose filters require a value of a column. */
  #byColumn: ColumnIndex<Lane> | undefined;
  /** Those that listed keys, and by each of these keys. */
  #keyed: Set<Lane> | undefined;
  #byKey: Map<string, Lane | Set<Lane>> | undefined;

  get empty(): boolean {
    return this.#any.size === 0 && (this.#keyed?.size ?? 0) === 0 && (this.#byColumn?.empty ?? true);
  }

  add(lane: Lane, { keys, requirement }: Interest): void {
    if (keys === undefined) {
      if (requirement === undefined) {
        this.#any.add(lane);
      } else {
        this.#byColumn ??= new ColumnIndex();
        this.#byColumn.add(lane, requirement);
      }
      return;
    }
    this.#keyed ??= new Set();
    this.#keyed.add(lane);
    this.#byKey ??= new Map();
    for (const key of keys) {
      const there = this.#byKey.get(key);
      if (there instanceof Set) {
        there.add(lane);
      } else if (there !== lane) {
        this.#byKey.set(key, there === undefined ? lane : new Set([there, lane]));
      }
    }
  }

  delete(lane: Lane, { keys, requirement }: Interest): void {
    if (keys === undefined) {
      this.#any.delete(lane);
      this.#byColumn?.delete(lane, requirement ?? []);
      return;
    }
    this.#keyed?.delete(lane);
    for (const key of keys) {
      const there = this.#byKey?.get(key);
      if (there instanceof Set) {
        there.delete(lane);
      }
      if (there === lane || (there instanceof Set && there.size === 0)) {
        this.#byKey?.delete(key);
      }
    }
  }

  /** Shows the event to all that may want it, some of them perhaps twice; answers how often it was shown. */
  offer(event: Event, touched: Lane[]): number {
    let shown = this.#any.size;
    for (const lane of this.#any) {
      if (lane.offer(event)) {
        touched.push(lane);
      }
    }
    if (this.#byColumn?.empty === false) {
      this.#byColumn.offer(event, (lane) => {
        shown += 1;
        if (lane.offer(event)) {
          touched.push(lane);
        }
      });
    }
    if (this.#byKey === undefined) {
      return shown;
    }
    const { key } = event;
    // What concerns a source as a whole passes every list of keys: a TRUNCATE, and the message that its table was altered.
    const wanting = key === undefined || event.operation === "TRUNCATE" ? this.#keyed : this.#byKey.get(key);
    if (wanting instanceof Set) {
      shown += wanting.size;
      for (const lane of wanting) {
        if (lane.offer(event)) {
          touched.push(lane);
        }
      }
    } else if (wanting !== undefined) {
      shown += 1;
      if (wanting.offer(event)) {
        touched.push(wanting);
      }
    }
    return shown;
  }
}

/** What follows one token in some pattern. */
interface Branch {
  branches: Map<string, Branch> | undefined;
  /** Of patterns that end here. */
  end: Shelf | undefined;
  /** Of patterns that go on with `>`. */
  tail: Shelf | undefined;
}

interface Way {
  readonly grown: number;
  readonly shelves: readonly Shelf[];
}

function newBranch(): Branch {
  return { branches: undefined, end: undefined, tail: undefined };
}

const EVERY_TOPIC: readonly TopicPattern[] = [{ text: ">", tokens: [], tail: true, exact: false }];
const EVERYTHING: readonly Interest[] = [{ patterns: EVERY_TOPIC, keys: undefined }];

/** With a pattern in each: none means every topic. */
function interestOf({ matcher: { interest } }: Lane): readonly Interest[] {
  if (interest.length === 0) {
    return EVERYTHING;
  }
  return interest.map((each) => (each.patterns.length > 0 ? each : { ...each, patterns: EVERY_TOPIC }));
}

function follow(branch: Branch, tokens: readonly string[], at: number, template: boolean, shelves: Shelf[]): void {
  const token = tokens[at];
  if (token === undefined) {
    if (branch.end !== undefined) {
      shelves.push(branch.end);
    }
    return;
  }
  if (branch.tail !== undefined) {
    shelves.push(branch.tail);
  }
  if (branch.branches === undefined) {
    return;
  }
  const wild = branch.branches.get(ANY_TOKEN);
  if (wild !== undefined) {
    follow(wild, tokens, at + 1, template, shelves);
  }
  if (template && token.includes("{")) {
    for (const [text, next] of branch.branches) {
      if (next !== wild && mayBecome(token, text)) {
        follow(next, tokens, at + 1, template, shelves);
      }
    }
    return;
  }
  const exact = branch.branches.get(token);
  if (exact !== undefined && exact !== wild) {
    follow(exact, tokens, at + 1, template, shelves);
  }
}

/** Cuts off what nobody hangs on any more; ways that still lead there find empty shelves. */
function prune(way: readonly Branch[], tokens: readonly string[]): void {
  for (let at = way.length - 1; at >= 0; at--) {
    const branch = way[at];
    if (branch === undefined) {
      return;
    }
    branch.end = branch.end?.empty ? undefined : branch.end;
    branch.tail = branch.tail?.empty ? undefined : branch.tail;
    const used = branch.end !== undefined || branch.tail !== undefined || (branch.branches?.size ?? 0) > 0;
    if (used || at === 0) {
      return;
    }
    way[at - 1]?.branches?.delete(tokens[at - 1] ?? "");
  }
}
