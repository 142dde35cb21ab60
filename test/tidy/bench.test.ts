import { readFileSync } from "node:fs";
import { expect, test } from "vitest";

const read = (path: string) => readFileSync(new URL(`../../${path}`, import.meta.url), "utf8");

test("every benchmark that all of them together run has a script of its own", () => {
  const [, list = ""] = /\[\n([^\]]*)\]/.exec(read("bench/all.ts")) ?? [];
  const names = [...list.matchAll(/"([a-z-]+)"/g)].map(([, name]) => name);
  expect(names).toContain("resume-storm");
  const { scripts } = JSON.parse(read("package.json")) as { readonly scripts: Readonly<Record<string, string>> };
  expect(names.filter((name) => scripts[`bench:${name}`] !== `node bench/${name}.ts`)).toEqual([]);
});
