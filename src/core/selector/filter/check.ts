import { type CelFunc, compilePattern, type Expr, failureOf, overloadsOf, scalarType } from "./cel.ts";
import { eventFields, type Variable } from "./scope.ts";

/** What is known of a filter before it sees an event. */
export interface Checked {
  readonly variables: ReadonlySet<Variable>;
  /** Nodes of the tree. Those within a macro count once for each element of a literal list, and else eight-fold. */
  readonly cost: number;
}

/** Something that makes a filter no filter. The message completes the sentence "The filter ...". */
export class FilterProblem extends Error {
  /** UTF-16 offset in the text. */
  readonly offset: number;

  constructor(message: string, offset: number) {
    super(message);
    this.offset = offset;
  }
}

/** A type of CEL by its name; `dyn` is known only when the filter runs. */
type Type = string;

type Call = Extract<Expr["exprKind"], { case: "callExpr" }>["value"];
type Select = Extract<Expr["exprKind"], { case: "selectExpr" }>["value"];
type Comprehension = Extract<Expr["exprKind"], { case: "comprehensionExpr" }>["value"];
type Constant = Extract<Expr["exprKind"], { case: "constExpr" }>["value"];

/** Local variables of macros. */
type Locals = ReadonlyMap<string, Type>;

const MAX_DEPTH = 250;
const UNKNOWN_LENGTH = 8;
const VARIABLES: ReadonlySet<string> = new Set<Variable>(["row", "before", "after", "event"]);
const TYPE_NAMES: ReadonlySet<string> = new Set([
  "int",
  "uint",
  "double",
  "bool",
  "string",
  "bytes",
  "list",
  "map",
  "null_type",
  "type",
]);
const LOGIC: ReadonlySet<string> = new Set(["_&&_", "_||_"]);
const NOT_STRICTLY_FALSE = "@not_strictly_false";
const MAX_INT = 9_223_372_036_854_775_807n;
const MIN_INT = -9_223_372_036_854_775_808n;
const MAX_UINT = 18_446_744_073_709_551_615n;

/**
 * What a parser does not see: names and functions that do not exist, operands that no overload takes, constants out of range,
 * a result that is no bool. Columns are of any type: what is in them shows only at run time.
 *
 * @throws FilterProblem for the first that it meets
 */
export function checkExpr(expr: Expr, positions: Readonly<Record<string, number>>): Checked {
  const check = new Check(positions);
  const type = check.typeOf(expr, new Map(), 0);
  if (type !== "bool" && type !== "dyn") {
    throw check.problem(expr, `is ${nounOf(type)} and not a bool: it must be true or false of a row`);
  }
  return { variables: check.variables, cost: costOf(expr) };
}

class Check {
  readonly variables = new Set<Variable>();
  readonly #positions: Readonly<Record<string, number>>;

  constructor(positions: Readonly<Record<string, number>>) {
    this.#positions = positions;
  }

  problem(expr: Expr, message: string): FilterProblem {
    return new FilterProblem(message, this.#positions[String(expr.id)] ?? 0);
  }

  typeOf(expr: Expr, locals: Locals, depth: number): Type {
    if (depth > MAX_DEPTH) {
      throw this.problem(expr, `is nested deeper than ${MAX_DEPTH} levels`);
    }
    const { exprKind: kind } = expr;
    switch (kind.case) {
      case "constExpr":
        return this.#constant(expr, kind.value);
      case "identExpr":
        return this.#name(expr, kind.value.name, locals);
      case "selectExpr":
        return this.#select(expr, kind.value, locals, depth + 1);
      case "callExpr":
        return this.#call(expr, kind.value, locals, depth + 1);
      case "listExpr":
        for (const element of kind.value.elements) {
          this.typeOf(element, locals, depth + 1);
        }
        return "list";
      case "structExpr":
        if (kind.value.messageName !== "") {
          throw this.problem(expr, `makes a message (\`${kind.value.messageName}\`), which filters cannot`);
        }
        for (const { keyKind, value } of kind.value.entries) {
          for (const part of [keyKind.case === "mapKey" ? keyKind.value : undefined, value]) {
            this.#optional(part, locals, depth + 1);
          }
        }
        return "map";
      case "comprehensionExpr":
        return this.#macro(expr, kind.value, locals, depth + 1);
      default:
        throw this.problem(expr, "has a part that is no expression");
    }
  }

  #optional(expr: Expr | undefined, locals: Locals, depth: number): Type {
    return expr === undefined ? "dyn" : this.typeOf(expr, locals, depth);
  }

