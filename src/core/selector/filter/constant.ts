import { type CelValue, celUint, type Expr } from "./cel.ts";

/** The value of a literal; `undefined` for every other node. */
export function constantOf({ exprKind: kind }: Expr): CelValue | undefined {
  if (kind.case !== "constExpr") {
    return undefined;
  }
  const { constantKind: constant } = kind.value;
  switch (constant.case) {
    case "int64Value":
    case "doubleValue":
    case "boolValue":
    case "stringValue":
    case "bytesValue":
      return constant.value;
    case "uint64Value":
      return celUint(constant.value);
    case "nullValue":
      return null;
    default:
      return undefined;
  }
}

/** The values of a list of literals; `undefined` for every other node. */
export function constantsOf({ exprKind: kind }: Expr): readonly CelValue[] | undefined {
  if (kind.case !== "listExpr") {
    return undefined;
  }
  const values = kind.value.elements.map(constantOf);
  return values.every((value) => value !== undefined) ? values : undefined;
}
