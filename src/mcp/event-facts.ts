import { type Timestamp, timestampDate } from "@bufbuild/protobuf/wkt";
import { z } from "zod";
import { type Event, Operation, type Payload, PayloadOmitted, Transition } from "../../gen/millrace/v1/event_pb.js";

/**
 * An event as programs get it. Images stay the text that Postgres wrote: as JSON inside this JSON they would pass through the
 * parser of whoever hosts the model, and most of those round numbers of more than 53 bits without a word.
 */
export const eventSchema = z.object({
  version: z.number().int().describe("Place in the total order of all changes"),
  topic: z.string(),
  key: z.string().optional().describe("The row's primary key; absent for TRUNCATE and for some messages"),
  operation: z
    .string()
    .describe(
      "INSERT, UPDATE, DELETE, TRUNCATE, MESSAGE (an application's own event); SNAPSHOT is a row of a snapshot",
    ),
  transition: z
    .string()
    .optional()
    .describe("ENTERED: the row is new to what `filter` selects. LEFT: it does not, or may not, match any more"),
  before: z.string().optional().describe("The row before, as JSON text with every digit of every number"),
  after: z.string().optional().describe("The row after, or a message's payload, as JSON text"),
  transaction: z.string().optional().describe("Changes with the same one committed together"),
  occurred_at: z.string().optional(),
  headers: z.record(z.string(), z.string()).optional(),
  attempt: z.number().int().optional().describe("From 2 on when it was given before and not acknowledged"),
  payload_omitted: z.string().optional().describe("TOO_LARGE: the rows are left out, being larger than `max_bytes`"),
});

/** One event, for programs. */
export type EventFacts = z.output<typeof eventSchema>;

/** What the wire says of an event, without what it leaves unsaid. */
export function eventFactsFrom(event: Event): EventFacts {
  const { version, topic, key, transaction, headers, attempt } = event;
  const before = textOf(event.before);
  const after = textOf(event.after);
  return {
    version: Number(version),
    topic,
    ...(key === undefined ? {} : { key }),
    operation: Operation[event.operation],
    ...(event.transition === Transition.UNSPECIFIED ? {} : { transition: Transition[event.transition] }),
    ...(before === undefined ? {} : { before }),
    ...(after === undefined ? {} : { after }),
    ...(transaction === "" ? {} : { transaction }),
    ...(event.occurredAt === undefined ? {} : { occurred_at: isoTime(event.occurredAt) }),
    ...(Object.keys(headers).length === 0 ? {} : { headers }),
    ...(attempt === 0 ? {} : { attempt }),
    ...(event.payloadOmitted === PayloadOmitted.UNSPECIFIED
      ? {}
      : { payload_omitted: PayloadOmitted[event.payloadOmitted] }),
  };
}

/** An event in a few lines, with its images as they are. */
export function eventText(event: EventFacts): string {
  const { version, topic, key, operation, transition, before, after, occurred_at, headers, attempt } = event;
  const head = [
    `#${version}`,
    operation,
    topic,
    ...(key === undefined ? [] : [`key ${key}`]),
    ...(transition === undefined ? [] : [transition]),
    ...(occurred_at === undefined ? [] : [`at ${occurred_at}`]),
    ...(attempt === undefined ? [] : [`attempt ${attempt}`]),
  ];
  return [
    head.join(" "),
    ...(before === undefined ? [] : [`  before ${before}`]),
    ...(after === undefined ? [] : [`  after  ${after}`]),
    ...(headers === undefined ? [] : [`  headers ${JSON.stringify(headers)}`]),
    ...(event.payload_omitted === undefined ? [] : [`  rows left out: ${event.payload_omitted}`]),
  ].join("\n");
}

/** With microseconds, which is what Postgres has. */
export function isoTime(time: Timestamp): string {
  const micros = String(Math.floor(time.nanos / 1000)).padStart(6, "0");
  return `${timestampDate(time).toISOString().slice(0, 19)}.${micros}Z`;
}

/** On one line: outside of strings a line break is only white space, inside it is escaped. */
function textOf(payload: Payload | undefined): string | undefined {
  return payload?.form.case === "json" ? payload.form.value.replaceAll(/[\r\n]/g, " ") : undefined;
}