  #constant(expr: Expr, { constantKind: constant }: Constant): Type {
    switch (constant.case) {
      case "int64Value":
        if (constant.value < MIN_INT || constant.value > MAX_INT) {
          throw this.problem(expr, `has ${constant.value}, which no int holds: ints have 64 bits`);
        }
        return "int";
      case "uint64Value":
        if (constant.value > MAX_UINT) {
          throw this.problem(expr, `has ${constant.value}u, which no uint holds: uints have 64 bits`);
        }
        return "uint";
      case "doubleValue":
        return "double";
      case "boolValue":
        return "bool";
      case "stringValue":
        return "string";
      case "bytesValue":
        return "bytes";
      case "nullValue":
        return "null_type";
      default:
        throw this.problem(expr, "has a constant of an unknown kind");
    }
  }

  #name(expr: Expr, name: string, locals: Locals): Type {
    const local = locals.get(name);
    if (local !== undefined) {
      return local;
    }
    if (isVariable(name)) {
      this.variables.add(name);
      return name === "event" ? "map" : "dyn";
    }
    if (TYPE_NAMES.has(name)) {
      return "type";
    }
    throw this.problem(
      expr,
      `names \`${name}\`, which is unknown: there are \`row\`, \`before\`, \`after\` and \`event\``,
    );
  }

  #select(expr: Expr, { operand, field, testOnly }: Select, locals: Locals, depth: number): Type {
    const type = this.#optional(operand, locals, depth);
    if (type !== "map" && type !== "dyn") {
      throw this.problem(expr, `asks ${nounOf(type)} for \`${field}\`: only maps and rows have names`);
    }
    const ofEvent = operand?.exprKind.case === "identExpr" && operand.exprKind.value.name === "event";
    if (!ofEvent || locals.has("event")) {
      return testOnly ? "bool" : "dyn";
    }
    const known = eventFields.get(field);
    if (known === undefined) {
      const names = [...eventFields.keys()].map((name) => `\`${name}\``).join(", ");
      throw this.problem(expr, `names \`event.${field}\`, which is unknown: an event has ${names}`);
    }
    return testOnly ? "bool" : known.type.name;
  }

  #macro(expr: Expr, macro: Comprehension, locals: Locals, depth: number): Type {
    const range = this.#optional(macro.iterRange, locals, depth);
    if (!["list", "map", "dyn"].includes(range)) {
      throw this.problem(expr, `goes through ${nounOf(range)}: only lists and maps have elements`);
    }
    const accumulated = new Map([...locals, [macro.accuVar, this.#optional(macro.accuInit, locals, depth)]]);
    const within = new Map([...accumulated, [macro.iterVar, "dyn"]]);
    this.#optional(macro.loopCondition, within, depth);
    this.#optional(macro.loopStep, within, depth);
    return this.#optional(macro.result, accumulated, depth);
  }

  #call(expr: Expr, call: Call, locals: Locals, depth: number): Type {
    const { function: name, args } = call;
    const target = call.target === undefined ? undefined : this.typeOf(call.target, locals, depth);
    const types = args.map((arg) => this.typeOf(arg, locals, depth));
    if (LOGIC.has(name)) {
      this.#expectBools(name, args, types);
      return "bool";
    }
    if (name === "_?_:_") {
      this.#expectBools(name, args, types.slice(0, 1));
      return types[1] === types[2] ? (types[1] ?? "dyn") : "dyn";
    }
    if (name === "_[_]") {
      if (!["list", "map", "dyn"].includes(types[0] ?? "dyn")) {
        throw this.problem(
          expr,
          `takes an element of ${nounOf(types[0] ?? "dyn")}: only lists, maps and rows have any`,
        );
      }
      return "dyn";
    }
    if (name === NOT_STRICTLY_FALSE) {
      return "bool";
    }
    const result = this.#resultOf(expr, name, target, types);
    this.#assertDoable(expr, call);
    return result;
  }

  #expectBools(name: string, args: readonly Expr[], types: readonly Type[]): void {
    types.forEach((type, i) => {
      const arg = args[i];
      if (type !== "bool" && type !== "dyn" && arg !== undefined) {
        throw this.problem(arg, `gives \`${symbolOf(name)}\` ${nounOf(type)} where it takes a bool`);
      }
    });
  }

  #resultOf(expr: Expr, name: string, target: Type | undefined, types: readonly Type[]): Type {
    const overloads = overloadsOf(name);
    if (overloads.length === 0) {
      throw this.problem(expr, `calls \`${name}\`, which is no function of CEL`);
    }
    const fitting = overloads.filter((overload) => fits(overload, target, types));
    const [first] = fitting;
    if (first === undefined) {
      const operands = [...(target === undefined ? [] : [target]), ...types].map(nounOf).join(" and ");
      throw this.problem(expr, `applies \`${symbolOf(name)}\` to ${operands}, which it does not take`);
    }
    return fitting.every(({ result }) => result.name === first.result.name) ? first.result.name : scalarType.DYN.name;
  }

  /** What consists of constants is tried out: it would fail for each event alike. */
  #assertDoable(expr: Expr, { function: name, target, args }: Call): void {
    const pattern = name === "matches" ? stringOf(args.at(-1)) : undefined;
    if (pattern !== undefined) {
      try {
        compilePattern(pattern);
      } catch (error) {
        throw this.problem(
          expr,
          `has a pattern that cannot be used: ${error instanceof Error ? error.message : error}`,
        );
      }
    }
    const operands = target === undefined ? args : [target, ...args];
    const failure = operands.every(isConstant) ? failureOf(expr) : undefined;
    if (failure !== undefined) {
      throw this.problem(expr, `has a part that always fails: ${failure}`);
    }
  }
}

