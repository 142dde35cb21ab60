import { create } from "@bufbuild/protobuf";
import type { Command } from "commander";
import { Operation } from "../../../gen/millrace/v1/event_pb.js";
import { type Selector, SelectorSchema } from "../../../gen/millrace/v1/selector_pb.js";
import { parseTopicPattern } from "../../core/selector/topic.ts";
import { collect, commaList } from "../commands/option-values.ts";
import { usageFailure } from "../failure.ts";

/** Which events a command is about. */
export interface SelectionOptions {
  readonly key?: readonly string[];
  readonly operation?: readonly string[];
  readonly filter?: string;
  readonly fields?: readonly string[];
}

const operations = ["INSERT", "UPDATE", "DELETE", "TRUNCATE", "MESSAGE"] as const;

/** Adds the options. */
export function withSelectionOptions(command: Command): Command {
  return command
    .option("--key <key>", "only this key; may be repeated", collect)
    .option("--operation <name>", `only these: ${operations.join(", ")}; may be repeated`, collect)
    .option("--filter <cel>", "only what this CEL predicate is true of (docs/filters.md)")
    .option("--fields <columns>", "only these columns, separated by commas", commaList);
}

/** The selector that patterns and options stand for. */
export function selectorFromOptions(patterns: readonly string[], options: SelectionOptions): Selector {
  return create(SelectorSchema, {
    topics: patterns.map(checkedPattern),
    keys: [...(options.key ?? [])],
    operations: (options.operation ?? []).map(operation),
    filter: options.filter ?? "",
    fields: [...(options.fields ?? [])],
  });
}

function checkedPattern(text: string): string {
  const parsed = parseTopicPattern(text);
  if ("pattern" in parsed) return text;
  throw usageFailure(`the topic pattern \`${text}\` ${parsed.problem}.`, "Write orders, orders.* or orders.>.");
}

function operation(text: string): Operation {
  const name = operations.find((known) => known === text.toUpperCase());
  if (name !== undefined) return Operation[name];
  throw usageFailure(`\`${text}\` is no operation.`, `Give one of ${operations.join(", ")}.`);
}
