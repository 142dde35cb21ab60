import { describe, expect, it } from "vitest";
import { findLines, projectFiles, read } from "./sources.ts";

const files = projectFiles();
const source = files.filter((path) => path.startsWith("src/") && path.endsWith(".ts"));
const tests = files.filter((path) => path.startsWith("test/") && path.endsWith(".ts"));
const bench = files.filter((path) => path.startsWith("bench/") && path.endsWith(".ts"));
const code = [...source, ...tests, ...bench];

/** Pattern, where it is looked for, and what to write instead. */
const banned: readonly (readonly [RegExp, readonly string[], string])[] = [
  [/\b(?:FIXME|TODO|XXX)\b/, code, "finish it, or say in docs what is not there"],
  [/\bas any\b|@ts-(?:ignore|expect-error|nocheck)|\bas unknown as\b/, code, "narrow the type"],
  [/^export \*/, source, "list the names one by one"],
  [/\b(?:describe|it|test)\.(?:only|skip|todo|fails)\b/, tests, "a declared capability decides which tests exist"],
  [/\bconsole\.(?:log|debug|info)\b/, source, "the injected logger, or the command line's output"],
  [
    /\bnew Date\(\)|\bDate\.now\(\)|\bMath\.random\(\)/,
    source.filter((path) => path.startsWith("src/core/") && path !== "src/core/clock.ts"),
    "the Clock port",
  ],
];

describe("style", () => {
  it.each(banned.map(([pattern, where, instead]) => ({ pattern, where, instead })))(
    "has no $pattern: $instead",
    ({ pattern, where }) => {
      expect(
        findLines(
          where.filter((path) => !path.startsWith("test/tidy/")),
          pattern,
        ),
      ).toEqual([]);
    },
  );

  it("keeps files short: each is one idea", () => {
    const lines = (path: string) => read(path).split("\n").length;
    expect(source.filter((path) => lines(path) > 450).map((path) => `${path}: ${lines(path)}`)).toEqual([]);
    expect(tests.filter((path) => lines(path) > 600).map((path) => `${path}: ${lines(path)}`)).toEqual([]);
  });

  it("names files after what is in them", () => {
    expect(code.filter((path) => /(?:^|\/)(?:utils?|helpers?|types|misc|common)\.ts$/.test(path))).toEqual([]);
    expect(source.filter((path) => !/^[a-z0-9/-]+\.ts$/.test(path))).toEqual([]);
  });

  it("documents every export of src", () => {
    const missing = source.flatMap((path) => {
      const lines = read(path).split("\n");
      return lines.flatMap((line, index) =>
        /^export (?:async )?(?:function\*?|class|interface|type|const|abstract class) \w/.test(line) &&
        !(lines[index - 1] ?? "").trimEnd().endsWith("*/")
          ? [`${path}:${index + 1}: ${line}`]
          : [],
      );
    });
    expect(missing).toEqual([]);
  });

  it("waits for conditions in tests, not for time", () => {
    const outside = tests.filter((path) => !path.startsWith("test/support/") && !path.startsWith("test/tidy/"));
    expect(findLines(outside, /\bsetTimeout\(|\bsleep\(|\bdelay\(|timers\/promises/)).toEqual([]);
  });
});

describe("the repository", () => {
  it("has a lock file that names no registry", () => {
    expect(
      findLines(["package-lock.json"], /"resolved"|https?:\/\/(?!.*(?:funding|opencollective|github|paypal))/).filter(
        (line) => /"resolved"/.test(line),
      ),
    ).toEqual([]);
  });

  it("keeps plans and notes out of the root folder", () => {
    const atRoot = files.filter((path) => !path.includes("/") && path.endsWith(".md"));
    expect(
      atRoot.filter((path) => !["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md"].includes(path)),
    ).toEqual([]);
  });

  it("numbers its migrations without a hole", () => {
    const numbers = files
      .filter((path) => path.startsWith("src/postgres/migrations/"))
      .map((path) => /\/(\d{4})_[a-z_]+\.sql$/.exec(path)?.[1]);
    expect(numbers.toSorted()).toEqual(numbers.map((_, index) => String(index + 1).padStart(4, "0")));
  });
});
