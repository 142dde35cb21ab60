import { describe, expect, it } from "vitest";
import { EventBuilder } from "../../../../src/core/builder/build-event.ts";
import type { Builder } from "../../../../src/core/builder/builder.ts";
import type { Event } from "../../../../src/core/event.ts";
import { compileSelectors } from "../../../../src/core/selector/selector.ts";

const encoder = new TextEncoder();
const decoder = new TextDecoder();

function event(
  parts: Partial<Event> & { readonly old?: string; readonly row?: string; readonly said?: string } = {},
): Event {
  const { old, row = '{"id":7,"note":"a"}', said, ...rest } = parts;
  return {
    version: 12,
    topic: "orders",
    key: "7",
    operation: "UPDATE",
    before: old === undefined ? undefined : encoder.encode(old),
    after: encoder.encode(row),
    transaction: "900",
    occurredAtMicros: 1_700_000_000_000_123,
    headers: said === undefined ? undefined : encoder.encode(said),
    ...rest,
  };
}

function build(builder: unknown, of: Event = event(), topics?: readonly string[]) {
  const source = { table: "public.orders", build: builder as Builder, topics };
  const built = new EventBuilder(source).build(of);
  if (built === undefined) throw new Error("it was passed over");
  return built;
}

function text(image: Uint8Array | undefined): string | undefined {
  return image === undefined ? undefined : decoder.decode(image);
}

