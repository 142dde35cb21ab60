import { describe, expect, it } from "vitest";
import { FeedError } from "../../../src/core/errors.ts";
import { sqlTag } from "../../../src/core/source/initial-state.ts";
import { inlineQuery } from "../../../src/postgres/snapshot/inline-query.ts";

describe("a query without parameters", () => {
  it("stays as it is, but for the semicolon at its end", () => {
    expect(inlineQuery({ sql: " select '$1', $$ $2 $$;\n ", parameters: [] })).toBe("select '$1', $$ $2 $$");
  });
});

describe("a query with parameters", () => {
  it("has its values where they are meant, and nowhere else", () => {
    const sql =
      "select $1, '$1', \"$1\", $tag$ $1 $tag$, $$ $2 $$, 'it''s $1' -- $1\n /* $1\n */, $2, $10 from x where y = $1";
    const parameters = ["a", -5, 3, 4, 5, 6, 7, 8, 9, true];
    expect(inlineQuery({ sql, parameters })).toBe(
      "select 'a', '$1', \"$1\", $tag$ $1 $tag$, $$ $2 $$, 'it''s $1' -- $1\n /* $1\n */, (-5), (true) from x where y = 'a'",
    );
  });

  it.each([
    ["it's", "'it''s'"],
    ["a\\b", " E'a\\\\b'"],
    [null, "null"],
    [12n, "(12)"],
    [1.5, "(1.5)"],
    [false, "(false)"],
    [new Date(0), "'1970-01-01T00:00:00.000Z'"],
    [["a", 1], "array['a', (1)]"],
  ] as const)("writes %s as a literal", (value, literal) => {
    expect(inlineQuery(sqlTag`select ${value}`)).toBe(`select ${literal}`);
  });

  it.each([[undefined], [{}], [Number.NaN], [[]], [() => 1], ["\0"], [new Date(Number.NaN)]])("refuses %s", (value) => {
    expect(() => inlineQuery(sqlTag`select ${value}`)).toThrow(FeedError);
  });

  it("refuses a place that has no value, and a query of nothing", () => {
    expect(() => inlineQuery({ sql: "select $2", parameters: [1] })).toThrow("$2 has no value");
    expect(() => inlineQuery({ sql: " ; ", parameters: [] })).toThrow("it is empty");
  });
});
