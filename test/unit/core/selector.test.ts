import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { FeedError } from "../../../src/core/errors.ts";
import type { Event } from "../../../src/core/event.ts";
import { compileSelectors, type Selector } from "../../../src/core/selector/selector.ts";
import { parseTopicPattern, patternMatches } from "../../../src/core/selector/topic.ts";

function event(topic: string, options: Partial<Event> = {}): Event {
  return {
    version: 1,
    topic,
    key: "1",
    operation: "INSERT",
    before: undefined,
    after: undefined,
    transaction: "7",
    occurredAtMicros: 0,
    headers: undefined,
    ...options,
  };
}

function selector(options: Partial<Selector>): Selector {
  return { topics: [], keys: [], operations: [], ...options };
}

function matches(pattern: string, topic: string): boolean {
  return compileSelectors([selector({ topics: [pattern], keys: ["1"] })]).matches(event(topic));
}

describe("topic patterns", () => {
  test.each([
    ["orders", "orders", true],
    ["orders", "orders.eu", false],
    ["orders.*", "orders.eu", true],
    ["orders.*", "orders", false],
    ["orders.*", "orders.eu.paid", false],
    ["orders.>", "orders.eu", true],
    ["orders.>", "orders.eu.paid", true],
    ["orders.>", "orders", false],
    ["*.eu", "orders.eu", true],
    ["*.eu.>", "orders.eu", false],
    ["*", "orders", true],
    ["*", "orders.eu", false],
    [">", "orders.eu.paid", true],
    ["Orders", "orders", false],
    ["orders.e%2Eu", "orders.e%2Eu", true],
  ])("%s and %s: %s", (pattern, topic, expected) => {
    expect(matches(pattern, topic)).toBe(expected);
  });

  test("agree with a plain reading of them", () => {
    const token = fc.constantFrom("a", "b", "orders");
    const topics = fc.array(token, { minLength: 1, maxLength: 4 });
    const patterns = fc.tuple(fc.array(fc.oneof(token, fc.constant("*")), { maxLength: 4 }), fc.boolean());
    fc.assert(
      fc.property(patterns, topics, ([tokens, tail], topic) => {
        fc.pre(tokens.length > 0 || tail);
        const pattern = [...tokens, ...(tail ? [">"] : [])].join(".");
        const source = tokens.map((t) => (t === "*" ? "[^.]+" : t)).join("\\.");
        const rest = tokens.length === 0 ? "^.+$" : `^${source}\\..+$`;
        const expected = new RegExp(tail ? rest : `^${source}$`).test(topic.join("."));
        expect(matches(pattern, topic.join("."))).toBe(expected);
      }),
      { numRuns: 1_000 },
    );
  });

  test("a template is matched by exactly the patterns that match one of its topics", () => {
    const token = fc.constantFrom("a", "b");
    const templates = fc.array(fc.oneof(token, fc.constantFrom("{x}", "{x.y}", "a{x}", "{x}b", "a{x}b")), {
      minLength: 1,
      maxLength: 3,
    });
    const tokens = fc.array(fc.oneof(token, fc.constantFrom("*", "aa", "ab", "bb", "aab")), {
      minLength: 1,
      maxLength: 3,
    });
    fc.assert(
      fc.property(templates, tokens, fc.boolean(), (template, wanted, tail) => {
        const parsed = parseTopicPattern([...wanted, ...(tail ? [">"] : [])].join("."));
        if (!("pattern" in parsed)) {
          throw new Error("the generator makes valid patterns");
        }
        const values = ["%empty", "a", "b", "q", "aa", "ab", "bb", "aab"];
        const topics = values.flatMap((x) => values.flatMap((y) => values.map((z) => expand(template, [x, y, z]))));
        const some = topics.some((topic) => patternMatches(parsed.pattern, topic));
        const may = patternMatches(parsed.pattern, template.join("."));
        expect(may).toBe(some);
      }),
      { numRuns: 1_000 },
    );
  });

  test.each([
    ["", "is empty"],
    ["a..b", "empty token"],
    [".a", "empty token"],
    ["a.>.b", "`>` before its end"],
    ["a.b*", "mixes a wildcard"],
    ["a b", "letters, digits"],
    ["orders.{region}", "letters, digits"],
    ["a".repeat(256), "longer than 255"],
  ])("%j is refused, by its place", (text, reason) => {
    const compile = () => compileSelectors([selector({}), selector({ topics: ["fine", text] })]);
    expect(compile).toThrow(FeedError);
    try {
      compile();
    } catch (error) {
      const { detail, code, message } = error as FeedError;
      expect(code).toBe("INVALID_REQUEST");
      expect(detail.violations?.map((violation) => violation.field)).toEqual(["selectors[1].topics[1]"]);
      expect(message).toContain(reason);
    }
  });
});

