import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Event, Operation } from "../../../src/core/event.ts";
import { ColumnIndex } from "../../../src/core/selector/filter/column-index.ts";
import { RowCache } from "../../../src/core/selector/filter/row-cache.ts";
import { compileSelectors, type Matcher, type Selector } from "../../../src/core/selector/selector.ts";

type Row = Readonly<Record<string, string | number | boolean | null>>;

const encode = (value: unknown): Uint8Array => new TextEncoder().encode(JSON.stringify(value));

let version = 0;

function event(
  operation: Operation,
  options: Partial<Omit<Event, "before" | "after">> & { before?: unknown; after?: unknown } = {},
): Event {
  const { before, after, ...rest } = options;
  return {
    version: ++version,
    topic: "orders",
    key: "1",
    operation,
    transaction: "7",
    occurredAtMicros: 1_000_000,
    headers: undefined,
    ...rest,
    before: before === undefined ? undefined : encode(before),
    after: after === undefined ? undefined : encode(after),
  };
}

function selector(options: Partial<Selector>): Selector {
  return { topics: [], keys: [], operations: [], ...options };
}

function matcherOf(...filters: readonly string[]): Matcher {
  return compileSelectors(filters.map((filter) => selector({ filter })));
}

/** How it looks: operation, transition, and which images it has. */
function shown(view: Event | undefined): string {
  if (view === undefined) {
    return "";
  }
  const images = `${view.before === undefined ? "" : "<"}${view.after === undefined ? "" : ">"}`;
  return [view.operation, view.transition, images].filter((part) => part !== undefined && part !== "").join(" ");
}

const open = { id: 1, status: "open" };
const paid = { id: 1, status: "paid" };

describe("a filter on rows", () => {
  const filter = 'row.status == "paid"';

  test.each<[string, Event, string]>([
    ["INSERT of a row inside", event("INSERT", { after: paid }), "INSERT >"],
    ["INSERT of a row outside", event("INSERT", { after: open }), ""],
    ["INSERT without a payload", event("INSERT"), ""],
    ["SNAPSHOT of a row inside", event("SNAPSHOT", { after: paid }), "SNAPSHOT >"],
    ["SNAPSHOT of a row outside", event("SNAPSHOT", { after: open }), ""],
    ["UPDATE that stays inside", event("UPDATE", { before: paid, after: { ...paid, n: 1 } }), "UPDATE <>"],
    ["UPDATE that comes in", event("UPDATE", { before: open, after: paid }), "UPDATE ENTERED <>"],
    ["UPDATE that goes out", event("UPDATE", { before: paid, after: open }), "UPDATE LEFT"],
    ["UPDATE that stays outside", event("UPDATE", { before: open, after: open }), ""],
    ["UPDATE inside, the row before unknown", event("UPDATE", { after: paid }), "UPDATE >"],
    ["UPDATE outside, the row before unknown", event("UPDATE", { after: open }), "UPDATE LEFT"],
    ["UPDATE without any row", event("UPDATE"), "UPDATE LEFT"],
    [
      "UPDATE from inside to where the filter fails",
      event("UPDATE", { before: paid, after: { id: 1 } }),
      "UPDATE LEFT",
    ],
    [
      "UPDATE from where the filter fails to inside",
      event("UPDATE", { before: { id: 1 }, after: paid }),
      "UPDATE ENTERED <>",
    ],
    ["DELETE of a row inside", event("DELETE", { before: paid }), "DELETE <"],
    ["DELETE of a row outside", event("DELETE", { before: open }), ""],
    ["DELETE, the row unknown", event("DELETE"), "DELETE LEFT"],
    ["TRUNCATE", event("TRUNCATE", { key: undefined }), "TRUNCATE"],
    ["MESSAGE with a payload inside", event("MESSAGE", { after: paid }), "MESSAGE >"],
    ["MESSAGE with a payload outside", event("MESSAGE", { after: open }), ""],
    ["MESSAGE whose payload is no object", event("MESSAGE", { after: "paid" }), ""],
    ["MESSAGE without a payload", event("MESSAGE"), ""],
    [
      "message about the schema",
      event("MESSAGE", { key: undefined, headers: encode({ "millrace-schema": "changed" }) }),
      "MESSAGE",
    ],
  ])("shows %s", (_what, given, expected) => {
    expect(shown(matcherOf(filter).view(given))).toBe(expected);
  });

  test("leaves of what LEFT everything that says which row it was", () => {
    const given = event("UPDATE", { before: paid, after: open, headers: encode({ a: "b" }) });
    expect(matcherOf(filter).view(given)).toEqual({
      ...given,
      before: undefined,
      after: undefined,
      transition: "LEFT",
    });
  });

  test("shows an event that passes whole as the same object", () => {
    const given = event("INSERT", { after: paid });
    expect(matcherOf(filter).view(given)).toBe(given);
  });

  test("counts evaluations that fail, and tells who asked to be told", () => {
    let told = 0;
    const matcher = compileSelectors([selector({ filter: "row.amount > 5" })], { onFilterError: () => told++ });
    matcher.view(event("UPDATE", { before: { amount: "much" }, after: { id: 1 } }));
    matcher.view(event("INSERT", { after: { amount: 6 } }));
    matcher.view(event("INSERT", { after: 7 }));
    expect([matcher.errors(), told]).toEqual([3, 3]);
  });

  test("takes an image that is no JSON for a failure", () => {
    const matcher = matcherOf("row.a == 1");
    for (const text of [
      "",
      "{",
      '{"a',
      '{"a":',
      '{"a":}',
      '{"a" 1}',
      '{"a":1',
      "nonsense",
      '{"a":nonsense}',
      `{"a":${"[".repeat(50_000)}`,
    ]) {
      expect(matcher.view({ ...event("INSERT"), after: new TextEncoder().encode(text) })).toBe(undefined);
    }
    expect(matcher.errors()).toBe(10);
  });

  test("fails rather than go through an array of any length", () => {
    const matcher = matcherOf("row.a.all(x, x > 0)");
    const ones = (length: number) => event("INSERT", { after: { a: new Array(length).fill(1) } });
    expect(shown(matcher.view(ones(10_000)))).toBe("INSERT >");
    expect(shown(matcher.view(ones(10_001)))).toBe("");
    expect(matcher.errors()).toBe(1);
  });
});