function fits(overload: CelFunc, target: Type | undefined, types: readonly Type[]): boolean {
  const params = overload.arguments;
  if ((overload.target === undefined) !== (target === undefined) || params.length !== types.length) {
    return false;
  }
  const pairs = params.map((param, i) => [param.name, types[i]] as const);
  return [...pairs, [overload.target?.name, target] as const].every(
    ([param, type]) => param === type || param === "dyn" || type === "dyn",
  );
}

function isVariable(name: string): name is Variable {
  return VARIABLES.has(name);
}

function isConstant(expr: Expr): boolean {
  return expr.exprKind.case === "constExpr";
}

function stringOf(expr: Expr | undefined): string | undefined {
  const kind = expr?.exprKind;
  const constant = kind?.case === "constExpr" ? kind.value.constantKind : undefined;
  return constant?.case === "stringValue" ? constant.value : undefined;
}

function costOf(expr: Expr | undefined): number {
  const kind = expr?.exprKind;
  switch (kind?.case) {
    case undefined:
      return 0;
    case "selectExpr":
      return 1 + costOf(kind.value.operand);
    case "callExpr":
      return 1 + costOf(kind.value.target) + sum(kind.value.args.map(costOf));
    case "listExpr":
      return 1 + sum(kind.value.elements.map(costOf));
    case "structExpr":
      return (
        1 +
        sum(
          kind.value.entries.map(
            ({ keyKind, value }) => costOf(keyKind.case === "mapKey" ? keyKind.value : undefined) + costOf(value),
          ),
        )
      );
    case "comprehensionExpr": {
      const { iterRange, accuInit, loopCondition, loopStep, result } = kind.value;
      const range = iterRange?.exprKind;
      const times = range?.case === "listExpr" ? range.value.elements.length : UNKNOWN_LENGTH;
      return 1 + sum([iterRange, accuInit, result].map(costOf)) + times * sum([loopCondition, loopStep].map(costOf));
    }
    default:
      return 1;
  }
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}

function symbolOf(name: string): string {
  return name === "_?_:_" ? "? :" : name.replaceAll(/^_|_$|^@/g, "");
}

function nounOf(type: Type): string {
  switch (type) {
    case "dyn":
      return "a value";
    case "null_type":
      return "null";
    case "google.protobuf.Timestamp":
      return "a timestamp";
    case "google.protobuf.Duration":
      return "a duration";
    default:
      return /^[aeio]/.test(type) ? `an ${type}` : `a ${type}`;
  }
}
