// 1,000 different filters of ten shapes over one topic, each of which one event in a hundred passes: what it costs to find for
// each event who wants it. Beside it the interpreter that the filters are written for, on rows that it finds ready.
import { celEnv, parse, plan } from "@bufbuild/cel";
import type { Event } from "../src/core/event.ts";
import { ColumnIndex } from "../src/core/selector/filter/column-index.ts";
import { compileSelectors, type Matcher } from "../src/core/selector/selector.ts";
import { benchOptions, type Measurement, percentile, report } from "./report.ts";

const FILTERS = 1_000;
/** More than the cache of rows holds, so that each event's images are taken apart anew. */
const EVENTS = 16_384;
const SLICE = 64;
const { seconds } = benchOptions(10);

/** `n` is the filter's number: each wants one of a hundred values, or a hundredth of a range. */
const shapes: readonly ((n: number) => string)[] = [
  (n) => `row.customer == ${n % 100}`,
  (n) => `row.region == "region-${n % 100}"`,
  (n) => `row.amount >= ${(n % 100) * 100} && row.amount < ${(n % 100) * 100 + 100}`,
  (n) => `row.account == ${9007199254740993n + BigInt(n % 100)} && row.status != "none"`,
  (n) => `row.customer in [${n % 100}, ${1000 + n}, ${2000 + n}]`,
  (n) => `row.region in ["region-${n % 100}", "nowhere-${n}"] && row.amount >= 0`,
  (n) => `row.email.startsWith("user${n % 100}@")`,
  (n) => `row.email.endsWith("@host${n % 100}.example")`,
  (n) => `has(row.region) && (row.region == "region-${n % 100}" || row.status == "none-${n}")`,
  (n) => `!(row.customer != ${n % 100}) || row.status == "none-${n}"`,
];

const filters = Array.from(
  { length: FILTERS },
  (_, i) => shapes[i % shapes.length]?.(Math.floor(i / shapes.length)) ?? "",
);

function image(seed: number, status: string): Uint8Array {
  const n = seed % 100;
  const row = `{"id":${seed},"customer":${n},"region":"region-${n}","amount":${n * 100 + 50},"account":${9007199254740993n + BigInt(n)},"email":"user${n}@host${n}.example","status":"${status}","note":"${"x".repeat(60)}","at":"2026-01-01T00:00:00.123456+00:00"}`;
  return new TextEncoder().encode(row);
}

/** Changes that leave every filtered column as it was: so that a match is a match before and after. */
function events(withBefore: boolean): readonly Event[] {
  return Array.from({ length: EVENTS }, (_, i) => ({
    version: i + 1,
    topic: "orders",
    key: String(i),
    operation: withBefore ? "UPDATE" : "INSERT",
    before: withBefore ? image(i * 7, "open") : undefined,
    after: image(i * 7, "paid"),
    transaction: "7",
    occurredAtMicros: 0,
    headers: undefined,
  }));
}

/** Events per second of CPU, the median of many slices: what else the machine does hardly counts. */
function measure(list: readonly Event[], look: (event: Event) => number): number {
  const rates: number[] = [];
  let [looked, matched] = [0, 0];
  const end = performance.now() + (seconds / 6) * 1_000;
  while (performance.now() < end || rates.length < 3) {
    const begun = process.cpuUsage();
    for (let i = 0; i < SLICE; i++) {
      matched += look(list[looked++ % list.length] as Event);
    }
    const { user, system } = process.cpuUsage(begun);
    rates.push((SLICE * 1e6) / (user + system));
  }
  const share = matched / looked / FILTERS;
  if (Math.abs(share - 0.01) > 0.001) {
    throw new Error(`${share * 100} % matched instead of 1 %`);
  }
  return percentile(rates, 0.5);
}

/** Every matcher is asked. */
function askEach(event: Event): number {
  let count = 0;
  for (const { view } of matchers) {
    if (view(event) !== undefined) {
      count++;
    }
  }
  return count;
}

/** Those are asked that a dispatcher finds by the values of the row, and those of which it knows no requirement. */
function askFound(): (event: Event) => number {
  const index = new ColumnIndex<Matcher>();
  const others: Matcher[] = [];
  for (const matcher of matchers) {
    const requirement = matcher.interest[0]?.requirement;
    if (requirement === undefined) {
      others.push(matcher);
    } else {
      index.add(matcher, requirement);
    }
  }
  return (event) => {
    // As a lane does, which an event may be offered to twice.
    const wanting = new Set<Matcher>();
    const ask = (matcher: Matcher): void => {
      if (matcher.view(event) !== undefined) {
        wanting.add(matcher);
      }
    };
    index.offer(event, ask);
    others.forEach(ask);
    return wanting.size;
  };
}

/** The same question to the interpreter, with rows that are parsed already. */
function matchedByInterpreter(): (event: Event) => number {
  const env = celEnv();
  const plans = filters.map((filter) => plan(env, parse(filter)));
  const decoder = new TextDecoder();
  const parsed = new Map<Event, ReadonlyMap<string, bigint | string>>();
  return (event) => {
    let row = parsed.get(event);
    if (row === undefined) {
      const text = decoder.decode(event.after);
      const object = JSON.parse(text, (_n, value: unknown, context?: { readonly source?: string }) =>
        typeof value === "number" ? BigInt(context?.source ?? "") : value,
      );
      row = new Map(Object.entries<bigint | string>(object));
      parsed.set(event, row);
    }
    const bindings = { row };
    let count = 0;
    for (const evaluate of plans) {
      if (evaluate(bindings) === true) {
        count++;
      }
    }
    return count;
  };
}

const matchers = filters.map((filter) =>
  compileSelectors([{ topics: ["orders"], keys: [], operations: [], filter, fields: [] }]),
);
const inserts = events(false);
const updates = events(true);
const measurements: Measurement[] = [];
const byInterpreter = { what: "@bufbuild/cel, rows parsed already", value: measure(inserts, matchedByInterpreter()) };
for (const [what, list] of [
  ["INSERT", inserts],
  ["UPDATE with the row before", updates],
] as const) {
  const [asked, found] = [measure(list, askEach), measure(list, askFound())];
  measurements.push(
    { what: `${what}, each filter asked`, value: asked, unit: "events/s", baseline: byInterpreter },
    {
      what: `${what}, filters found by column`,
      value: found,
      unit: "events/s",
      baseline: byInterpreter,
      target: ">= 10 k/s",
      met: found >= 10_000,
    },
  );
}
report(
  "filters",
  measurements,
  "1,000 filters of ten shapes over one topic, 1 % matching, rows of 280 B; events per second of CPU",
);
