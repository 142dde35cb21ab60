import { FAILED, type Parsed, parseText, type Value } from "./cel.ts";
import { checkExpr, FilterProblem } from "./check.ts";
import { compileExpr, type Node } from "./compile.ts";
import { type Requirement, requirementOf } from "./requirement.ts";
import type { Scope } from "./scope.ts";

/** What one filter may take. */
export interface FilterLimits {
  /** Bytes of its text in UTF-8. */
  readonly maxFilterBytes: number;
  /**
   * Nodes of its tree, those within a macro counted for each element that it goes through: as many as a literal list has, and
   * else 8. An evaluation takes some nanoseconds per node.
   */
  readonly maxFilterCost: number;
}

/** Enough for every filter that somebody writes by hand. */
export const DEFAULT_FILTER_LIMITS: FilterLimits = { maxFilterBytes: 4_096, maxFilterCost: 1_000 };

/** A CEL predicate, ready for events. */
export interface Filter {
  readonly text: string;
  /** What its truth is about: rows, so that a change may move one in or out, or events. */
  readonly about: "rows" | "events";
  /** What a row must have at the least; `undefined` when nothing is known, and for filters on events. */
  readonly requirement: Requirement | undefined;
  /** Whether it is true. A failure counts as false. */
  readonly test: (scope: Scope) => boolean;
}

/** Why a text is no filter. */
export type FilterRefusal =
  /** Something is wrong in this place. The message completes the sentence "The filter ...". */
  | { readonly kind: "invalid"; readonly message: string; readonly line: number; readonly column: number }
  | { readonly kind: "limit"; readonly limit: keyof FilterLimits; readonly value: number };

/** The filter, or why it is none. */
export type ParsedFilter = { readonly filter: Filter } | { readonly refusal: FilterRefusal };

/** Filters that are kept compiled: after a restart thousands of streams come back with the same ones. */
const CACHED_FILTERS = 512;

interface Compiled {
  readonly about: Filter["about"];
  readonly cost: number;
  readonly requirement: Requirement | undefined;
  readonly evaluate: Node;
}

const cache = new Map<string, Compiled>();

const encoder = new TextEncoder();

/**
 * Parses, checks and compiles a filter.
 *
 * @param onError - told of each evaluation that failed, which counts as false
 */
export function parseFilter(text: string, limits: FilterLimits, onError: () => void): ParsedFilter {
  const bytes = encoder.encode(text).length;
  if (bytes > limits.maxFilterBytes) {
    return { refusal: { kind: "limit", limit: "maxFilterBytes", value: bytes } };
  }
  try {
    const { about, cost, requirement, evaluate } = compiled(text);
    if (cost > limits.maxFilterCost) {
      return { refusal: { kind: "limit", limit: "maxFilterCost", value: cost } };
    }
    return { filter: { text, about, requirement, test: testOf(evaluate, onError) } };
  } catch (error) {
    if (!(error instanceof FilterProblem)) {
      throw error;
    }
    return { refusal: { kind: "invalid", message: error.message, ...placeOf(text, error.offset) } };
  }
}

/** What a filter remembers of the rows that it saw does not depend on whose it is: all who have the same text share it. */
function compiled(text: string): Compiled {
  const known = cache.get(text);
  if (known !== undefined) {
    return known;
  }
  const { expr, positions } = parsed(text);
  const { variables, cost } = checkExpr(expr, positions);
  const about = variables.size === 1 && variables.has("row") ? "rows" : "events";
  const requirement = about === "rows" ? requirementOf(expr) : undefined;
  const fresh: Compiled = { about, cost, requirement, evaluate: compileExpr(expr) };
  if (cache.size >= CACHED_FILTERS) {
    cache.clear();
  }
  cache.set(text, fresh);
  return fresh;
}

function testOf(evaluate: Node, onError: () => void): Filter["test"] {
  return (scope) => {
    let value: Value = FAILED;
    try {
      value = evaluate(scope);
    } catch {
      // An image that is no JSON after all, or is nested deeper than the stack.
    }
    if (typeof value === "boolean") {
      return value;
    }
    onError();
    return false;
  };
}

function parsed(text: string): Parsed {
  try {
    // A comment ends with its line.
    return parseText(`${text}\n`);
  } catch (error) {
    throw problemOf(error, text);
  }
}

function problemOf(error: unknown, text: string): FilterProblem {
  if (error instanceof RangeError) {
    return new FilterProblem("is nested too deeply to be read", 0);
  }
  const offset = offsetOf(error);
  if (offset === undefined) {
    return new FilterProblem(`cannot be read: ${error instanceof Error ? error.message : error}`, 0);
  }
  if (text.slice(offset).trim() === "") {
    return new FilterProblem("ends before it is complete", offset);
  }
  if (text.trim() !== "" && /reserved/.test(String(error))) {
    return new FilterProblem('uses a word that CEL reserves: write such a column as `row["in"]`', offset);
  }
  return new FilterProblem(`cannot be read from \`${excerpt(text, offset)}\` on`, offset);
}

/** The parser's errors carry the place where it gave up. */
function offsetOf(error: unknown): number | undefined {
  if (typeof error !== "object" || error === null || !("location" in error)) {
    return undefined;
  }
  const { location } = error;
  const start = typeof location === "object" && location !== null && "start" in location ? location.start : undefined;
  const offset = typeof start === "object" && start !== null && "offset" in start ? start.offset : undefined;
  return typeof offset === "number" ? offset : undefined;
}

function excerpt(text: string, offset: number): string {
  return [...text.slice(offset)].slice(0, 12).join("").split("\n")[0] ?? "";
}

/** Both from 1; the column in characters, not in UTF-16 units. The parser counts the space before an operator to it. */
function placeOf(text: string, offset: number): { readonly line: number; readonly column: number } {
  const space = text.slice(offset).search(/\S/);
  const lines = text.slice(0, offset + Math.max(space, 0)).split("\n");
  return { line: lines.length, column: [...(lines.at(-1) ?? "")].length + 1 };
}
