import { describe, expect, it } from "vitest";
import { mostCount, namedValue, wholeNumber } from "../../../src/cli/commands/option-values.ts";

describe("values of options", () => {
  it("hold a count to what its field can say", () => {
    const rate = wholeNumber("--rate", 1, mostCount);
    expect(rate("4294967295")).toBe(4_294_967_295);
    expect(() => rate("4294967296")).toThrow("--rate 4294967296 is too large: 4294967295 is the most.");
    expect(() => rate("0")).toThrow("--rate 0 is not a whole number of at least 1.");
    expect(() => rate("1e3")).toThrow("--rate 1e3 is not a whole number of at least 1.");
  });

  it("hold a number without a limit of its own to those that are exact", () => {
    const version = wholeNumber("version", 1);
    expect(version("9007199254740991")).toBe(Number.MAX_SAFE_INTEGER);
    expect(() => version("9007199254740993")).toThrow("too large");
  });

  it("say of a label without a value how it is written", () => {
    expect(namedValue("team=a=b", { kept: "1" })).toEqual({ kept: "1", team: "a=b" });
    expect(() => namedValue("team")).toThrow("`team` has no name and value.");
    expect(() => namedValue("=blue")).toThrow("`=blue` has no name and value.");
  });
});
