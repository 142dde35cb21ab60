import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import type { FeedError } from "../../../src/core/errors.ts";
import type { FilterLimits } from "../../../src/core/selector/filter/filter.ts";
import { compileSelectors, type Selector } from "../../../src/core/selector/selector.ts";

function selector(options: Partial<Selector>): Selector {
  return { topics: [], keys: [], operations: [], ...options };
}

function refusal(filters: readonly string[], limits?: FilterLimits): FeedError {
  try {
    compileSelectors(
      filters.map((filter) => selector({ filter })),
      limits === undefined ? {} : { limits },
    );
  } catch (error) {
    return error as FeedError;
  }
  throw new Error(`${filters.join()} was taken`);
}

describe("a filter that is wrong is refused when the stream is opened, with its place", () => {
  test.each<[string, number, number, string]>([
    ["row.a ==", 1, 7, "cannot be read from `==`"],
    ["row.a = 1", 1, 7, "cannot be read from `= 1`"],
    ["(row.a == 1", 1, 12, "ends before it is complete"],
    ["row.in == 1", 1, 5, "reserves"],
    ["rwo.x == 1", 1, 1, "`rwo`, which is unknown"],
    ["row.a == 1 &&\n\n  rwo.x == 1", 3, 3, "`rwo`"],
    ["'😀é' == rwo.x", 1, 9, "`rwo`"],
    ["row.tags.exists(t, u == 1)", 1, 20, "`u`"],
    ["event.topik == 'x'", 1, 6, "`event.topik`, which is unknown"],
    ["foo(row.a)", 1, 1, "`foo`, which is no function"],
    ["row.a.foo()", 1, 6, "`foo`"],
    ["row.a + 1", 1, 7, "is an int and not a bool"],
    ["'text'", 1, 1, "is a string and not a bool"],
    ["row.a == 1 || 'x'", 1, 15, "gives `||` a string"],
    ["row.a ? true : 1 + true", 1, 18, "applies `+` to an int and a bool"],
    ["'a' + 1 == row.x", 1, 5, "applies `+` to a string and an int"],
    ["row.a.startsWith(1)", 1, 6, "applies `startsWith`"],
    ["row.a.matches('a(')", 1, 6, "pattern"],
    ["timestamp('x') < timestamp(row.a)", 1, 1, "always fails"],
    ["1 / 0 == row.a", 1, 3, "always fails"],
    ["row.a == 9223372036854775808", 1, 10, "64 bits"],
    ["row.a == -9223372036854775809", 1, 10, "64 bits"],
    ["row.a == 18446744073709551616u", 1, 10, "64 bits"],
    ["(1).a == 2", 1, 4, "asks an int for `a`"],
    ["1[0] == 2", 1, 2, "takes an element of an int"],
    ["'abc'.all(x, true)", 1, 6, "goes through a string"],
    ["google.protobuf.Duration{} == row.a", 1, 1, "makes a message"],
    ["// nothing", 1, 11, "ends before it is complete"],
    [`${"(".repeat(1_500)}true${")".repeat(1_500)}`, 1, 1, "nested"],
    [`row.a${".a".repeat(300)} == 1`, 1, 104, "nested deeper than 250"],
  ])("%s", (filter, line, column, reason) => {
    const { code, message, detail } = refusal(["true", filter]);
    expect([code, message]).toEqual(["FILTER_INVALID", expect.stringContaining(reason)]);
    expect(detail.filter).toEqual({ selector: 1, line, column });
    expect(detail.violations).toEqual([{ field: "selectors[1].filter", message: expect.stringContaining(reason) }]);
  });

  test("and all that are wrong are told", () => {
    const { detail } = refusal(["row.a +", "true", "x"]);
    expect(detail.filter?.selector).toBe(0);
    expect(detail.violations?.map(({ field }) => field)).toEqual(["selectors[0].filter", "selectors[2].filter"]);
  });
});

describe("a filter that is too much is refused by the name of the limit", () => {
  const limits = { maxFilterBytes: 20, maxFilterCost: 10 };

  test.each([
    ["row.aaaa == 'ééééé'", "maxFilterBytes"],
    ["[1,2,3,4,5,6,7,8,9]==1", "maxFilterBytes"],
    ["1==1||2==2||3==3", "maxFilterCost"],
    ["row.a.all(x,x)", "maxFilterCost"],
  ])("%s", (filter, limit) => {
    const { code, message } = refusal([filter], limits);
    expect([code, message]).toEqual(["LIMIT_EXCEEDED", expect.stringContaining(limit)]);
  });

  test("and one that is just within it is taken", () => {
    expect(compileSelectors([selector({ filter: "row.aaaa == 'éé' " })], { limits }).interest).toHaveLength(1);
  });

  test("elements that a macro goes through count", () => {
    const nested = "row.a.all(x, row.b.all(y, row.c.all(z, x == y && y == z)))";
    expect(refusal([nested]).message).toContain("maxFilterCost");
    expect(refusal([`[${"1,".repeat(199)}1].all(x, x == row.a || x == row.b)`]).message).toContain("maxFilterCost");
  });
});

describe("the selection", () => {
  const selection = (...selectors: readonly Partial<Selector>[]) => compileSelectors(selectors.map(selector)).selection;

  test("is the same where only the order differs, and another where filter or fields do", () => {
    const one = selection({ topics: ["a"], filter: "row.a == 1", fields: ["x", "y.z"] }, { keys: ["1"] });
    expect(selection({ keys: ["1"] }, { topics: ["a"], filter: "row.a == 1", fields: ["y.z", "x"] })).toBe(one);
    const others = [
      selection({ topics: ["a"], filter: "row.a == 2", fields: ["x", "y.z"] }, { keys: ["1"] }),
      selection({ topics: ["a"], filter: "row.a == 1", fields: ["x", "`y.z`"] }, { keys: ["1"] }),
      selection({ topics: ["a"], filter: "row.a == 1" }, { keys: ["1"] }),
      selection({ topics: ["a"], fields: ["x", "y.z"] }, { keys: ["1"] }),
    ];
    expect(new Set([one, ...others]).size).toBe(5);
  });

  test("of no filter and no fields is what it was before there were any", () => {
    expect(selection({ topics: ["b", "a"], filter: " ", fields: [] })).toBe('["[[\\"a\\",\\"b\\"],[],[]]"]');
  });
});

describe("docs/filters.md", () => {
  const text = readFileSync(new URL("../../../docs/filters.md", import.meta.url), "utf8");
  const blocks = (kind: string) =>
    [...text.matchAll(new RegExp(`\`\`\`${kind}\n([^]*?)\`\`\``, "g"))].map((match) => match[1] ?? "");

  test.each(blocks("cel").flatMap((block) => block.trim().split("\n")))("has the filter %s", (filter) => {
    expect(compileSelectors([selector({ filter })]).interest).toHaveLength(1);
  });

  test("has examples", () => {
    expect(blocks("cel").join("").split("\n").length).toBeGreaterThan(15);
  });
});