describe("a filter on events", () => {
  test.each<[string, Event, string]>([
    ['event.operation == "UPDATE"', event("UPDATE", { before: open, after: paid }), "UPDATE <>"],
    ['event.operation == "UPDATE"', event("INSERT", { after: paid }), ""],
    ["before.status != after.status", event("UPDATE", { before: open, after: paid }), "UPDATE <>"],
    ["before.status != after.status", event("UPDATE", { before: paid, after: paid }), ""],
    ["before == null && after.id == 1", event("INSERT", { after: paid }), "INSERT >"],
    ['row.status == "paid" && event.version > 0', event("DELETE", { before: paid }), "DELETE <"],
    ['row.status == "paid" && event.version > 0', event("UPDATE", { before: open, after: paid }), "UPDATE <>"],
    [
      'event.key == "1" && has(event.headers.tenant)',
      event("MESSAGE", { headers: encode({ tenant: "a" }) }),
      "MESSAGE",
    ],
    ["!has(event.key)", event("TRUNCATE", { key: undefined }), "TRUNCATE"],
    ['event.operation == "INSERT"', event("TRUNCATE", { key: undefined }), ""],
    [
      'event.occurred_at == timestamp("1970-01-01T00:00:01Z") && event.topic == "orders"',
      event("TRUNCATE"),
      "TRUNCATE",
    ],
    ['event.transaction == "7" && event == event', event("TRUNCATE"), "TRUNCATE"],
    ["true", event("UPDATE"), "UPDATE"],
    ["false", event("DELETE"), ""],
  ])("%s: %#", (filter, given, expected) => {
    const matcher = matcherOf(filter);
    expect(shown(matcher.view(given))).toBe(expected);
    expect(matcher.errors()).toBe(0);
  });
});