function expand(template: readonly string[], values: readonly string[]): string {
  return template.map((token, i) => token.replace(/\{.+\}/, values[i] ?? "")).join(".");
}

describe("selectors", () => {
  test("none, and one that asks nothing, let everything through", () => {
    for (const selectors of [[], [selector({})], [selector({ topics: ["x"] }), selector({ topics: [">"] })]]) {
      const matcher = compileSelectors(selectors);
      expect(matcher.matches(event("a.b", { key: undefined }))).toBe(true);
      expect(matcher.wantsSource("orders.{region}")).toBe(true);
    }
  });

  test("keys let through their own and every TRUNCATE of their topics, of a template too", () => {
    const { matches: passes, wantsSource } = compileSelectors([selector({ topics: ["orders.eu"], keys: ["1", "2"] })]);
    expect(passes(event("orders.eu", { key: "2" }))).toBe(true);
    expect(passes(event("orders.eu", { key: "3" }))).toBe(false);
    expect(passes(event("orders.eu", { key: undefined }))).toBe(false);
    const truncate = { key: undefined, operation: "TRUNCATE" } as const;
    expect(passes(event("orders.eu", truncate))).toBe(true);
    expect(passes(event("orders.{region}", truncate))).toBe(true);
    expect(passes(event("parcels.{region}", truncate))).toBe(false);
    expect(wantsSource("orders.{region}")).toBe(true);
    expect(wantsSource("orders")).toBe(false);
  });

  test("keys let through what is told of the schema of their topics, of a template too, and no other message", () => {
    const { matches: passes } = compileSelectors([selector({ topics: ["orders.eu"], keys: ["1"] })]);
    const headers = new TextEncoder().encode('{"millrace-schema": "changed"}');
    const told = { key: undefined, operation: "MESSAGE", headers } as const;
    expect(passes(event("orders.eu", told))).toBe(true);
    expect(passes(event("orders.{region}", told))).toBe(true);
    expect(passes(event("parcels", told))).toBe(false);
    expect(passes(event("orders.eu", { ...told, key: "2" }))).toBe(false);
    for (const others of [
      '{"a": "b"}',
      '{"a":"millrace-schema"}',
      '{"a": "millrace-schema", "b": ":"}',
      '{"a": "\\"millrace-schema\\": 1"}',
      '{"x-millrace-schema": "changed"}',
    ]) {
      expect(passes(event("orders.eu", { ...told, headers: new TextEncoder().encode(others) }))).toBe(false);
    }
    const compact = new TextEncoder().encode('{"a":"b","millrace-schema":"changed"}');
    expect(passes(event("orders.eu", { ...told, headers: compact }))).toBe(true);
    expect(passes(event("orders.eu", { ...told, headers: undefined }))).toBe(false);
  });

  test("operations let through their own and every row of a snapshot", () => {
    const { matches: passes } = compileSelectors([selector({ operations: ["DELETE"] })]);
    expect(passes(event("a", { operation: "DELETE" }))).toBe(true);
    expect(passes(event("a", { operation: "SNAPSHOT" }))).toBe(true);
    expect(passes(event("a", { operation: "TRUNCATE" }))).toBe(false);
    expect(passes(event("a"))).toBe(false);
  });

  test("the answer does not depend on how many topics were seen before", () => {
    const { matches: passes } = compileSelectors([selector({ topics: ["t.*"], operations: ["INSERT"] })]);
    for (let i = 0; i < 2_000; i++) {
      expect(passes(event(`t.${i}`))).toBe(true);
      expect(passes(event(`u.${i % 7}`))).toBe(false);
    }
  });

  test("every wrong field is named", () => {
    const wrong = selector({ topics: ["a..b"], operations: ["NONSENSE" as Event["operation"]] });
    try {
      compileSelectors([wrong]);
      expect.unreachable();
    } catch (error) {
      const fields = (error as FeedError).detail.violations?.map((violation) => violation.field);
      expect(fields).toEqual(["selectors[0].topics[0]", "selectors[0].operations[0]"]);
    }
  });
});
