import { FeedError } from "../errors.ts";
import type { Operation } from "../event.ts";
import { type Filter, type FilterLimits, type FilterRefusal, parseFilter } from "./filter/filter.ts";
import type { Requirement } from "./filter/requirement.ts";
import { type ColumnPath, createProjection, type Projection, parseColumnPath } from "./projection.ts";
import type { Selector } from "./selector.ts";
import { parseTopicPattern, type TopicPattern } from "./topic.ts";

/**
 * Events that one selector may want: those of its topics that have one of its keys, and, whatever their key, TRUNCATE and
 * events without a key.
 */
export interface Interest {
  /** Empty for every topic. */
  readonly patterns: readonly TopicPattern[];
  /** `undefined` for every key. */
  readonly keys: ReadonlySet<string> | undefined;
  /** What their rows must have at the least, for a `ColumnIndex`; `undefined` when it can be anything. */
  readonly requirement?: Requirement | undefined;
}

/** A selector that has been read. */
export interface Rule extends Interest {
  readonly operations: ReadonlySet<Operation> | undefined;
  readonly filter: Filter | undefined;
  /** `undefined` for images as they are. */
  readonly projection: Projection | undefined;
}

interface Violation {
  readonly field: string;
  readonly message: string;
}

interface WrongFilter {
  readonly selector: number;
  readonly refusal: FilterRefusal;
}

const OPERATIONS: ReadonlySet<string> = new Set<Operation>([
  "INSERT",
  "UPDATE",
  "DELETE",
  "TRUNCATE",
  "SNAPSHOT",
  "MESSAGE",
]);

/**
 * Reads selectors.
 *
 * @param onFilterError - told of each evaluation of a filter that failed
 * @throws FeedError INVALID_REQUEST, with every wrong field by its path; FILTER_INVALID, with the place; LIMIT_EXCEEDED for a
 *   filter that is too long or too costly
 */
export function parseRules(
  selectors: readonly Selector[],
  limits: FilterLimits,
  onFilterError: () => void,
): readonly Rule[] {
  const violations: Violation[] = [];
  const wrong: WrongFilter[] = [];
  const rules = selectors.map((selector, i): Rule => {
    const patterns = parseTopics(selector.topics, i, violations);
    const projection = parseFields(selector.fields ?? [], i, violations);
    selector.operations.forEach((operation, j) => {
      if (!OPERATIONS.has(operation)) {
        violations.push({ field: `selectors[${i}].operations[${j}]`, message: `\`${operation}\` is no operation` });
      }
    });
    const { filter, refusal } = readFilter(selector.filter ?? "", limits, onFilterError);
    if (refusal !== undefined) {
      wrong.push({ selector: i, refusal });
    }
    const [keys, operations] = [setOrNone(selector.keys), setOrNone(selector.operations)];
    return { patterns, keys, requirement: filter?.requirement, operations, filter, projection };
  });
  const [violation] = violations;
  if (violation !== undefined) {
    throw new FeedError(
      "INVALID_REQUEST",
      `${violation.field}: ${violation.message}.`,
      "Correct the selectors; topics are like `orders`, `orders.*` or `orders.>`, fields like `id` or `address.city`.",
      { violations },
    );
  }
  assertRight(wrong);
  return rules;
}

function parseTopics(topics: readonly string[], selector: number, violations: Violation[]): readonly TopicPattern[] {
  return topics.flatMap((text, j) => {
    const parsed = parseTopicPattern(text);
    if ("pattern" in parsed) {
      return [parsed.pattern];
    }
    violations.push({ field: `selectors[${selector}].topics[${j}]`, message: `\`${text}\` ${parsed.problem}` });
    return [];
  });
}

function parseFields(fields: readonly string[], selector: number, violations: Violation[]): Projection | undefined {
  const paths = fields.flatMap((text, j): ColumnPath[] => {
    const parsed = parseColumnPath(text);
    if ("path" in parsed) {
      return [parsed.path];
    }
    violations.push({ field: `selectors[${selector}].fields[${j}]`, message: `\`${text}\` ${parsed.problem}` });
    return [];
  });
  return fields.length === 0 ? undefined : createProjection(paths);
}

function readFilter(
  text: string,
  limits: FilterLimits,
  onError: () => void,
): { readonly filter?: Filter; readonly refusal?: FilterRefusal } {
  return text.trim() === "" ? {} : parseFilter(text, limits, onError);
}

/** Of several wrong filters the error tells all, and the place of the first. */
function assertRight(wrong: readonly WrongFilter[]): void {
  for (const { selector, refusal } of wrong) {
    if (refusal.kind === "limit") {
      throw overLimit(selector, refusal);
    }
  }
  const invalid = wrong.flatMap(({ selector, refusal }) =>
    refusal.kind === "invalid" ? { selector, ...refusal } : [],
  );
  const [first] = invalid;
  if (first === undefined) {
    return;
  }
  const { selector, line, column, message } = first;
  throw new FeedError(
    "FILTER_INVALID",
    `The filter of selectors[${selector}] ${message} (line ${line}, column ${column}).`,
    "Correct the filter: docs/filters.md has the language, with examples.",
    {
      filter: { selector, line, column },
      violations: invalid.map((each) => ({
        field: `selectors[${each.selector}].filter`,
        message: `line ${each.line}, column ${each.column}: the filter ${each.message}`,
      })),
    },
  );
}

function overLimit(selector: number, { limit, value }: Extract<FilterRefusal, { kind: "limit" }>): FeedError {
  const measured = limit === "maxFilterBytes" ? `is ${value} bytes long` : `has a cost of ${value} nodes`;
  return new FeedError(
    "LIMIT_EXCEEDED",
    `The filter of selectors[${selector}] ${measured}, which is more than this server takes (${limit}).`,
    "Make the filter simpler, divide it among several selectors, or raise the limit.",
  );
}

function setOrNone<T>(values: readonly T[]): ReadonlySet<T> | undefined {
  return values.length === 0 ? undefined : new Set(values);
}