describe("a builder", () => {
  it("sees the change as it was written", () => {
    let seen: unknown;
    build(
      (change: Parameters<Builder>[0]) => {
        const { table, operation, topic, key, before, after, headers, occurredAt } = change;
        seen = { table, operation, topic, key, before, after, headers, occurredAt };
      },
      event({ old: '{"id":7,"n":9007199254740993}', said: '{"a":"b"}' }),
    );
    expect(seen).toEqual({
      table: "public.orders",
      operation: "UPDATE",
      topic: "orders",
      key: "7",
      before: { id: 7, n: 9007199254740993n },
      after: { id: 7, note: "a" },
      headers: { a: "b" },
      occurredAt: new Date(1_700_000_000_000.123),
    });
  });

  it("makes topic, key, payload and headers, at the same version and in the same transaction", () => {
    const { event: made, outcome } = build(() => ({
      topic: "billing.invoices",
      key: "i-7",
      payload: { total: 12n },
      before: { total: 11 },
      headers: { kind: "invoice" },
    }));
    expect(outcome).toBe("built");
    expect(made).toMatchObject({
      version: 12,
      topic: "billing.invoices",
      key: "i-7",
      operation: "UPDATE",
      transaction: "900",
    });
    expect([text(made.after), text(made.before), text(made.headers)]).toEqual([
      '{"total":12}',
      '{"total":11}',
      '{"kind":"invoice"}',
    ]);
    expect(made.origin).toEqual({ topic: "orders", key: "7" });
  });

  it("leaves topic, key and headers as they are where it says nothing, and no image", () => {
    const { event: made } = build(() => ({}), event({ old: "{}", said: '{"a":"b"}' }));
    expect(made).toMatchObject({ topic: "orders", key: "7", before: undefined, after: undefined });
    expect(text(made.headers)).toBe('{"a":"b"}');
  });

  it("hands a row on with its very bytes", () => {
    const row = '{"id":  7, "price": 12.50, "big": 1e400}';
    const of = event({ row, old: row });
    const { event: made } = build(({ after, before }: Parameters<Builder>[0]) => ({ payload: after, before }), of);
    expect(made.after).toBe(of.after);
    expect(made.before).toBe(of.before);
  });

  it("sees what there is of the row, whatever has happened to it", () => {
    const rowOf = (of: Event) => {
      let seen: unknown;
      build(({ row }: Parameters<Builder>[0]) => {
        seen = row;
      }, of);
      return seen;
    };
    expect(rowOf(event({ old: '{"id":6}' }))).toEqual({ id: 7, note: "a" });
    expect(rowOf(event({ operation: "DELETE", after: undefined, old: '{"id":6}' }))).toEqual({ id: 6 });
    expect(rowOf(event({ operation: "DELETE", after: undefined }))).toEqual({});
  });

  it("tells of what a DELETE has deleted", () => {
    const of = event({ operation: "DELETE", after: undefined, old: '{"id":7}' });
    const { event: made } = build(
      ({ before }: Parameters<Builder>[0]) => ({ key: null, payload: { gone: before?.id } }),
      of,
    );
    expect([text(made.before), made.after, made.key]).toEqual(['{"gone":7}', undefined, undefined]);
  });

  it.each(["TRUNCATE", "MESSAGE"] as const)("does not see a %s", (operation) => {
    const source = { table: "public.orders", build: () => undefined, topics: undefined };
    expect(new EventBuilder(source).build(event({ operation }))).toBeUndefined();
  });

  it.each([undefined, null])("that answers %s hides the event from every selector, also the empty one", (answer) => {
    const { event: made, outcome } = build(() => answer);
    expect(outcome).toBe("hidden");
    expect(made).toMatchObject({ version: 12, before: undefined, after: undefined, origin: { key: "7" } });
    for (const topics of [[], [">"], ["*"], ["orders"], ["orders", ">"]]) {
      const matcher = compileSelectors([{ topics, keys: [], operations: [] }], { hides: true });
      expect([matcher.matches(made), matcher.view(made)]).toEqual([false, undefined]);
      expect(matcher.matches(event())).toBe(true);
    }
    expect(compileSelectors([], { hides: true }).matches(made)).toBe(false);
    expect(compileSelectors([{ topics: [], keys: ["7"], operations: [] }]).matches(made)).toBe(false);
    expect(compileSelectors([{ topics: [], keys: [], operations: ["UPDATE"] }]).matches(made)).toBe(false);
  });

  const wrong: readonly (readonly [string, unknown, string])[] = [
    [
      "throws",
      () => {
        throw new Error("no\n  luck");
      },
      "no luck",
    ],
    [
      "throws what is no error",
      () => {
        throw Object.create(null);
      },
      "it threw what has no text",
    ],
    ["is asynchronous", async () => ({}), "the builder answered with a promise"],
    ["rejects", async () => Promise.reject(new Error("late")), "the builder answered with a promise"],
    ["answers with a text", () => "x", "the builder answered with a string"],
    ["answers with several events", () => [{}], "the builder answered with a list"],
    ["misspells a field", () => ({ topik: "a" }), "answered with `topik`"],
    ["makes a wrong topic", () => ({ topic: "a..b" }), 'the topic "a..b" has an empty token'],
    ["makes a pattern", () => ({ topic: "a.*" }), 'the topic "a.*" is a pattern'],
    ["makes a topic of another type", () => ({ topic: 1 }), "the topic is a number"],
    ["takes a topic of Millrace's", () => ({ topic: "millrace.dead_letter.x" }), "begins as Millrace's own do"],
    ["makes a topic that is too long", () => ({ topic: "a".repeat(256) }), "is longer than 255 bytes"],
    ["makes a key of another type", () => ({ key: 7 }), "the key is a number"],
    ["makes a key of half a character", () => ({ key: "\ud800" }), "the key is no well-formed Unicode"],
    ["makes a key that is too long", () => ({ key: "ä".repeat(5_000) }), "more than 8192 bytes"],
    ["makes headers of numbers", () => ({ headers: { a: 1 } }), "the header `a` is a number"],
    ["makes no headers", () => ({ headers: "a" }), "headers are a string"],
    ["makes a payload that JSON has no text for", () => ({ payload: () => 1 }), "the payload is a function"],
    [
      "makes a payload that refers to itself",
      () => {
        const circle: Record<string, unknown> = {};
        circle.self = circle;
        return { payload: circle };
      },
      "circular",
    ],
    [
      "changes the row that it sees",
      ({ after }: { after: { note: string } }) => {
        after.note = "b";
        return { payload: after };
      },
      "read only",
    ],
  ];
  it.each(wrong)("that %s makes a dead letter of the change as it was written", (_what, builder, reason) => {
    const of = event({ old: '{"id":7}', said: '{"a":"b"}' });
    const { event: made, outcome, reason: told } = build(builder, of);
    expect(outcome).toBe("failed");
    expect(told).toContain(reason);
    expect(made).toMatchObject({ version: 12, topic: "millrace.dead_letter.orders", key: "7", operation: "UPDATE" });
    expect([made.before, made.after]).toEqual([of.before, of.after]);
    expect(JSON.parse(text(made.headers) ?? "")).toEqual({
      a: "b",
      "millrace-error": told,
      "millrace-source": "public.orders",
      "millrace-topic": "orders",
    });
  });

  it("that answers with a topic beyond its own makes a dead letter, where they are declared", () => {
    expect(build(() => ({ topic: "billing.eu" }), event(), ["billing.*"]).outcome).toBe("built");
    expect(build(() => ({ topic: "billing" }), event(), ["billing.*"]).reason).toContain("none of the source's");
  });

  it("keeps dead letters of long topics within bounds", () => {
    const { event: made } = build(() => "x", event({ topic: "a".repeat(250) }));
    expect(made.topic).toBe("millrace.dead_letter");
    expect(text(made.headers)).toContain("a".repeat(250));
  });
});
