import { type Event, HIDDEN_TOPIC, type Operation } from "../event.ts";
import { DEFAULT_FILTER_LIMITS, type FilterLimits } from "./filter/filter.ts";
import { type RowCache, sharedRows } from "./filter/row-cache.ts";
import { type Interest, parseRules, type Rule } from "./selector-rule.ts";
import { createView } from "./selector-view.ts";
import { patternMatches } from "./topic.ts";

export type { Interest } from "./selector-rule.ts";

/** Which events a stream wants. An event passes when it passes every field that is not empty. */
export interface Selector {
  /** Topic patterns: `orders`, `orders.*`, `orders.>`. */
  readonly topics: readonly string[];
  readonly keys: readonly string[];
  readonly operations: readonly Operation[];
  /** CEL: a predicate on `row`, or on `event`, `before` and `after` (docs/filters.md). Empty or absent lets everything pass. */
  readonly filter?: string;
  /** Column paths, to which images are cut: `id`, `address.city`. Empty or absent leaves them whole. */
  readonly fields?: readonly string[];
}

/** Selectors made ready for the hot path. Immutable but for caches and counts. */
export interface Matcher {
  /**
   * The event as this selection shows it: the same object where all of it passes, another where a filter tells a transition
   * or a projection cuts the images, `undefined` where no selector wants it.
   */
  readonly view: (event: Event) => Event | undefined;
  /** Whether `view` has anything to show of the event. */
  readonly matches: (event: Event) => boolean;
  /** What a dispatcher may go by, one for each selector; empty when every event may be wanted. */
  readonly interest: readonly Interest[];
  /** Whether any of the selectors may want an event of this topic or, for a template, of one of its topics. */
  readonly wantsSource: (topic: string) => boolean;
  /** The only keys that the selectors may want of such a source; `undefined` when it may be any. */
  readonly wantedKeys: (topic: string) => readonly string[] | undefined;
  /** The selectors as text: the same for those that differ in nothing but the order of what they list. */
  readonly selection: string;
  /** What it was made of: any of them may want an event. */
  readonly rules: readonly Rule[];
  /** Evaluations of filters that have failed, and so counted as no match. */
  readonly errors: () => number;
}

/** What selectors are compiled with. */
export interface SelectorOptions {
  /** Default: `DEFAULT_FILTER_LIMITS`. */
  readonly limits?: FilterLimits;
  /** Told of each evaluation of a filter that failed: for metrics. */
  readonly onFilterError?: () => void;
  /** Where images that were taken apart are remembered. Default: one for the process. */
  readonly rows?: RowCache;
  /** Whether events may be hidden: then not every version is of an event, not even to those who ask for all. Default false. */
  readonly hides?: boolean | undefined;
}

/** Topics whose rules a matcher remembers: enough for the topics of one feed at work, small beside a stream. */
const CACHED_TOPICS = 256;

/**
 * Checks selectors and makes a matcher of them.
 *
 * @throws FeedError INVALID_REQUEST, with every wrong field by its path; FILTER_INVALID, with the place; LIMIT_EXCEEDED for a
 *   filter that is too long or too costly
 */
export function compileSelectors(selectors: readonly Selector[], options: SelectorOptions = {}): Matcher {
  const { limits = DEFAULT_FILTER_LIMITS, onFilterError, rows = sharedRows, hides = false } = options;
  let errors = 0;
  const rules = parseRules(selectors, limits, () => {
    errors++;
    onFilterError?.();
  });
  if (rules.length === 0 || rules.some(asksNothing)) {
    return hides ? EVERYTHING_SHOWN : EVERYTHING;
  }
  const view = createView(rulesByTopic(rules), rows);
  return {
    view,
    matches: (event) => view(event) !== undefined,
    interest: rules.map(({ patterns, keys, requirement }) => ({ patterns, keys, requirement })),
    wantsSource: (topic) => rules.some((rule) => wantsTopic(rule, topic)),
    wantedKeys: (topic) => unionOfKeys(rules.filter((rule) => wantsTopic(rule, topic))),
    selection: JSON.stringify(sorted(rules.map(textOfRule))),
    rules,
    errors: () => errors,
  };
}

const EVERYTHING: Matcher = {
  view: (event) => event,
  matches: () => true,
  interest: [],
  wantsSource: () => true,
  wantedKeys: () => undefined,
  selection: "",
  rules: [{ patterns: [], keys: undefined, operations: undefined, filter: undefined, projection: undefined }],
  errors: () => 0,
};

const EVERYTHING_SHOWN: Matcher = {
  ...EVERYTHING,
  view: (event) => (event.topic === HIDDEN_TOPIC ? undefined : event),
  matches: ({ topic }) => topic !== HIDDEN_TOPIC,
  selection: "shown",
};

function asksNothing(rule: Rule): boolean {
  const { keys, operations, filter, projection } = rule;
  return [keys, operations, filter, projection].every((asked) => asked === undefined) && wantsEveryTopic(rule);
}

function unionOfKeys(rules: readonly Rule[]): readonly string[] | undefined {
  const union = new Set<string>();
  for (const { keys } of rules) {
    if (keys === undefined) {
      return undefined;
    }
    for (const key of keys) {
      union.add(key);
    }
  }
  return [...union];
}

/** Cursors of snapshots remember a digest of it: what does not filter keeps the text that it had before filters were. */
function textOfRule({ patterns, keys, operations, filter, projection }: Rule): string {
  const lists = [sorted(patterns.map(({ text }) => text)), sorted(keys ?? []), sorted(operations ?? [])];
  if (filter === undefined && projection === undefined) {
    return JSON.stringify(lists);
  }
  const fields = sorted((projection?.paths ?? []).map((path) => JSON.stringify(path)));
  return JSON.stringify([...lists, filter?.text ?? "", fields]);
}

function sorted(texts: Iterable<string>): readonly string[] {
  return [...new Set(texts)].sort();
}

function wantsEveryTopic(rule: Rule): boolean {
  return rule.patterns.length === 0 || rule.patterns.some((pattern) => pattern.text === ">");
}

/** Whether the rule may want an event of this topic or, for a template, of one of its topics. */
export function wantsTopic(rule: Rule, topic: string): boolean {
  return rule.patterns.length === 0 || rule.patterns.some((pattern) => patternMatches(pattern, topic));
}

/** A feed has few topics and many events: patterns are tried once per topic, not once per event. */
export function rulesByTopic(rules: readonly Rule[]): (topic: string) => readonly Rule[] {
  const cache = new Map<string, readonly Rule[]>();
  let lastTopic = "";
  let last: readonly Rule[] = [];
  return (topic) => {
    if (topic === lastTopic) {
      return last;
    }
    let found = cache.get(topic);
    if (found === undefined) {
      if (cache.size >= CACHED_TOPICS) {
        cache.clear();
      }
      found = rules.filter((rule) => wantsTopic(rule, topic));
      cache.set(topic, found);
    }
    lastTopic = topic;
    last = found;
    return found;
  };
}
