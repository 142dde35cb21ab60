import { z } from "zod";
import { Operation } from "../../gen/millrace/v1/event_pb.js";
import type { Selector } from "../../gen/millrace/v1/selector_pb.js";

/** As much as is shown of what a subscription selects: four thousand keys are for the server, and not for a model. */
const SHOWN_SELECTORS = 10;
const SHOWN_CHARACTERS = 1_000;

/** A selector as programs get it. */
export const selectorSchema = z.object({
  topics: z.array(z.string()).optional(),
  keys: z.array(z.string()).optional(),
  operations: z.array(z.string()).optional(),
  filter: z.string().optional(),
  fields: z.array(z.string()).optional(),
});

/** One selector, for programs. */
export type SelectorFacts = z.output<typeof selectorSchema>;

/** Selectors without what they leave open, and whether something of them is cut. */
export function selectorFactsFrom(selectors: readonly Selector[]): {
  readonly selectors: SelectorFacts[];
  readonly shortened: boolean;
} {
  let shortened = selectors.length > SHOWN_SELECTORS;
  const cut = (list: readonly string[]): string[] => {
    let left = SHOWN_CHARACTERS;
    const shown = list.filter((item) => {
      left -= item.length;
      return left >= 0;
    });
    shortened ||= shown.length < list.length;
    return shown;
  };
  const cutText = (text: string): string => {
    if (text.length <= SHOWN_CHARACTERS) return text;
    shortened = true;
    return `${text.slice(0, SHOWN_CHARACTERS)}…`;
  };
  const shown = selectors.slice(0, SHOWN_SELECTORS).map(({ topics, keys, operations, filter, fields }) => ({
    ...(topics.length === 0 ? {} : { topics: cut(topics) }),
    ...(keys.length === 0 ? {} : { keys: cut(keys) }),
    ...(operations.length === 0 ? {} : { operations: operations.map((operation) => Operation[operation]) }),
    ...(filter === "" ? {} : { filter: cutText(filter) }),
    ...(fields.length === 0 ? {} : { fields: cut(fields) }),
  }));
  return { selectors: shown, shortened };
}

/** Selectors in a line. */
export function selectorsText(selectors: readonly SelectorFacts[]): string {
  return selectors.length === 0 ? "everything" : selectors.map(selectorText).join(" | ");
}

function selectorText({ topics, keys, operations, filter, fields }: SelectorFacts): string {
  return [
    topics === undefined ? "all topics" : topics.join(", "),
    ...(keys === undefined ? [] : [`keys ${keys.join(", ")}`]),
    ...(operations === undefined ? [] : [operations.join(", ")]),
    ...(filter === undefined ? [] : [`where ${filter}`]),
    ...(fields === undefined ? [] : [`only ${fields.join(", ")}`]),
  ].join("; ");
}
