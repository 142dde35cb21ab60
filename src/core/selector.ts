import { FeedError } from "./errors.ts";
import type { Event, Operation } from "./event.ts";
import { parseTopicPattern, patternMatches, type TopicPattern } from "./topic.ts";

/** Which events a stream wants. An event passes when it passes every field that is not empty. */
export interface Selector {
  /** Topic patterns: `orders`, `orders.*`, `orders.>`. */
  readonly topics: readonly string[];
  readonly keys: readonly string[];
  readonly operations: readonly Operation[];
}

/** Selectors made ready for the hot path. Immutable but for a cache. */
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
}

/**
 * Events that one selector may want: those of its topics that have one of its keys, and, whatever their key, TRUNCATE and
 * events without a key.
 */
export interface Interest {
  /** Empty for every topic. */
  readonly patterns: readonly TopicPattern[];
  /** `undefined` for every key. */
  readonly keys: ReadonlySet<string> | undefined;
}

interface Rule extends Interest {
  readonly operations: ReadonlySet<Operation> | undefined;
}

const OPERATIONS: ReadonlySet<string> = new Set<Operation>([
  "INSERT",
  "UPDATE",
  "DELETE",
  "TRUNCATE",
  "SNAPSHOT",
  "MESSAGE",
]);
/** Topics whose rules a matcher remembers: enough for the topics of one feed at work, small beside a stream. */
const CACHED_TOPICS = 256;

/**
 * Checks selectors and makes a matcher of them.
 *
 * @throws FeedError INVALID_REQUEST, with every wrong field by its path.
 */
export function compileSelectors(selectors: readonly Selector[]): Matcher {
  const rules = parseRules(selectors);
  if (rules.length === 0 || rules.some(asksNothing)) {
    return {
      view: (event) => event,
      matches: () => true,
      interest: [],
      wantsSource: () => true,
      wantedKeys: () => undefined,
      selection: "",
    };
  }
  const rulesOf = rulesByTopic(rules);
  const matches = (event: Event): boolean => {
    for (const rule of rulesOf(event.topic)) {
      if (passes(rule, event)) {
        return true;
      }
    }
    return false;
  };
  return {
    matches,
    view: (event) => (matches(event) ? event : undefined),
    interest: rules.map(({ patterns, keys }) => ({ patterns, keys })),
    wantsSource: (topic) => rules.some((rule) => wantsTopic(rule, topic)),
    wantedKeys: (topic) => unionOfKeys(rules.filter((rule) => wantsTopic(rule, topic))),
    selection: JSON.stringify(sorted(rules.map(textOfRule))),
  };
}

function parseRules(selectors: readonly Selector[]): Rule[] {
  const violations: { field: string; message: string }[] = [];
  const rules = selectors.map((selector, i) => {
    const patterns: TopicPattern[] = [];
    selector.topics.forEach((text, j) => {
      const parsed = parseTopicPattern(text);
      if ("pattern" in parsed) {
        patterns.push(parsed.pattern);
      } else {
        violations.push({ field: `selectors[${i}].topics[${j}]`, message: `\`${text}\` ${parsed.problem}` });
      }
    });
    selector.operations.forEach((operation, j) => {
      if (!OPERATIONS.has(operation)) {
        violations.push({ field: `selectors[${i}].operations[${j}]`, message: `\`${operation}\` is no operation` });
      }
    });
    return { patterns, keys: setOrNone(selector.keys), operations: setOrNone(selector.operations) };
  });
  const first = violations[0];
  if (first !== undefined) {
    throw new FeedError(
      "INVALID_REQUEST",
      `${first.field}: ${first.message}.`,
      "Correct the selectors; topics are like `orders`, `orders.*` or `orders.>`.",
      { violations },
    );
  }
  return rules;
}

function setOrNone<T>(values: readonly T[]): ReadonlySet<T> | undefined {
  return values.length === 0 ? undefined : new Set(values);
}

function asksNothing(rule: Rule): boolean {
  return rule.keys === undefined && rule.operations === undefined && wantsEveryTopic(rule);
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

function textOfRule({ patterns, keys, operations }: Rule): string {
  return JSON.stringify([sorted(patterns.map(({ text }) => text)), sorted(keys ?? []), sorted(operations ?? [])]);
}

function sorted(texts: Iterable<string>): readonly string[] {
  return [...new Set(texts)].sort();
}

function wantsEveryTopic(rule: Rule): boolean {
  return rule.patterns.length === 0 || rule.patterns.some((pattern) => pattern.text === ">");
}

function wantsTopic(rule: Rule, topic: string): boolean {
  return rule.patterns.length === 0 || rule.patterns.some((pattern) => patternMatches(pattern, topic));
}

/** A feed has few topics and many events: patterns are tried once per topic, not once per event. */
function rulesByTopic(rules: readonly Rule[]): (topic: string) => readonly Rule[] {
  const cache = new Map<string, readonly Rule[]>();
  return (topic) => {
    const known = cache.get(topic);
    if (known !== undefined) {
      return known;
    }
    if (cache.size >= CACHED_TOPICS) {
      cache.clear();
    }
    const found = rules.filter((rule) => wantsTopic(rule, topic));
    cache.set(topic, found);
    return found;
  };
}

/**
 * The topic has passed already. A TRUNCATE passes whatever the keys, for it is about all of them, and so does the message
 * that the table was altered; a row of a snapshot passes whatever the operations, for the stream asked for it by asking
 * for a snapshot.
 */
function passes(rule: Rule, event: Event): boolean {
  const { operation, key } = event;
  if (rule.operations !== undefined && operation !== "SNAPSHOT" && !rule.operations.has(operation)) {
    return false;
  }
  if (rule.keys === undefined || operation === "TRUNCATE") {
    return true;
  }
  return key === undefined ? announcesSchema(event) : rule.keys.has(key);
}

const decoder = new TextDecoder();

/**
 * Of the messages without a key, those with this header. An application's own may carry it too, on topics of its own. Headers
 * are flat JSON with values of strings, in which a quote is escaped: nothing but a name stands between bare quotes before a
 * colon.
 */
function announcesSchema({ operation, headers }: Event): boolean {
  return operation === "MESSAGE" && headers !== undefined && /"millrace-schema"\s*:/.test(decoder.decode(headers));
}
