import {
  type CelFunc,
  type CelInput,
  type CelList,
  type CelMap,
  CelScalar,
  type CelType,
  type CelUint,
  type CelValue,
  celEnv,
  celFunc,
  celList,
  celMap,
  celUint,
  isCelError,
  isCelList,
  isCelMap,
  listType,
  objectType,
  parse,
  plan,
} from "@bufbuild/cel";
import { create } from "@bufbuild/protobuf";
import { reflect } from "@bufbuild/protobuf/reflect";
import { TimestampSchema } from "@bufbuild/protobuf/wkt";
import { RE2JS } from "@bufbuild/re2";
import { compareCodePoints } from "./code-points.ts";

// The only file of the core that knows a package: CEL's parser and its interpreter, which is the truth about what a filter
// means. Three things differ from the interpreter as it comes. Strings are ordered by code points, as CEL has it and as
// Postgres orders them under the collation C, and not by UTF-16 units. Patterns of `matches` are compiled once. And what goes
// through lists and maps draws on a budget, for an event may bring an array of any length.

export type { CelFunc, CelList, CelMap, CelType, CelUint, CelValue };
export { celUint, isCelList, isCelMap };

/** A node of a parsed filter. */
export type Expr = NonNullable<ReturnType<typeof parse>["expr"]>;

/** A parsed filter: its tree, and where in the text each node begins. */
export interface Parsed {
  readonly expr: Expr;
  /** UTF-16 offset by the node's id. */
  readonly positions: Readonly<Record<string, number>>;
}

/** What evaluation yields when it fails. CEL's errors are values: `||` and `&&` absorb them. */
export const FAILED: unique symbol = Symbol("failed");

/** The outcome of an expression. */
export type Value = CelValue | typeof FAILED;

/** Variables by name. Getters will do: only what a filter names is read. */
export type Bindings = Readonly<Record<string, CelValue>>;

/** Elements and keys that one evaluation may go through in lists and maps that came with an event. */
export const MAX_VISITS = 10_000;
/** Elements that are copied at the price of one that is gone through: macros make a list anew for each element. */
const COPIES_PER_VISIT = 64;
/** Compiled patterns that are kept. Those that are constants are compiled with their filter besides. */
const CACHED_PATTERNS = 256;

let visits = 0;

function visit(count: number): void {
  visits += count;
  if (visits > MAX_VISITS) {
    throw new Error(`a filter goes through at most ${MAX_VISITS} elements of an event`);
  }
}

class BoundedArray extends Array<CelValue> {
  override values(): ArrayIterator<CelValue> {
    visit(this.length);
    return super.values();
  }
}

class BoundedMap extends Map<string, CelValue> {
  override keys(): MapIterator<string> {
    visit(this.size);
    return super.keys();
  }
}

const arrays = new WeakMap<CelList, readonly CelValue[]>();

/** A list whose elements are at hand. */
export function listOf(...parts: readonly (readonly CelValue[])[]): CelList {
  const array = new BoundedArray();
  for (const part of parts) {
    for (const element of part) {
      array.push(element);
    }
  }
  const list = celList(array);
  arrays.set(list, array);
  return list;
}

function elementsOf(list: CelList): readonly CelValue[] {
  return arrays.get(list) ?? [...list];
}

/** A map whose keys are strings. */
export function mapOf(entries: Iterable<readonly [string, CelValue]>): CelMap {
  return celMap(new BoundedMap(entries));
}

/** A `google.protobuf.Timestamp`. */
export function timestampOf(micros: number): CelValue {
  const seconds = Math.floor(micros / 1e6);
  const message = create(TimestampSchema, { seconds: BigInt(seconds), nanos: (micros - seconds * 1e6) * 1000 });
  return reflect(TimestampSchema, message);
}

/** A pattern of `matches`: it runs in time linear in the text. */
export interface Pattern {
  readonly test: (text: string) => boolean;
}

const patterns = new Map<string, Pattern>();

/** @throws Error that says what is wrong with the pattern */
export function compilePattern(pattern: string): Pattern {
  return RE2JS.compile(pattern);
}

function patternOf(text: string): Pattern {
  const known = patterns.get(text);
  if (known !== undefined) {
    return known;
  }
  if (patterns.size >= CACHED_PATTERNS) {
    patterns.clear();
  }
  const compiled = compilePattern(text);
  patterns.set(text, compiled);
  return compiled;
}

/** Types that have no parts. */
export const scalarType: typeof CelScalar = CelScalar;
/** The type of what `timestampOf` makes. */
export const timestampType: CelType = objectType(TimestampSchema);

const { BOOL, DYN, STRING } = CelScalar;
const LIST = listType(DYN);

const environment = celEnv({
  funcs: [
    celFunc("_<_", [STRING, STRING], BOOL, (a, b) => compareCodePoints(a, b) < 0),
    celFunc("_<=_", [STRING, STRING], BOOL, (a, b) => compareCodePoints(a, b) <= 0),
    celFunc("_>_", [STRING, STRING], BOOL, (a, b) => compareCodePoints(a, b) > 0),
    celFunc("_>=_", [STRING, STRING], BOOL, (a, b) => compareCodePoints(a, b) >= 0),
    // Stock concatenation nests lists: to go through what `map` made takes the square of its length, unseen by the budget.
    celFunc("_+_", [LIST, LIST], LIST, (a, b): CelInput<typeof LIST> => {
      visit((a.size + b.size) / COPIES_PER_VISIT);
      return listOf(elementsOf(a), elementsOf(b));
    }),
  ],
  re2: { compile: patternOf },
});

/** @throws Error; with `location` where it knows the place */
export function parseText(text: string): Parsed {
  const { expr, sourceInfo } = parse(text);
  return { expr, positions: sourceInfo?.positions ?? {} };
}

/** The overloads of a function or operator; empty when there is none of this name. */
export function overloadsOf(name: string): readonly CelFunc[] {
  return [...(environment.funcs.find(name) ?? [])];
}

/** The interpreter: right about everything, at some microseconds per call. */
export function interpreted(expr: Expr): (bindings: Bindings) => Value {
  const evaluate = plan(environment, expr);
  return (bindings) => {
    visits = 0;
    const value = evaluate(bindings);
    return isCelError(value) ? FAILED : value;
  };
}

/** Why a constant expression fails; `undefined` when it does not. */
export function failureOf(expr: Expr): string | undefined {
  const value = plan(environment, expr)({});
  return isCelError(value) ? value.message : undefined;
}
