import { type CelValue, type Expr, FAILED, listOf, type Value } from "./cel.ts";
import type { Column } from "./column.ts";
import { constantOf, constantsOf } from "./constant.ts";
import * as operators from "./operators.ts";
import type { Scope } from "./scope.ts";

// One column against a constant, in one closure each: what filters mostly consist of, and so the place where the time of a
// thousand filters goes. The type that the constant has is tried first; all others go where everything goes.

type Test = (scope: Scope) => Value;

/** The test, or `undefined` when there is no short cut for it. */
export function testOfColumn(name: string, column: Column, right: Expr): Test | undefined {
  if (name === "@in") {
    const constants = constantsOf(right);
    return constants === undefined ? undefined : oneOf(column, constants);
  }
  const constant = constantOf(right);
  switch (typeof constant) {
    case "bigint":
      return testOfInt(name, column, constant);
    case "string":
      return testOfString(name, column, constant);
    default:
      return undefined;
  }
}

function testOfInt(name: string, column: Column, int: bigint): Test | undefined {
  const otherwise = (value: Value, operator: operators.Operator): Value =>
    value === FAILED ? FAILED : operator(value, int);
  switch (name) {
    case "_==_":
      return ({ row }) => {
        const value = column.read(row);
        return typeof value === "bigint" ? value === int : otherwise(value, operators.equal);
      };
    case "_!=_":
      return ({ row }) => {
        const value = column.read(row);
        return typeof value === "bigint" ? value !== int : otherwise(value, operators.unequal);
      };
    case "_<_":
      return ({ row }) => {
        const value = column.read(row);
        return typeof value === "bigint" ? value < int : otherwise(value, operators.less);
      };
    case "_<=_":
      return ({ row }) => {
        const value = column.read(row);
        return typeof value === "bigint" ? value <= int : otherwise(value, operators.lessOrEqual);
      };
    case "_>_":
      return ({ row }) => {
        const value = column.read(row);
        return typeof value === "bigint" ? value > int : otherwise(value, operators.greater);
      };
    case "_>=_":
      return ({ row }) => {
        const value = column.read(row);
        return typeof value === "bigint" ? value >= int : otherwise(value, operators.greaterOrEqual);
      };
    default:
      return undefined;
  }
}

function testOfString(name: string, column: Column, text: string): Test | undefined {
  const otherwise = (value: Value, operator: operators.Operator): Value =>
    value === FAILED ? FAILED : operator(value, text);
  switch (name) {
    case "_==_":
      return ({ row }) => {
        const value = column.read(row);
        return typeof value === "string" ? value === text : otherwise(value, operators.equal);
      };
    case "_!=_":
      return ({ row }) => {
        const value = column.read(row);
        return typeof value === "string" ? value !== text : otherwise(value, operators.unequal);
      };
    case "startsWith":
      return ({ row }) => {
        const value = column.read(row);
        return typeof value === "string" ? value.startsWith(text) : otherwise(value, operators.startsWith);
      };
    case "endsWith":
      return ({ row }) => {
        const value = column.read(row);
        return typeof value === "string" ? value.endsWith(text) : otherwise(value, operators.endsWith);
      };
    case "contains":
      return ({ row }) => {
        const value = column.read(row);
        return typeof value === "string" ? value.includes(text) : otherwise(value, operators.contains);
      };
    default:
      return undefined;
  }
}

/** `in` a list of literals: one look into a set instead of one comparison each. */
function oneOf(column: Column, constants: readonly CelValue[]): Test | undefined {
  if (!constants.every(isSimple)) {
    return undefined;
  }
  const set = new Set<CelValue>(constants);
  const list = listOf(constants);
  const slow = operators.call("@in", false, 2);
  return ({ row }) => {
    const value = column.read(row);
    switch (typeof value) {
      case "string":
      case "bigint":
      case "boolean":
        return set.has(value);
      case "number":
        return Number.isInteger(value) && set.has(BigInt(value));
      case "symbol":
        return FAILED;
      default:
        return value === null ? set.has(null) : slow(value, list);
    }
  };
}

function isSimple(value: CelValue): boolean {
  return ["string", "bigint", "boolean"].includes(typeof value) || value === null;
}
