import { type CelValue, FAILED, interpreted, isCelList, isCelMap, parseText, type Value } from "./cel.ts";
import { compareCodePoints } from "./code-points.ts";

// What CEL's operators do to values. The pairs of types that filters mostly meet are done here; all others, and with them every
// question of what is equal to what, are left to the interpreter. A property test holds the two to the same answers.

/** An operator or function of already evaluated operands, of which none has failed. */
export type Operator = (...operands: CelValue[]) => Value;

const MAX_INT = 9_223_372_036_854_775_807n;
const MIN_INT = -9_223_372_036_854_775_808n;

const called = new Map<string, Operator>();

/**
 * Any function or operator, by the interpreter.
 *
 * @param method - whether the first operand stands before the dot
 */
export function call(name: string, method: boolean, count: number): Operator {
  const names = Array.from({ length: count }, (_, i) => `a${i}`);
  const text = callText(name, method, names);
  const known = called.get(text);
  if (known !== undefined) {
    return known;
  }
  const evaluate = interpreted(parseText(text).expr);
  const operator: Operator = (...operands) => {
    const bindings: Record<string, CelValue> = {};
    operands.forEach((operand, i) => {
      bindings[`a${i}`] = operand;
    });
    return evaluate(bindings);
  };
  called.set(text, operator);
  return operator;
}

function callText(name: string, method: boolean, names: readonly string[]): string {
  const symbol = name.replaceAll(/^_|_$|^@/g, "");
  if (symbol === name) {
    const [first, ...rest] = names;
    return method ? `${first}.${name}(${rest.join(", ")})` : `${name}(${names.join(", ")})`;
  }
  return names.length === 1 ? `${symbol}${names[0]}` : names.join(` ${symbol} `);
}

const slowEqual = call("_==_", false, 2);

/** `==` */
export function equal(a: CelValue, b: CelValue): Value {
  if (a === b) {
    return true;
  }
  if (isObject(a) || isObject(b)) {
    return slowEqual(a, b);
  }
  // Of the rest, only ints and doubles are equal without being identical; JavaScript orders the two exactly.
  return isNumeric(a) && isNumeric(b) && a <= b && a >= b;
}

function isNumeric(value: CelValue): value is bigint | number {
  return typeof value === "bigint" || typeof value === "number";
}

/** `!=` */
export function unequal(a: CelValue, b: CelValue): Value {
  const same = equal(a, b);
  return typeof same === "boolean" ? !same : same;
}

function isObject(value: CelValue): boolean {
  return typeof value === "object" && value !== null;
}

function comparison(name: string, holds: (order: number) => boolean): Operator {
  const slow = call(name, false, 2);
  return (a: CelValue, b: CelValue) => {
    switch (typeof a) {
      case "bigint":
        if (typeof b === "bigint") {
          return holds(a < b ? -1 : a > b ? 1 : 0);
        }
        return typeof b === "number" ? holds(orderOf(Number(a), b)) : slow(a, b);
      case "number":
        if (typeof b === "number" || typeof b === "bigint") {
          return holds(orderOf(a, Number(b)));
        }
        return slow(a, b);
      case "string":
        return typeof b === "string" ? holds(compareCodePoints(a, b)) : slow(a, b);
      default:
        return slow(a, b);
    }
  };
}

/** NaN for what has no order. */
function orderOf(a: number, b: number): number {
  return a < b ? -1 : a > b ? 1 : a === b ? 0 : Number.NaN;
}

/** `<` */
export const less: Operator = comparison("_<_", (order) => order < 0);
/** `<=` */
export const lessOrEqual: Operator = comparison("_<=_", (order) => order <= 0);
/** `>` */
export const greater: Operator = comparison("_>_", (order) => order > 0);
/** `>=` */
export const greaterOrEqual: Operator = comparison("_>=_", (order) => order >= 0);

function inRange(int: bigint): Value {
  return int >= MIN_INT && int <= MAX_INT ? int : FAILED;
}

function arithmetic(
  name: string,
  ints: (a: bigint, b: bigint) => Value,
  doubles: ((a: number, b: number) => number) | undefined,
): Operator {
  const slow = call(name, false, 2);
  return (a: CelValue, b: CelValue) => {
    if (typeof a === "bigint" && typeof b === "bigint") {
      return ints(a, b);
    }
    return doubles !== undefined && typeof a === "number" && typeof b === "number" ? doubles(a, b) : slow(a, b);
  };
}

const sumOfNumbers = arithmetic(
  "_+_",
  (a, b) => inRange(a + b),
  (a, b) => a + b,
);

/** `+` */
export const add: Operator = (a: CelValue, b: CelValue) =>
  typeof a === "string" && typeof b === "string" ? a + b : sumOfNumbers(a, b);
/** `-` */
export const subtract: Operator = arithmetic(
  "_-_",
  (a, b) => inRange(a - b),
  (a, b) => a - b,
);
/** `*` */
export const multiply: Operator = arithmetic(
  "_*_",
  (a, b) => inRange(a * b),
  (a, b) => a * b,
);
/** `/` */
export const divide: Operator = arithmetic(
  "_/_",
  (a, b) => (b === 0n ? FAILED : inRange(a / b)),
  (a, b) => a / b,
);
/** `%` */
export const remainder: Operator = arithmetic("_%_", (a, b) => (b === 0n ? FAILED : a % b), undefined);

function ofStrings(name: string, test: (text: string, part: string) => boolean): Operator {
  const slow = call(name, true, 2);
  return (text: CelValue, part: CelValue) =>
    typeof text === "string" && typeof part === "string" ? test(text, part) : slow(text, part);
}

/** `.startsWith()` */
export const startsWith: Operator = ofStrings("startsWith", (text, part) => text.startsWith(part));
/** `.endsWith()` */
export const endsWith: Operator = ofStrings("endsWith", (text, part) => text.endsWith(part));
/** `.contains()` */
export const contains: Operator = ofStrings("contains", (text, part) => text.includes(part));

const slowSize = call("size", false, 1);

/** `size()`, which counts code points. */
export const size: Operator = (value: CelValue) => {
  if (typeof value !== "string") {
    return isCelList(value) || isCelMap(value) ? BigInt(value.size) : slowSize(value);
  }
  let count = 0;
  for (const _ of value) {
    count++;
  }
  return BigInt(count);
};
