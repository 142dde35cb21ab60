import { describe, expect, it } from "vitest";
import { projectFiles, read } from "./sources.ts";

/** `folder/file` and the title of a test in it, as docs/capture.md names them in the last column of its tables. */
interface Named {
  readonly file: string;
  readonly title: string;
}

const document = read("docs/capture.md");
const matrix = projectFiles().filter((path) => /^test\/integration\/capture-matrix\/.*\.test\.ts$/.test(path));

/** Rows of tables that have a column `held by`. */
function rowsHeld(): readonly string[] {
  let held = false;
  return document.split("\n").filter((line) => {
    if (!line.startsWith("|")) held = false;
    else if (/\| held by \|$/.test(line)) held = true;
    return held && !/\| held by \|$|^\|(?:---\|)+$/.test(line);
  });
}

function testsIn(row: string): readonly Named[] {
  const cell = /\| ([^|]*) \|$/.exec(row)?.[1] ?? "";
  return cell
    .split("<br>")
    .map((text) => /^`([a-z/-]+)` (.+)$/.exec(text))
    .flatMap((match) => (match === null ? [] : [{ file: match[1] ?? "", title: match[2] ?? "" }]));
}

function titlesIn(path: string): readonly string[] {
  const titles = read(path).matchAll(/\bit(?:\.each\([^)]*\))?\(\s*(["'`])((?:(?!\1).)+)\1/g);
  return [...titles].map((match) => match[2] ?? "");
}

describe("docs/capture.md", () => {
  it("names a test that exists in each row", () => {
    const rows = rowsHeld();
    expect(rows.length).toBeGreaterThan(50);
    const wrong = rows.filter((row) => {
      const named = testsIn(row);
      const cell = row.split("|").at(-2) ?? "";
      return (
        named.length !== cell.split("<br>").length ||
        named.some(({ file, title }) => !titlesIn(`test/integration/${file}.test.ts`).includes(title))
      );
    });
    expect(wrong).toEqual([]);
  });

  it("names every test of the matrix", () => {
    const named = new Set(rowsHeld().flatMap((row) => testsIn(row).map(({ file, title }) => `${file} ${title}`)));
    const missing = matrix.flatMap((path) => {
      const file = path.replace(/^test\/integration\/|\.test\.ts$/g, "");
      const titles = titlesIn(path);
      expect(titles, path).not.toEqual([]);
      return titles.map((title) => `${file} ${title}`).filter((name) => !named.has(name));
    });
    expect(missing).toEqual([]);
  });
});
