import {
  type CelInput,
  CelScalar,
  type CelUint,
  celEnv,
  celFunc,
  celUint,
  isCelError,
  isCelList,
  isCelMap,
  isCelUint,
  plan,
} from "@bufbuild/cel";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { FAILED, parseText } from "../../../src/core/selector/filter/cel.ts";
import { compareCodePoints } from "../../../src/core/selector/filter/code-points.ts";
import { compileExpr } from "../../../src/core/selector/filter/compile.ts";
import { Row } from "../../../src/core/selector/filter/row.ts";
import { expressions, rows } from "./filter-generators.ts";

const { BOOL, STRING } = CelScalar;
const byBytes = (a: string, b: string): number => Buffer.compare(Buffer.from(a), Buffer.from(b));

/** @bufbuild/cel as it comes, but for the order of strings: CEL's is by code points, and so by bytes of UTF-8. */
const stock = celEnv({
  funcs: [
    celFunc("_<_", [STRING, STRING], BOOL, (a, b) => byBytes(a, b) < 0),
    celFunc("_<=_", [STRING, STRING], BOOL, (a, b) => byBytes(a, b) <= 0),
    celFunc("_>_", [STRING, STRING], BOOL, (a, b) => byBytes(a, b) > 0),
    celFunc("_>=_", [STRING, STRING], BOOL, (a, b) => byBytes(a, b) >= 0),
  ],
});

/** Rows as the interpreter takes them, by JSON.parse and what it says of the source of numbers. */
function stockValue(text: string): CelInput {
  return fromParsed(
    JSON.parse(text, (_name, value: unknown, context?: { readonly source?: string }) =>
      typeof value === "number" ? numberOf(context?.source ?? "", value) : value,
    ),
  );
}

function numberOf(source: string, value: number): CelUint | bigint | number {
  if (!/^-?\d+$/.test(source)) {
    return value;
  }
  const int = BigInt(source);
  if (BigInt.asIntN(64, int) === int) {
    return int;
  }
  return BigInt.asUintN(64, int) === int ? celUint(int) : value;
}

function fromParsed(value: unknown): CelInput {
  if (Array.isArray(value)) {
    return value.map(fromParsed);
  }
  if (typeof value === "object" && value !== null && !isCelUint(value)) {
    return new Map(Object.entries(value).map(([name, member]) => [name, fromParsed(member)]));
  }
  return value as CelInput;
}

/** A text that differs where values differ, also in type. */
function shown(value: unknown): string {
  if (value === FAILED || isCelError(value)) {
    return "failed";
  }
  if (isCelUint(value)) {
    return `${value.value}u`;
  }
  if (isCelList(value)) {
    return `[${[...value].map(shown).join()}]`;
  }
  if (isCelMap(value)) {
    return `{${[...value].map(([key, member]) => `${shown(key)}:${shown(member)}`).join()}}`;
  }
  return Object.is(value, -0) ? "number -0" : `${typeof value} ${String(value)}`;
}

function bothOutcomes(text: string, image: string): readonly [string, string] {
  const row = new Row(image);
  const scope = { row, before: row, after: undefined, event: undefined };
  const value = stockValue(image);
  const { expr } = parseText(text);
  const truth = plan(stock, expr)({ row: value, before: value, after: null });
  return [shown(compileExpr(expr)(scope)), shown(truth)];
}

describe("compiled filters", () => {
  test("yield what the interpreter yields, for 100,000 filters and rows", { timeout: 600_000 }, () => {
    fc.assert(
      fc.property(expressions, rows, (text, image) => {
        const [compiled, truth] = bothOutcomes(text, image);
        expect(compiled).toBe(truth);
      }),
      { numRuns: Number(process.env.FILTER_RUNS ?? 100_000) },
    );
  });
});

describe("the order of strings", () => {
  test("is that of their code points", () => {
    const texts = fc.string({
      unit: fc.oneof(
        fc.constantFrom("a", "\uffee", "\ue000", "😀", "\ud7ff", "𐀀"),
        fc.string({ unit: "binary", minLength: 1, maxLength: 1 }),
      ),
    });
    fc.assert(
      fc.property(texts, texts, (a, b) => {
        expect(Math.sign(compareCodePoints(a, b))).toBe(byBytes(a, b));
      }),
      { numRuns: 2_000 },
    );
  });
});
