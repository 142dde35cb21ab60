import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { frozen, parseExactly, textOf } from "../../../../src/core/builder/exact-json.ts";

describe("exact JSON", () => {
  it.each([
    "9007199254740993",
    "-12345678901234567890123456789",
    '{"id":9223372036854775807,"n":[1,2.5,{"deep":99999999999999999}]}',
    '{"text":"1234567890123456","n":1}',
  ])("%s keeps every digit on its way through", (text) => {
    expect(textOf(parseExactly(text))).toBe(text);
  });

  it("gives bigints for whole numbers that a double cannot hold, and numbers for all others", () => {
    expect(parseExactly('{"a":9007199254740993,"b":9007199254740991,"c":1.5,"d":"9007199254740993"}')).toEqual({
      a: 9007199254740993n,
      b: 9007199254740991,
      c: 1.5,
      d: "9007199254740993",
    });
  });

  it("is JSON's own for what holds no such number", () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        const text = JSON.stringify(value);
        expect(textOf(value)).toBe(text);
        expect(
          JSON.stringify(parseExactly(text), (_key, part) => (typeof part === "bigint" ? Number(part) : part)),
        ).toBe(JSON.stringify(JSON.parse(text)));
      }),
    );
  });

  it("has no text for what is no value", () => {
    expect(textOf(undefined)).toBeUndefined();
    expect(textOf(() => 1)).toBeUndefined();
    const circle: Record<string, unknown> = {};
    circle.self = circle;
    expect(() => textOf(circle)).toThrow();
  });

  it("lets nobody change a row that is frozen", () => {
    const row = frozen({ a: { b: [1] } });
    expect(() => row.a.b.push(2)).toThrow(TypeError);
  });
});
