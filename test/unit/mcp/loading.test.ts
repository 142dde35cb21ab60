import { describe, expect, it } from "vitest";
import { findLines, projectFiles } from "../../tidy/sources.ts";

describe("the SDK of the Model Context Protocol", () => {
  const others = projectFiles().filter((path) => path.startsWith("src/") && !path.startsWith("src/mcp/"));

  it("is loaded by whoever serves agents, when he does: nobody imports src/mcp but by `import()`", () => {
    expect(others.length).toBeGreaterThan(100);
    expect(findLines(others, /^(?:import|export) (?!type\b).*\/mcp\/|@modelcontextprotocol/)).toEqual([]);
    expect(findLines(others, /import\("[./]*\/mcp\//)).toHaveLength(2);
  });
});
