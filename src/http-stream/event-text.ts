import type { Event, Operation, Transition } from "../core/event.ts";
import { headerEntries, textFromImage } from "../rpc/event-fields.ts";

/** One event as people and scripts read it, with its payloads as JSON text. */
export interface ReadableEvent {
  readonly version: number | bigint;
  readonly topic: string;
  readonly key: string | undefined;
  readonly operation: Operation;
  readonly transition: Transition | undefined;
  /** From 2 on, for what is delivered again. */
  readonly attempt: number | undefined;
  readonly before: string | undefined;
  readonly after: string | undefined;
  readonly transaction: string;
  /** Since the Unix epoch; `undefined` when nobody said. */
  readonly occurredAtMicros: number | undefined;
  readonly headers: readonly (readonly [name: string, value: string])[];
  /** The event was too large for its payloads. */
  readonly omitted: boolean;
  /** Everything up to and with this event is whole transactions. */
  readonly complete: boolean;
}

/** What of its payloads an event goes out with. */
export type PayloadChoice = "whole" | "none" | "omitted";

/**
 * The members of an event's JSON object, without the braces. Payloads are spliced in as Postgres wrote them and never parsed:
 * a bigint or a numeric keeps every digit. What an event does not have is left out.
 */
export function eventMembers(event: ReadableEvent): string {
  let text = `"version":${event.version},"topic":${JSON.stringify(event.topic)}`;
  text += event.key === undefined ? "" : `,"key":${JSON.stringify(event.key)}`;
  text += `,"operation":"${event.operation}"`;
  text += event.transition === undefined ? "" : `,"transition":"${event.transition}"`;
  text += event.attempt === undefined ? "" : `,"attempt":${event.attempt}`;
  text += event.before === undefined ? "" : `,"before":${onOneLine(event.before)}`;
  text += event.after === undefined ? "" : `,"after":${onOneLine(event.after)}`;
  text += event.transaction === "" ? "" : `,"transaction":${JSON.stringify(event.transaction)}`;
  text += event.occurredAtMicros === undefined ? "" : `,"occurredAt":"${isoFromMicros(event.occurredAtMicros)}"`;
  text += event.headers.length === 0 ? "" : `,"headers":${JSON.stringify(Object.fromEntries(event.headers))}`;
  text += event.omitted ? ',"payloadOmitted":"TOO_LARGE"' : "";
  return event.complete ? `${text},"complete":true` : text;
}

/** The core's event in that form. */
export function readableEvent(event: Event, payloads: PayloadChoice, complete: boolean): ReadableEvent {
  const { before, after } = event;
  const whole = payloads === "whole";
  return {
    version: event.version,
    topic: event.topic,
    key: event.key,
    operation: event.operation,
    transition: event.transition,
    attempt: event.attempt,
    before: whole && before !== undefined ? textFromImage(before) : undefined,
    after: whole && after !== undefined ? textFromImage(after) : undefined,
    transaction: event.transaction,
    occurredAtMicros: event.occurredAtMicros,
    headers: headerEntries(event.headers),
    omitted: payloads === "omitted" && (before !== undefined || after !== undefined),
    complete,
  };
}

/** ISO 8601 with microseconds, which is what Postgres has. */
export function isoFromMicros(micros: number): string {
  const seconds = Math.floor(micros / 1e6);
  const rest = String(micros - seconds * 1e6).padStart(6, "0");
  return `${new Date(seconds * 1000).toISOString().slice(0, -5)}.${rest}Z`;
}

/** JSON text on one line: outside of strings a line break is only white space, inside it is escaped. */
export function onOneLine(json: string): string {
  return /[\r\n]/.test(json) ? json.replaceAll(/[\r\n]/g, " ") : json;
}
