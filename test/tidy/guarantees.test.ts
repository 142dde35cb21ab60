import { describe, expect, it } from "vitest";
import { projectFiles, read } from "./sources.ts";

/** Guarantees of which something exists to be tested; the rest are promised by later parts of the product. */
const inForce = ["G1", "G2", "G3", "G4", "G5", "G6", "G7", "G8", "G9", "G10", "G11"];

const tests = projectFiles().filter((path) => /^test\/.*\.test\.ts$|^test\/contract\/suite\/.*\.ts$/.test(path));
const document = read("docs/guarantees.md");

/** Names of tests and suites that bear a number: `G4 the last image is the table's`. */
function numbered(path: string): readonly string[] {
  return [
    ...read(path).matchAll(/\b(?:describe|it|test)(?:\.\w+)?(?:\([^"'`]*\))?\(\s*["'`]((?:G\d+[,/ ]?\s?)+[^"'`]*)/g),
  ].map((match) => match[1] ?? "");
}

/** Paths that the document names as where a guarantee is tested, by its number. */
function namedFor(guarantee: string): readonly string[] {
  const section = document.split(/^## /m).find((part) => new RegExp(`^${guarantee}\\b`).test(part)) ?? "";
  return [...section.matchAll(/`(test\/[^`]+\.ts)`/g)].map((match) => match[1] ?? "");
}

describe("docs/guarantees.md", () => {
  it.each(inForce)("%s names tests that exist and bear its number", (guarantee) => {
    const paths = namedFor(guarantee);
    expect(paths).not.toEqual([]);
    for (const path of paths) {
      expect(tests, `${path} is named under ${guarantee}`).toContain(path);
      expect(
        numbered(path).some((name) => new RegExp(`\\b${guarantee}\\b`).test(name)),
        `${path} has a test that bears ${guarantee}`,
      ).toBe(true);
    }
  });

  it("names every file whose tests bear a number, under that number", () => {
    const missing = tests.flatMap((path) =>
      [...new Set(numbered(path).flatMap((name) => name.match(/^(?:G\d+[,/ ]?\s?)+/)?.[0].match(/G\d+/g) ?? []))]
        .filter((guarantee) => !namedFor(guarantee).includes(path))
        .map((guarantee) => `${guarantee}: ${path}`),
    );
    expect(missing).toEqual([]);
  });
});
