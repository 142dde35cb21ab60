import type { Event } from "../../src/core/event.ts";
import type { Selector } from "../../src/core/selector/selector.ts";
import type { SeenEvent } from "../support/checker/seen.ts";
import { rowsThat, type Selection } from "../support/checker/selection.ts";

/** What streams are asked for, and what it means: the one for the feed, the other for the checker. */
export interface Want extends Selection {
  readonly selectors: readonly Selector[];
  /** It lets changes of its rows through: so a copy of them can be kept. */
  readonly keepsRows?: false;
}

/** Rows of these lie in sources; the second one's topics are `parcels.eu` and `parcels.us`. */
export const SOURCES = ["orders", "parcels.{region}"] as const;

const ANY = { topics: [], keys: [], operations: [] } as const;
const whole = (holds: (event: SeenEvent) => boolean) => (event: SeenEvent) => (holds(event) ? event : undefined);
const numberIn = (row: string): number => Number(/"n":(\d+)/.exec(row)?.[1] ?? Number.NaN);
const onParcels = ({ topic }: SeenEvent) => topic === "parcels.eu" || topic === "parcels.us";

export const WANTS: readonly Want[] = [
  { name: "everything", everything: true, selectors: [], see: (event) => event },
  {
    name: "orders",
    everything: false,
    selectors: [{ ...ANY, topics: ["orders"] }],
    see: whole(({ topic }) => topic === "orders"),
  },
  {
    name: "parcels",
    everything: false,
    selectors: [{ ...ANY, topics: ["parcels.*"] }],
    // A TRUNCATE of the source is on its template, which the pattern covers like each of its topics.
    see: whole((event) => onParcels(event) || event.topic === "parcels.{region}"),
  },
  {
    name: "two keys",
    everything: false,
    selectors: [{ ...ANY, keys: ["k1", "k2"] }],
    see: whole(({ key, operation }) => key === "k1" || key === "k2" || operation === "TRUNCATE"),
  },
  {
    name: "large orders",
    everything: false,
    selectors: [{ ...ANY, topics: ["orders"], filter: "row.n > 60" }],
    see: (event) => (event.topic === "orders" ? rowsThat((row) => numberIn(row) > 60, event) : undefined),
  },
  { name: "nothing", everything: false, selectors: [{ ...ANY, topics: ["nobody"] }], see: () => undefined },
  {
    name: "what comes and goes",
    everything: false,
    selectors: [{ ...ANY, operations: ["INSERT", "DELETE"] }],
    keepsRows: false,
    see: whole(({ operation }) => operation === "INSERT" || operation === "DELETE"),
  },
  {
    name: "notes and some parcels",
    everything: false,
    selectors: [
      { ...ANY, topics: ["notes"] },
      { ...ANY, topics: ["parcels.eu"], filter: "row.n % 2 == 0" },
    ],
    see: (event) => {
      if (event.topic === "notes") return event;
      if (event.topic === "parcels.{region}") return event;
      return event.topic === "parcels.eu" ? rowsThat((row) => numberIn(row) % 2 === 0, event) : undefined;
    },
  },
  {
    name: "numbers of orders",
    everything: false,
    selectors: [{ ...ANY, topics: ["orders"], fields: ["n"] }],
    see: (event) => {
      if (event.topic !== "orders") return undefined;
      return { ...event, before: cutToNumber(event.before), after: cutToNumber(event.after) };
    },
  },
];

function cutToNumber(row: string | undefined): string | undefined {
  return row === undefined ? undefined : `{"n":${numberIn(row)}}`;
}

const decoder = new TextDecoder();
const known = new WeakMap<Event, SeenEvent>();

/** An event in the checker's words. */
export function seenOf(event: Event): SeenEvent {
  let seen = known.get(event);
  if (seen === undefined) {
    const { before, after, headers, transition, ...rest } = event;
    const text = (image: Uint8Array | undefined) => (image === undefined ? undefined : decoder.decode(image));
    seen = { ...rest, before: text(before), after: text(after), headers: text(headers), transition };
    known.set(event, seen);
  }
  return seen;
}

/** What an event counts for in a batch: for the feed... */
export function measure({ topic, key, before, after }: Event): number {
  return 50 + topic.length + (key?.length ?? 0) + (before?.length ?? 0) + (after?.length ?? 0);
}

/** ...and for the checker. */
export function sizeOf({ topic, key, before, after }: SeenEvent): number {
  return 50 + topic.length + (key?.length ?? 0) + (before?.length ?? 0) + (after?.length ?? 0);
}
