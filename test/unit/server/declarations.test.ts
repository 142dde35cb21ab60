import { describe, expect, it } from "vitest";
import { FeedError } from "../../../src/core/errors.ts";
import { declarationsFrom } from "../../../src/server/config-file/declarations.ts";
import { defineConfig } from "../../../src/server/config-file/define-config.ts";

function problemOf(config: unknown): string {
  try {
    declarationsFrom(config, "millrace.config.ts");
  } catch (error) {
    if (error instanceof FeedError && error.code === "INVALID_REQUEST") return error.message;
    throw error;
  }
  throw new Error("it was accepted");
}

const source = (entry: unknown) => ({ sources: { "public.orders": entry } });

describe("a configuration file", () => {
  it("says options of the server, sources, builders and initial states", () => {
    const build = () => undefined;
    const config = defineConfig({
      port: 7500,
      logBytes: "64MiB",
      sources: {
        "public.orders": {
          topic: "shop.{region}",
          key: ["id"],
          exclude: ["secret"],
          before: false,
          order: "strict",
          build,
          topics: ["shop.>"],
          initialState: (sql) => sql`select * from public.orders where region = ${"eu"}`,
        },
        "public.invoices": { poll: { column: "updated_at", everyMs: 500 }, initialState: "select 1 as id" },
        "public.old": false,
      },
    });
    expect(declarationsFrom(config, "f")).toEqual({
      options: { port: 7500, logBytes: "64MiB" },
      sources: [
        {
          table: "public.orders",
          settings: {
            topic: "shop.{region}",
            keyColumns: ["id"],
            exclude: ["secret"],
            beforeValues: false,
            capture: "strict",
          },
        },
        { table: "public.invoices", settings: { polling: { column: "updated_at", everyMs: 500 } } },
        { table: "public.old", settings: undefined },
      ],
      built: [{ table: "public.orders", build, topics: ["shop.>"] }],
      states: [
        { table: "public.orders", sql: "select * from public.orders where region = 'eu'" },
        { table: "public.invoices", sql: "select 1 as id" },
      ],
    });
  });

  it("may be empty", () => {
    expect(declarationsFrom({}, "f")).toEqual({ options: {}, sources: [], built: [], states: [] });
  });

  const wrong: readonly (readonly [string, unknown, string])[] = [
    ["nothing", undefined, "millrace.config.ts: it must export an object"],
    ["a list", [], "millrace.config.ts: it must export an object"],
    ["an unknown option", { prot: 1 }, "`prot` is no option"],
    ["a wrong option", { port: "http" }, "`port` must be a whole number between 0 and 65535"],
    ["sources that are a list", { sources: [] }, "`sources` must be an object"],
    ["a table without a schema", { sources: { orders: {} } }, '`sources["orders"]` must name a table with its schema'],
    [
      "a table twice",
      { sources: { "public.a": {}, "PUBLIC.A": {} } },
      '`sources["PUBLIC.A"]` is the same table as public.a',
    ],
    ["a source that is true", source(true), '`sources["public.orders"]` must be an object, or false'],
    ["a misspelt field", source({ topik: "x" }), '`sources["public.orders"].topik` is no field of a source'],
    ["a key that is a text", source({ key: "id" }), '`sources["public.orders"].key` must be a list of columns'],
    ["an empty key", source({ key: [] }), '`sources["public.orders"].key` must name at least one column'],
    ["a column that is a number", source({ include: [1] }), '`sources["public.orders"].include[0]` must be a text'],
    ["another order", source({ order: "loose" }), '`sources["public.orders"].order` must be default or strict'],
    ["polling without a column", source({ poll: {} }), '`sources["public.orders"].poll.column` must be a text'],
    ["polling never", source({ poll: { column: "a", everyMs: 0 } }), ".poll.everyMs` must be at least 1"],
    ["polling with old rows", source({ poll: { column: "a" }, before: true }), ".before` is for triggers"],
    ["a builder that is none", source({ build: "x" }), '`sources["public.orders"].build` must be a function'],
    ["topics without a builder", source({ topics: ["a"] }), ".topics` says nothing without `build`"],
    [
      "a topic that is none",
      source({ build: () => undefined, topics: ["a..b"] }),
      ".topics[0]` `a..b` has an empty token",
    ],
    ["an initial state that is none", source({ initialState: 1 }), ".initialState` must be a SELECT"],
    ["one that makes none", source({ initialState: () => 1 }), ".initialState` must make a query"],
    [
      "one that throws",
      source({
        initialState: () => {
          throw new Error("no such thing");
        },
      }),
      ".initialState` failed: no such thing",
    ],
  ];
  it.each(wrong)("with %s is refused, and the field is named", (_what, config, sentence) => {
    expect(problemOf(config)).toContain(sentence);
  });

  it("with several mistakes names them all", () => {
    const message = problemOf({ prot: 1, ...source({ topik: "x", order: 3 }) });
    for (const field of ["prot", "topik", "order"]) expect(message).toContain(field);
  });
});
