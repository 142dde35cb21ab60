import { posix } from "node:path";
import { describe, expect, it } from "vitest";
import { projectFiles, read } from "./sources.ts";

/**
 * Which folders of `src` each folder may import: the picture in ARCHITECTURE.md, as data. A folder that is missing here
 * fails the test, so that a new one is placed in the picture first.
 */
const allowed: Readonly<Record<string, readonly string[]>> = {
  core: [],
  memory: ["core"],
  postgres: ["core"],
  rpc: ["core"],
  mux: ["rpc"],
  "http-stream": ["core", "rpc"],
  mcp: ["core", "rpc"],
  server: ["core", "postgres", "memory", "rpc", "mux", "http-stream", "mcp"],
  "in-process": ["core", "memory", "server"],
  embedded: ["core"],
  demo: ["postgres"],
  cli: ["core", "postgres", "server", "embedded", "demo", "rpc", "http-stream", "mcp"],
};

/** Packages that only one folder has a reason to know. */
const owned: Readonly<Record<string, readonly string[]>> = {
  pg: ["postgres", "demo", "cli"],
  kysely: ["postgres"],
  "pg-copy-streams": ["postgres"],
  "@connectrpc/connect": ["rpc", "server", "mcp", "cli"],
  "@modelcontextprotocol/server": ["mcp"],
  "@connectrpc/connect-node": ["rpc", "server", "cli"],
  "@bufbuild/cel": ["core"],
  "@bufbuild/re2": ["core"],
  commander: ["cli"],
  pino: ["server", "cli", "in-process"],
};

const importPattern =
  /(?:^|\n)\s*(?:import|export)[^"';]*?from\s+"([^"]+)"|import\("([^"]+)"\)|(?:^|\n)import\s+"([^"]+)"/g;

interface Import {
  readonly from: string;
  readonly to: string;
}

function importsOf(path: string): readonly Import[] {
  return [...read(path).matchAll(importPattern)].map((match) => ({
    from: path,
    to: match[1] ?? match[2] ?? match[3] ?? "",
  }));
}

function folderOf(path: string): string | undefined {
  return /^src\/([^/]+)\//.exec(path)?.[1];
}

const imports = projectFiles()
  .filter((path) => path.startsWith("src/") && path.endsWith(".ts"))
  .flatMap(importsOf);

describe("imports", () => {
  it("are found at all", () => {
    expect(imports.length).toBeGreaterThan(20);
  });

  it("run in the direction that ARCHITECTURE.md draws", () => {
    const wrong = imports.filter(({ from, to }) => {
      if (!to.startsWith(".")) return false;
      const here = folderOf(from);
      const there = folderOf(posix.join(posix.dirname(from), to));
      if (here === undefined || there === undefined || here === there) return false;
      return !(allowed[here] ?? []).includes(there);
    });
    expect(wrong).toEqual([]);
  });

  it("keep the core free of everything but itself, and CEL behind one file", () => {
    const wrong = imports.filter(
      ({ from, to }) => folderOf(from) === "core" && from !== "src/core/selector/filter/cel.ts" && !/^\.\.?\//.test(to),
    );
    expect(wrong).toEqual([]);
  });

  it("keep each package behind the folders that own it", () => {
    const wrong = imports.filter(({ from, to }) => {
      const folders = Object.entries(owned).find(([name]) => to === name || to.startsWith(`${name}/`))?.[1];
      const here = folderOf(from);
      return folders !== undefined && here !== undefined && !folders.includes(here);
    });
    expect(wrong).toEqual([]);
  });

  it("know every folder of src", () => {
    const folders = new Set(projectFiles().flatMap((path) => folderOf(path) ?? []));
    expect([...folders].filter((folder) => !(folder in allowed))).toEqual([]);
  });
});
