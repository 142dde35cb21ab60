import { describe, expect, it } from "vitest";
import { createBuilderFailures } from "../../../src/server/builder-failures.ts";

function setUp() {
  const lines: string[] = [];
  let nowMs = 0;
  const warn = (_facts: object, message: string): void => {
    lines.push(message);
  };
  const wait = (ms: number): void => {
    nowMs += ms;
  };
  return { failures: createBuilderFailures({ warn }, { monotonic: () => nowMs }), lines, wait };
}

const failed = (table: string, version: number) => ({ table, version, reason: "no luck" });

describe("failures of builders", () => {
  it("are told at once, and then at most every ten seconds for each source", () => {
    const { failures, lines, wait } = setUp();
    for (let version = 1; version <= 500; version++) failures.failed(failed("public.a", version));
    failures.failed(failed("public.b", 501));
    expect(lines).toEqual(["the builder of public.a failed: no luck", "the builder of public.b failed: no luck"]);
    wait(10_000);
    for (let version = 502; version <= 600; version++) failures.failed(failed("public.a", version));
    expect(lines).toHaveLength(3);
  });

  it("are a problem of their source until there was none for ten minutes", () => {
    const { failures, wait } = setUp();
    failures.failed(failed("public.a", 7));
    failures.failed(failed("public.a", 8));
    wait(599_000);
    failures.failed(failed("public.b", 9));
    expect(failures.problems().map(({ code, message }) => `${code} ${message}`)).toEqual([
      "BUILDER_FAILS The builder of public.a has failed 2 times, at version 8 last: no luck.",
      "BUILDER_FAILS The builder of public.b has failed once, at version 9 last: no luck.",
    ]);
    wait(1_000);
    expect(failures.problems()).toHaveLength(1);
    wait(600_000);
    expect(failures.problems()).toEqual([]);
  });
});

describe("a builder that is not pure", () => {
  it("is told of once, and stays a problem", () => {
    const { failures, lines, wait } = setUp();
    failures.impure({ table: "public.a", version: 3 });
    failures.impure({ table: "public.a", version: 4 });
    wait(10_000_000);
    expect(lines).toHaveLength(1);
    expect(failures.problems()).toMatchObject([{ code: "BUILDER_IMPURE" }]);
  });
});
