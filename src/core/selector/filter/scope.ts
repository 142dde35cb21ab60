import type { Event } from "../../event.ts";
import { type Bindings, type CelType, type CelValue, mapOf, scalarType, timestampOf, timestampType } from "./cel.ts";
import type { Row } from "./row.ts";

/** The variables of a filter. */
export type Variable = "row" | "before" | "after" | "event";

/** What a filter looks at. */
export interface Scope {
  readonly row: Row | undefined;
  readonly before: Row | undefined;
  readonly after: Row | undefined;
  readonly event: Event | undefined;
}

interface EventField {
  readonly type: CelType;
  /** `undefined` when this event has none. */
  readonly read: (event: Event) => CelValue | undefined;
}

/** What `event` has, by the names of the wire. */
export const eventFields: ReadonlyMap<string, EventField> = new Map<string, EventField>([
  ["version", { type: scalarType.INT, read: ({ version }) => BigInt(version) }],
  ["topic", { type: scalarType.STRING, read: ({ topic }) => topic }],
  ["key", { type: scalarType.STRING, read: ({ key }) => key }],
  ["operation", { type: scalarType.STRING, read: ({ operation }) => operation }],
  ["transaction", { type: scalarType.STRING, read: ({ transaction }) => transaction }],
  ["occurred_at", { type: timestampType, read: ({ occurredAtMicros }) => timestampOf(occurredAtMicros) }],
  ["headers", { type: scalarType.DYN, read: ({ headers }) => headersOf(headers) }],
]);

const decoder = new TextDecoder();

/** As on the wire: a value that is no string counts as its JSON text. */
function headersOf(headers: Event["headers"]): CelValue {
  const parsed: unknown = headers === undefined ? {} : JSON.parse(decoder.decode(headers));
  if (typeof parsed !== "object" || parsed === null) {
    return mapOf([]);
  }
  return mapOf(
    Object.entries(parsed).map(([name, value]) => [name, typeof value === "string" ? value : JSON.stringify(value)]),
  );
}

function wholeEvent(event: Event): CelValue {
  const entries: [string, CelValue][] = [];
  for (const [name, { read }] of eventFields) {
    const value = read(event);
    if (value !== undefined) {
      entries.push([name, value]);
    }
  }
  return mapOf(entries);
}

/** The scope for the interpreter. An image that is not there is null. */
export function bindingsOf(scope: Scope): Bindings {
  return {
    get row() {
      return scope.row?.whole ?? null;
    },
    get before() {
      return scope.before?.whole ?? null;
    },
    get after() {
      return scope.after?.whole ?? null;
    },
    get event() {
      return scope.event === undefined ? null : wholeEvent(scope.event);
    },
  };
}
