import type { Event } from "../event.ts";
import { sharedRows } from "../selector/filter/row-cache.ts";
import { type Matcher, rulesByTopic, wantsTopic } from "../selector/selector.ts";
import type { Rule } from "../selector/selector-rule.ts";
import { createView } from "../selector/selector-view.ts";
import { patternCovers, type TopicPattern, topicTokens } from "../selector/topic.ts";

/** What a snapshot of newly selected rows goes by. */
export type Addition = Pick<Matcher, "view" | "wantsSource" | "wantedKeys" | "selection">;

const EVERY_TOPIC: readonly Pick<TopicPattern, "tokens" | "tail">[] = [{ tokens: [], tail: true }];

/**
 * The rows that `next` selects and `before` did not, or of which it shows columns that were not shown; `undefined` when it is
 * plain from the selectors that there are none.
 */
export function additionOf(next: Matcher, before: Matcher): Addition | undefined {
  const fresh = next.rules.filter((rule) => !before.rules.some((known) => implies(known, rule)));
  if (fresh.length === 0) {
    return undefined;
  }
  const whole = before.rules.filter(
    ({ keys, filter, projection }) => keys === undefined && filter === undefined && projection === undefined,
  );
  return {
    view: createAddedView(next, before),
    wantsSource: (topic) =>
      fresh.some((rule) => wantsTopic(rule, topic)) && !whole.some((rule) => coversSource(rule, topic)),
    wantedKeys: next.wantedKeys,
    selection: JSON.stringify([before.selection, next.selection]),
  };
}

/** Of rows alone: what they are now is all that is asked. */
function createAddedView(next: Matcher, before: Matcher): (row: Event) => Event | undefined {
  const both = createView(rulesByTopic([...before.rules, ...next.rules]), sharedRows);
  return (row) => {
    const shown = next.view(row);
    if (shown === undefined) {
      return undefined;
    }
    const held = before.view(row);
    return held !== undefined && isSameImage(held.after, both(row)?.after) ? undefined : shown;
  };
}

/** Whether every row that the rule selects is one that the known rule selects, with all its columns. */
function implies(known: Rule, rule: Rule): boolean {
  return (
    patternsOf(rule).every((pattern) => coversTopics(known, pattern)) &&
    (known.keys === undefined || rule.keys?.isSubsetOf(known.keys) === true) &&
    (known.filter === undefined || known.filter.text === rule.filter?.text) &&
    (known.projection === undefined || columnsOf(rule)?.isSubsetOf(columnsOf(known) ?? new Set()) === true)
  );
}

function columnsOf({ projection }: Rule): ReadonlySet<string> | undefined {
  return projection === undefined ? undefined : new Set(projection.paths.map((path) => JSON.stringify(path)));
}

function coversSource(rule: Rule, topic: string): boolean {
  return coversTopics(rule, { tokens: topicTokens(topic), tail: false });
}

function coversTopics({ patterns }: Rule, other: Pick<TopicPattern, "tokens" | "tail">): boolean {
  return patterns.length === 0 || patterns.some((pattern) => patternCovers(pattern, other));
}

function patternsOf({ patterns }: Rule): readonly Pick<TopicPattern, "tokens" | "tail">[] {
  return patterns.length === 0 ? EVERY_TOPIC : patterns;
}

function isSameImage(a: Event["after"], b: Event["after"]): boolean {
  return a === b || (a?.length === b?.length && a?.every((byte, at) => byte === b?.[at]) === true);
}
