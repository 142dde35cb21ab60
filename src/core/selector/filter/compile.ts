import {
  type CelValue,
  compilePattern,
  type Expr,
  FAILED,
  interpreted,
  isCelList,
  isCelMap,
  type Value,
} from "./cel.ts";
import { Column } from "./column.ts";
import { testOfColumn } from "./column-test.ts";
import { constantOf } from "./constant.ts";
import * as operators from "./operators.ts";
import { bindingsOf, eventFields, type Scope, type Variable } from "./scope.ts";

// Makes closures of a checked filter: a tree of JavaScript functions that mirrors the tree of the filter. Not every node has a
// closure of its own: those without one, such as macros, are islands that the interpreter evaluates. So every filter can be
// compiled, and nothing has to be understood here that is rare. Nothing of a filter's text becomes code.

/** A compiled part of a filter. */
export type Node = (scope: Scope) => Value;

type Call = Extract<Expr["exprKind"], { case: "callExpr" }>["value"];

/** A column or something within it: `row.address.city`, `row["tags"][0]`. */
interface Path {
  readonly variable: Variable;
  readonly column: string;
  readonly rest: readonly (string | bigint)[];
}

const VARIABLES: ReadonlySet<string> = new Set<Variable>(["row", "before", "after", "event"]);

const BINARY: Readonly<Record<string, operators.Operator>> = {
  "_==_": operators.equal,
  "_!=_": operators.unequal,
  "_<_": operators.less,
  "_<=_": operators.lessOrEqual,
  "_>_": operators.greater,
  "_>=_": operators.greaterOrEqual,
  "_+_": operators.add,
  "_-_": operators.subtract,
  "_*_": operators.multiply,
  "_/_": operators.divide,
  "_%_": operators.remainder,
};

const METHODS: Readonly<Record<string, operators.Operator>> = {
  startsWith: operators.startsWith,
  endsWith: operators.endsWith,
  contains: operators.contains,
};

/** A closure that yields what the interpreter would. */
export function compileExpr(expr: Expr): Node {
  const constant = constantOf(expr);
  if (constant !== undefined) {
    return () => constant;
  }
  const path = pathOf(expr);
  if (path !== undefined) {
    return compilePath(path);
  }
  const { exprKind: kind } = expr;
  switch (kind.case) {
    case "selectExpr":
      return (kind.value.testOnly ? compileHas(kind.value.operand, kind.value.field) : undefined) ?? island(expr);
    case "callExpr":
      return compileCall(expr, kind.value);
    default:
      return island(expr);
  }
}

function island(expr: Expr): Node {
  const evaluate = interpreted(expr);
  return (scope) => evaluate(bindingsOf(scope));
}

function compileCall(expr: Expr, { function: name, target, args }: Call): Node {
  switch (name) {
    case "_&&_":
      return allOf(args.map(compileExpr));
    case "_||_":
      return anyOf(args.map(compileExpr));
    case "_?_:_":
      return choice(args.map(compileExpr));
    case "!_":
      return not(args.map(compileExpr));
    case "_[_]":
    case "@not_strictly_false":
      return island(expr);
  }
  const operands = target === undefined ? args : [target, ...args];
  if (operands.every((operand) => constantOf(operand) !== undefined)) {
    const value = interpreted(expr)({});
    return () => value;
  }
  return testOfRow(name, operands) ?? compileOperator(name, target !== undefined, operands);
}

/** The short cut for what most filters consist of: one column against constants. */
function testOfRow(name: string, [left, right]: readonly Expr[]): Node | undefined {
  const path = left === undefined ? undefined : pathOf(left);
  if (path?.variable !== "row" || path.rest.length > 0 || right === undefined) {
    return undefined;
  }
  return testOfColumn(name, new Column(path.column), right);
}

function compileOperator(name: string, method: boolean, operands: readonly Expr[]): Node {
  const [first, second] = operands.map(compileExpr);
  const known = method ? METHODS[name] : BINARY[name];
  if (known !== undefined && first !== undefined && second !== undefined && operands.length === 2) {
    return binary(known, first, second);
  }
  if (name === "size" && first !== undefined && operands.length === 1) {
    return unary(operators.size, first);
  }
  const pattern = name === "matches" && operands[1] !== undefined ? constantOf(operands[1]) : undefined;
  if (typeof pattern === "string" && first !== undefined) {
    return unary(matching(pattern), first);
  }
  return general(operators.call(name, method, operands.length), operands.map(compileExpr));
}

function matching(text: string): operators.Operator {
  const pattern = compilePattern(text);
  return (value) => (typeof value === "string" ? pattern.test(value) : FAILED);
}

function unary(operator: operators.Operator, operand: Node): Node {
  return (scope) => {
    const value = operand(scope);
    return value === FAILED ? FAILED : operator(value);
  };
}

