import type { CelValue, Expr } from "./cel.ts";
import { constantOf, constantsOf } from "./constant.ts";

/** A value of which equality is identity: ints are compared as such, and a double that is whole as the int. */
export type Key = string | bigint | boolean | null;

/** One column that has one of these values. */
export interface Alternative {
  readonly column: string;
  readonly values: readonly Key[];
}

/**
 * What a filter on rows requires at the least: that one of these alternatives is the case. A row that has all their columns, and
 * in none of them one of the values, cannot pass; nor can the filter fail on it.
 */
export type Requirement = readonly Alternative[];

/** What the filter requires; `undefined` when it can be anything. */
export function requirementOf(expr: Expr): Requirement | undefined {
  const { exprKind: kind } = expr;
  if (kind.case !== "callExpr") {
    return undefined;
  }
  const { function: name, args } = kind.value;
  switch (name) {
    case "_&&_":
      return narrowest(args.map(requirementOf));
    case "_||_":
      return either(args.map(requirementOf));
    case "_==_":
      return equality(args[0], args[1]) ?? equality(args[1], args[0]);
    case "!_":
      return negated(args[0]);
    case "@in":
      return membership(args[0], args[1]);
    default:
      return undefined;
  }
}

/** `!(row.column != value)` */
function negated(expr: Expr | undefined): Requirement | undefined {
  const kind = expr?.exprKind;
  if (kind?.case !== "callExpr" || kind.value.function !== "_!=_") {
    return undefined;
  }
  const [left, right] = kind.value.args;
  return equality(left, right) ?? equality(right, left);
}

/** Of several that all must be met, the one that singles out the most. */
function narrowest(requirements: readonly (Requirement | undefined)[]): Requirement | undefined {
  const known = requirements.filter((requirement) => requirement !== undefined);
  return known.toSorted((a, b) => width(a) - width(b))[0];
}

function width(requirement: Requirement): number {
  return requirement.reduce((sum, { values }) => sum + values.length, 0);
}

/** One that has no requirement takes the others' away. */
function either(requirements: readonly (Requirement | undefined)[]): Requirement | undefined {
  const known = requirements.filter((requirement) => requirement !== undefined);
  return known.length === requirements.length ? known.flat() : undefined;
}

function equality(left: Expr | undefined, right: Expr | undefined): Requirement | undefined {
  const column = columnOf(left);
  const value = right === undefined ? undefined : constantOf(right);
  return column !== undefined && isKey(value) ? [{ column, values: [value] }] : undefined;
}

function membership(left: Expr | undefined, right: Expr | undefined): Requirement | undefined {
  const column = columnOf(left);
  const values = right === undefined ? undefined : constantsOf(right);
  return column !== undefined && values?.every(isKey) ? [{ column, values }] : undefined;
}

/** `row.column` */
function columnOf(expr: Expr | undefined): string | undefined {
  const kind = expr?.exprKind;
  if (kind?.case !== "selectExpr" || kind.value.testOnly) {
    return undefined;
  }
  const operand = kind.value.operand?.exprKind;
  return operand?.case === "identExpr" && operand.value.name === "row" ? kind.value.field : undefined;
}

function isKey(value: CelValue | undefined): value is Key {
  return value === null || ["string", "bigint", "boolean"].includes(typeof value);
}

/** The key that is equal to a value of a row; `undefined` for a value that no key is equal to. */
export function keyOf(value: CelValue): Key | undefined {
  if (typeof value === "number") {
    return Number.isInteger(value) ? BigInt(value) : undefined;
  }
  return isKey(value) ? value : undefined;
}
