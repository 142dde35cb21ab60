import { create } from "@bufbuild/protobuf";
import { z } from "zod";
import { Operation, PayloadForm } from "../../gen/millrace/v1/event_pb.js";
import { type Selector, SelectorSchema } from "../../gen/millrace/v1/selector_pb.js";
import { FeedError } from "../core/errors.ts";

const operations = ["INSERT", "UPDATE", "DELETE", "TRUNCATE", "MESSAGE"] as const;

/** The arguments that choose events, of two tools. What is left out lets everything pass. */
export const selectionShape = {
  topics: z
    .array(z.string())
    .max(256)
    .optional()
    .describe(
      "Resource types, as topic patterns, any of which may match: `orders` is that topic alone, `orders.*` has one more token, `orders.>` one or more. A watched table's topic is its name unless it was given another. Leave out for all.",
    ),
  keys: z
    .array(z.string())
    .max(4096)
    .optional()
    .describe(
      'Only these rows: the primary key as text, `"42"`; of several columns a JSON array of their values, `["eu",42]`, as text.',
    ),
  operations: z.array(z.enum(operations)).optional().describe("Only these kinds of change. Leave out for all."),
  filter: z
    .string()
    .optional()
    .describe(
      'A predicate in CEL (Common Expression Language). On `row` it chooses rows, and a change that moves a row in or out of the set says so (`transition` ENTERED or LEFT): `row.status == "paid" && row.total > 100`, `row.region in ["eu", "us"]`, `row.email.endsWith("@example.com")`, `has(row.deleted_at)`. On `before`, `after` and `event` it chooses changes: `before.status != after.status`, `event.operation == "DELETE"`, `event.key.startsWith("eu-")`. Strings in double quotes; timestamps as timestamp(row.created_at) > timestamp("2026-01-01T00:00:00Z").',
    ),
  fields: z
    .array(z.string())
    .max(1024)
    .optional()
    .describe(
      "Only these columns of each row, to save room: `id`, `status`, `address.city`. Leave out for whole rows.",
    ),
};

const asThere = "As in subscribe_changes, without a subscription.";

/** The same where it is not told again: whatever describes a tool is read by every model that has it. */
export const briefSelectionShape = {
  topics: selectionShape.topics.describe(asThere),
  keys: selectionShape.keys.describe(asThere),
  operations: selectionShape.operations.describe(asThere),
  filter: selectionShape.filter.describe(asThere),
  fields: selectionShape.fields.describe(asThere),
};

/** Whether to have the rows themselves. */
export const includeData = z
  .boolean()
  .describe("Whether events carry the row before and after. false: only topic, key, operation and version.");

/** What a caller chose. */
export interface Selection {
  readonly topics?: readonly string[] | undefined;
  readonly keys?: readonly string[] | undefined;
  readonly operations?: readonly (typeof operations)[number][] | undefined;
  readonly filter?: string | undefined;
  readonly fields?: readonly string[] | undefined;
}

/** As the request has it; none when everything is wanted. */
export function selectorsOf({ topics, keys, operations, filter, fields }: Selection): Selector[] {
  const selector = create(SelectorSchema, {
    topics: [...(topics ?? [])],
    keys: [...(keys ?? [])],
    operations: (operations ?? []).map((name) => Operation[name]),
    filter: filter ?? "",
    fields: [...(fields ?? [])],
  });
  const empty = [topics, keys, operations, fields].every((list) => list === undefined || list.length === 0);
  return empty && selector.filter === "" ? [] : [selector];
}

/** The form that payloads take. */
export function payloadFormOf(withData: boolean): PayloadForm {
  return withData ? PayloadForm.JSON : PayloadForm.NONE;
}

/** INVALID_REQUEST for one argument. */
export function wrongArgument(field: string, message: string, action: string): FeedError {
  return new FeedError("INVALID_REQUEST", `\`${field}\` ${message}.`, action);
}