describe("several selectors", () => {
  const numbers = fc.constantFrom(0, 1, 2);
  const row = fc.record({ a: numbers, b: numbers });
  const given = fc.oneof(
    fc.tuple(fc.constantFrom<Operation>("INSERT", "SNAPSHOT"), fc.constant(undefined), row),
    fc.tuple(fc.constant<Operation>("UPDATE"), fc.option(row, { nil: undefined }), row),
    fc.tuple(fc.constant<Operation>("DELETE"), fc.option(row, { nil: undefined }), fc.constant(undefined)),
  );
  const wanted = fc.array(
    fc.record({
      column: fc.constantFrom("a", "b"),
      value: numbers,
      fields: fc.constantFrom<readonly string[]>([], ["a"], ["b"], ["a", "b"], ["none"]),
      topic: fc.constantFrom("orders", "parcels"),
    }),
    { minLength: 1, maxLength: 4 },
  );

  test("show what happens to the union of their rows, with the columns of those that want the event", () => {
    fc.assert(
      fc.property(wanted, given, (wants, [operation, before, after]) => {
        const matcher = compileSelectors(
          wants.map(({ column, value, fields, topic }) =>
            selector({ topics: [topic], filter: `row.${column} == ${value}`, fields }),
          ),
        );
        const its = wants.filter(({ topic }) => topic === "orders");
        const within = (image: Record<string, number> | undefined) =>
          its.filter(({ column, value }) => image?.[column] === value);
        const unknown = before === undefined && (operation === "UPDATE" || operation === "DELETE") && its.length > 0;
        const is = within(after).length > 0;
        const was =
          operation === "UPDATE"
            ? before === undefined
              ? is
              : within(before).length > 0
            : is || within(before).length > 0;
        const stays = operation === "DELETE" ? was : is;
        const view = matcher.view(event(operation, { before, after }));
        if (!was && !is) {
          expect(shown(view)).toBe(unknown ? `${operation} LEFT` : "");
        } else if (!stays) {
          expect(shown(view)).toBe(`${operation} LEFT`);
        } else {
          const wanting = its.filter(
            (want) =>
              within(before).includes(want) ||
              within(after).includes(want) ||
              (unknown && !within(after).includes(want)),
          );
          const columns = wanting.some(({ fields }) => fields.length === 0)
            ? ["a", "b"]
            : wanting.flatMap(({ fields }) => fields);
          expect(view?.transition).toBe(was ? undefined : "ENTERED");
          expect(parsed(view?.after)).toEqual(cut(after, columns));
          expect(parsed(view?.before)).toEqual(cut(before, columns));
        }
      }),
      { numRuns: 5_000 },
    );
  });

  function cut(image: Record<string, number> | undefined, columns: readonly string[]): unknown {
    return image && Object.fromEntries(Object.entries(image).filter(([name]) => columns.includes(name)));
  }

  function parsed(image: Uint8Array | undefined): unknown {
    return image && JSON.parse(new TextDecoder().decode(image));
  }

  test("show everything of their topics where one of them does not filter", () => {
    const { view } = compileSelectors([
      selector({ filter: "row.a == 1", fields: ["a"] }),
      selector({ topics: ["orders"] }),
    ]);
    const update = event("UPDATE", { before: { a: 1 }, after: { a: 2 } });
    expect(view(update)).toBe(update);
    expect(shown(view({ ...update, topic: "parcels" }))).toBe("UPDATE LEFT");
  });
});

describe("who follows a filter", () => {
  type Change =
    | { readonly kind: "put"; readonly key: string; readonly row: Row }
    | { readonly kind: "delete"; readonly key: string }
    | { readonly kind: "truncate" };
  const key = fc.constantFrom("1", "2", "3");
  const row = fc.record(
    { a: fc.constantFrom(1, 1.5, "x", null, true), b: fc.constantFrom(1, 2) },
    { requiredKeys: [], noNullPrototype: true },
  );
  const changes = fc.array(
    fc.oneof(
      fc.tuple(key, row).map(([at, put]): Change => ({ kind: "put", key: at, row: put })),
      key.map((at): Change => ({ kind: "delete", key: at })),
      fc.constant<Change>({ kind: "truncate" }),
    ),
    { maxLength: 40 },
  );
  const filters: readonly [string, (row: Row) => boolean][] = [
    ["row.a == 1", ({ a }) => a === 1],
    ["row.a != 1", ({ a }) => a !== undefined && a !== 1],
    ["row.a < 2 || row.b == 2", ({ a, b }) => (typeof a === "number" && a < 2) || b === 2],
    ["has(row.a) && row.b in [1]", ({ a, b }) => a !== undefined && a !== null && b === 1],
    ["row.b == 1 && row.a > 1", ({ a, b }) => b === 1 && typeof a === "number" && a > 1],
  ];

  test.each([true, false])("has the rows that match, before-values: %s", (withBefore) => {
    fc.assert(
      fc.property(changes, fc.constantFrom(...filters), (list, [filter, wants]) => {
        const { view } = matcherOf(filter);
        const table = new Map<string, Row>();
        const held = new Map<string, unknown>();
        for (const given of eventsOf(list, table, withBefore)) {
          apply(view(given), held);
          const expected = [...table].filter(([, row]) => wants(row));
          expect(held).toEqual(new Map(expected));
        }
      }),
      { numRuns: 2_000 },
    );
  });

  function* eventsOf(list: readonly Change[], table: Map<string, Row>, withBefore: boolean): Generator<Event> {
    for (const change of list) {
      const before = change.kind === "truncate" ? undefined : table.get(change.key);
      const known = withBefore && before !== undefined ? { before } : {};
      if (change.kind === "truncate") {
        table.clear();
        yield event("TRUNCATE", { key: undefined });
      } else if (change.kind === "put") {
        table.set(change.key, change.row);
        yield event(before === undefined ? "INSERT" : "UPDATE", { key: change.key, after: change.row, ...known });
      } else if (table.delete(change.key)) {
        yield event("DELETE", { key: change.key, ...known });
      }
    }
  }

  function apply(view: Event | undefined, held: Map<string, unknown>): void {
    if (view?.operation === "TRUNCATE") {
      held.clear();
    } else if (view?.key !== undefined && (view.transition === "LEFT" || view.operation === "DELETE")) {
      held.delete(view.key);
    } else if (view?.key !== undefined && view.after !== undefined) {
      held.set(view.key, JSON.parse(new TextDecoder().decode(view.after)));
    }
  }
});

