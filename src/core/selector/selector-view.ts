import { type Event, HIDDEN_TOPIC, type Image, type Transition } from "../event.ts";
import type { Filter } from "./filter/filter.ts";
import type { RowCache } from "./filter/row-cache.ts";
import { createProjection, type Projection } from "./projection.ts";
import type { Rule } from "./selector-rule.ts";

// What an event looks like to a selection. A row filter makes a set of rows, and an event is what happens to that set: so the
// question is not whether the event matches but where its row stood before and where it stands after. Of several selectors it is
// asked of the union of their sets.

/** Where an event's row stands with a selector, as flags. */
const OUTSIDE = 0;
const BEFORE = 1;
const AFTER = 2;
const INSIDE = BEFORE | AFTER;
/** There is no image of what was, and what is now is not inside: if it was inside, it has left. */
const UNKNOWN = 4;

/** Combinations of selectors whose common projection is remembered. */
const MAX_UNIONS = 256;

/** Makes the view of one selection, given the rules that want an event's topic. */
export function createView(
  rulesOf: (topic: string) => readonly Rule[],
  rows: RowCache,
): (event: Event) => Event | undefined {
  const projectionOf = unions();
  return (event) => {
    if (event.topic === HIDDEN_TOPIC) {
      return undefined;
    }
    let standing = OUTSIDE;
    let wanting: Rule | undefined;
    let more: Rule[] | undefined;
    for (const rule of rulesOf(event.topic)) {
      const its = passes(rule, event) ? standingOf(rule.filter, event, rows) : OUTSIDE;
      if (its === OUTSIDE) {
        continue;
      }
      if (its === INSIDE && rule.projection === undefined) {
        return event;
      }
      standing |= its;
      if (wanting === undefined) {
        wanting = rule;
      } else {
        more ??= [wanting];
        more.push(rule);
      }
    }
    if (wanting === undefined) {
      return undefined;
    }
    return show(event, standing, () => (more === undefined ? wanting.projection : projectionOf(more)));
  };
}

function show(event: Event, standing: number, projection: () => Projection | undefined): Event {
  if ((standing & AFTER) === 0) {
    return derived(event, "LEFT", undefined, undefined);
  }
  const chosen = projection();
  const transition = (standing & BEFORE) === 0 ? "ENTERED" : undefined;
  if (chosen === undefined) {
    return transition === undefined ? event : derived(event, transition, event.before, event.after);
  }
  return derived(event, transition, cut(event.before, chosen), cut(event.after, chosen));
}

function cut(image: Image | undefined, projection: Projection): Image | undefined {
  return image === undefined ? undefined : projection.cut(image);
}

/** Spelled out, so that all events of a stream are objects of one shape. */
function derived(
  event: Event,
  transition: Transition | undefined,
  before: Image | undefined,
  after: Image | undefined,
): Event {
  const { version, topic, key, operation, transaction, occurredAtMicros, headers, origin } = event;
  const view = { version, topic, key, operation, before, after, transaction, occurredAtMicros, headers };
  const shown = origin === undefined ? view : { ...view, origin };
  return transition === undefined ? shown : { ...shown, transition };
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

function standingOf(filter: Filter | undefined, event: Event, rows: RowCache): number {
  if (filter === undefined) {
    return INSIDE;
  }
  if (filter.about === "rows") {
    return standingOfRow(filter, event, rows);
  }
  return inside(filter.test(rows.whole(event)));
}

function standingOfRow(filter: Filter, event: Event, rows: RowCache): number {
  const { before, after } = event;
  switch (event.operation) {
    case "TRUNCATE":
      return INSIDE;
    case "DELETE":
      return before === undefined ? UNKNOWN : inside(filter.test(rows.before(event)));
    case "UPDATE": {
      const is = after !== undefined && filter.test(rows.after(event));
      if (before === undefined) {
        return is ? INSIDE : UNKNOWN;
      }
      return (is ? AFTER : OUTSIDE) | (filter.test(rows.before(event)) ? BEFORE : OUTSIDE);
    }
    case "MESSAGE":
      return after === undefined
        ? inside(announcesSchema(event))
        : inside(announcesSchema(event) || filter.test(rows.after(event)));
    default:
      return inside(after !== undefined && filter.test(rows.after(event)));
  }
}

function inside(is: boolean): number {
  return is ? INSIDE : OUTSIDE;
}

/** What several selectors show together: every column that one of them shows. */
function unions(): (rules: readonly Rule[]) => Projection | undefined {
  const known = new Map<string, Projection>();
  const numbers = new Map<Rule, number>();
  const numberOf = (rule: Rule): number => {
    const number = numbers.get(rule) ?? numbers.size;
    numbers.set(rule, number);
    return number;
  };
  return (rules) => {
    const projections = rules.flatMap(({ projection }) => projection ?? []);
    if (projections.length < rules.length) {
      return undefined;
    }
    const name = rules.map(numberOf).join();
    const projection = known.get(name) ?? createProjection(projections.flatMap(({ paths }) => paths));
    if (known.size >= MAX_UNIONS) {
      known.clear();
    }
    known.set(name, projection);
    return projection;
  };
}

const decoder = new TextDecoder();

/**
 * Of the messages without a key, those with this header. An application's own may carry it too, on topics of its own. Headers
 * are flat JSON with values of strings, in which a quote is escaped: nothing but a name stands between bare quotes before a
 * colon.
 */
function announcesSchema({ operation, key, headers }: Event): boolean {
  return (
    operation === "MESSAGE" &&
    key === undefined &&
    headers !== undefined &&
    /"millrace-schema"\s*:/.test(decoder.decode(headers))
  );
}