function binary(operator: operators.Operator, left: Node, right: Node): Node {
  return (scope) => {
    const a = left(scope);
    if (a === FAILED) {
      return FAILED;
    }
    const b = right(scope);
    return b === FAILED ? FAILED : operator(a, b);
  };
}

function general(operator: operators.Operator, operands: readonly Node[]): Node {
  return (scope) => {
    const values: CelValue[] = [];
    for (const operand of operands) {
      const value = operand(scope);
      if (value === FAILED) {
        return FAILED;
      }
      values.push(value);
    }
    return operator(...values);
  };
}

/** False as soon as one is, whatever failed before it or would fail behind it. */
function allOf(parts: readonly Node[]): Node {
  return (scope) => {
    let result: Value = true;
    for (const part of parts) {
      const value = part(scope);
      if (value === false) {
        return false;
      }
      if (value !== true) {
        result = FAILED;
      }
    }
    return result;
  };
}

/** True as soon as one is, whatever failed before it or would fail behind it. */
function anyOf(parts: readonly Node[]): Node {
  return (scope) => {
    let result: Value = false;
    for (const part of parts) {
      const value = part(scope);
      if (value === true) {
        return true;
      }
      if (value !== false) {
        result = FAILED;
      }
    }
    return result;
  };
}

function not([operand]: readonly Node[]): Node {
  return (scope) => {
    const value = operand?.(scope);
    return typeof value === "boolean" ? !value : FAILED;
  };
}

function choice([condition, yes, no]: readonly Node[]): Node {
  return (scope) => {
    const value = condition?.(scope);
    const chosen = value === true ? yes : value === false ? no : undefined;
    return chosen === undefined ? FAILED : chosen(scope);
  };
}

function pathOf(expr: Expr): Path | undefined {
  const { exprKind: kind } = expr;
  let operand: Expr | undefined;
  let key: string | bigint | undefined;
  if (kind.case === "selectExpr" && !kind.value.testOnly) {
    operand = kind.value.operand;
    key = kind.value.field;
  } else if (kind.case === "callExpr" && kind.value.function === "_[_]" && kind.value.args[1] !== undefined) {
    operand = kind.value.args[0];
    const constant = constantOf(kind.value.args[1]);
    key = typeof constant === "string" || typeof constant === "bigint" ? constant : undefined;
  }
  if (operand === undefined || key === undefined) {
    return undefined;
  }
  const variable = variableOf(operand);
  if (variable !== undefined) {
    return typeof key === "string" ? { variable, column: key, rest: [] } : undefined;
  }
  const outer = pathOf(operand);
  // What an event has may be a message, into which only the interpreter sees.
  return outer === undefined || outer.variable === "event" ? undefined : { ...outer, rest: [...outer.rest, key] };
}

function variableOf({ exprKind: kind }: Expr): Variable | undefined {
  return kind.case === "identExpr" && isVariable(kind.value.name) ? kind.value.name : undefined;
}

function isVariable(name: string): name is Variable {
  return VARIABLES.has(name);
}

function compilePath({ variable, column, rest }: Path): Node {
  if (variable === "event") {
    const field = eventFields.get(column);
    return ({ event }) => (event === undefined ? undefined : field?.read(event)) ?? FAILED;
  }
  const way = new Column(column);
  if (rest.length === 0) {
    return variable === "row" ? ({ row }) => way.read(row) : (scope) => way.read(scope[variable]);
  }
  return (scope) => {
    let value = way.read(scope[variable]);
    for (const key of rest) {
      if (value === FAILED) {
        return FAILED;
      }
      value = elementOf(value, key) ?? missingOrNull(value, key);
    }
    return value;
  };
}

function elementOf(value: CelValue, key: string | bigint): CelValue | undefined {
  if (isCelMap(value)) {
    return value.get(key);
  }
  return typeof key === "bigint" && isCelList(value) ? value.get(Number(key)) : undefined;
}

function missingOrNull(value: CelValue, key: string | bigint): Value {
  return elementOf(value, key) === null ? null : FAILED;
}

/** `has(row.a)`, `has(row.a.b)`; the interpreter's answer for null is false. */
function compileHas(operand: Expr | undefined, field: string): Node | undefined {
  if (operand === undefined) {
    return undefined;
  }
  const variable = variableOf(operand);
  if (variable === "event") {
    const read = compilePath({ variable, column: field, rest: [] });
    return (scope) => read(scope) !== FAILED;
  }
  if (variable !== undefined) {
    const column = new Column(field);
    return (scope) => {
      const value = column.read(scope[variable]);
      return value !== FAILED && value !== null;
    };
  }
  const path = pathOf(operand);
  if (path === undefined || path.variable === "event") {
    return undefined;
  }
  const read = compilePath(path);
  return (scope) => {
    const value = read(scope);
    return value === FAILED ? FAILED : isCelMap(value) && value.has(field);
  };
}