describe("the index by columns", () => {
  const value = fc.constantFrom(0, 1, 2, 1.5, "1", "x", null, true);
  const row = fc.record({ a: value, b: value, c: value }, { requiredKeys: [], noNullPrototype: true });
  const text = fc.oneof(
    value.filter((each) => each !== 1.5).map((each) => JSON.stringify(each)),
    fc.constant("1.0"),
  );
  const column = fc.constantFrom("a", "b", "c");
  const atom = fc.oneof(
    fc
      .tuple(column, fc.constantFrom("==", "!="), text)
      .map(([name, operator, literal]) => `row.${name} ${operator} ${literal}`),
    fc.tuple(column, text).map(([name, literal]) => `${literal} == row.${name}`),
    fc.tuple(column, fc.array(text, { maxLength: 3 })).map(([name, list]) => `row.${name} in [${list.join()}]`),
    fc.tuple(column, text).map(([name, literal]) => `!(row.${name} != ${literal})`),
    column.map((name) => `has(row.${name})`),
    column.map((name) => `row.${name} < 2`),
  );
  const filter = fc
    .array(fc.tuple(atom, fc.constantFrom("&&", "||")), { minLength: 1, maxLength: 4 })
    .map((parts) => parts.map(([part, operator], i) => (i === 0 ? part : `${operator} ${part}`)).join(" "));
  const given = fc.record({
    operation: fc.constantFrom<Operation>("INSERT", "UPDATE", "DELETE", "TRUNCATE", "MESSAGE", "SNAPSHOT"),
    before: fc.option(row, { nil: undefined }),
    after: fc.option(fc.oneof({ arbitrary: row, weight: 9 }, { arbitrary: value, weight: 1 }), { nil: undefined }),
    key: fc.constantFrom("1", undefined),
    headers: fc.constantFrom(undefined, encode({ "millrace-schema": "changed" })),
  });

  test("names everybody who would show something of an event, or fail on it", () => {
    fc.assert(
      fc.property(
        fc.array(filter, { minLength: 1, maxLength: 6 }),
        fc.array(given, { maxLength: 5 }),
        (filters, list) => {
          const rows = new RowCache();
          const index = new ColumnIndex<Matcher>(rows);
          const matchers = filters.map((each) => compileSelectors([selector({ filter: each })], { rows }));
          const found = matchers.filter((matcher) => matcher.interest[0]?.requirement !== undefined);
          for (const matcher of found) {
            index.add(matcher, matcher.interest[0]?.requirement ?? []);
          }
          for (const { operation, ...options } of list) {
            const it = event(operation, options);
            const named = new Set<Matcher>();
            index.offer(it, (matcher) => named.add(matcher));
            for (const matcher of found.filter((each) => !named.has(each))) {
              const before = matcher.errors();
              expect([matcher.view(it), matcher.errors() - before]).toEqual([undefined, 0]);
            }
          }
          for (const matcher of found) {
            index.delete(matcher, matcher.interest[0]?.requirement ?? []);
          }
          expect(index.empty).toBe(true);
        },
      ),
      { numRuns: 5_000 },
    );
  });

  test("does not name those whose value the row has not", () => {
    const index = new ColumnIndex<string>();
    for (const status of ["open", "paid", "sent"]) {
      const requirement = matcherOf(`row.id > 0 && row.status == "${status}"`).interest[0]?.requirement;
      index.add(status, requirement ?? []);
    }
    const named: string[] = [];
    index.offer(event("UPDATE", { before: open, after: paid }), (item) => named.push(item));
    expect(named).toEqual(["open", "paid"]);
  });
});
