import { stripVTControlCharacters, styleText } from "node:util";
import { type Timestamp, timestampDate } from "@bufbuild/protobuf/wkt";
import { type Event, Operation, PayloadOmitted, Transition } from "../../../gen/millrace/v1/event_pb.js";
import { operationName, payloadText } from "./event-line.ts";

/** How events look to people. */
export interface PrettyOptions {
  readonly colour: boolean;
  /** Columns; longer lines are cut with an ellipsis. */
  readonly width: number;
}

type Style = Parameters<typeof styleText>[0];

const styles: Readonly<Record<Operation, Style>> = {
  [Operation.UNSPECIFIED]: "dim",
  [Operation.INSERT]: "green",
  [Operation.UPDATE]: "yellow",
  [Operation.DELETE]: "red",
  [Operation.TRUNCATE]: "red",
  [Operation.SNAPSHOT]: "cyan",
  [Operation.MESSAGE]: "magenta",
};

/** One event as one line: version, time, operation, topic, key, and as much of the payload as fits. */
export function prettyEvent(event: Event, options: PrettyOptions): string {
  const version = String(event.version).padStart(7);
  const head = `${version}  ${clockTime(event.occurredAt)}  `;
  const operation = operationName(event.operation).padEnd(8);
  const place = `  ${harmless(event.topic)}  ${harmless(event.key ?? "-")}  `;
  const room = Math.max(options.width - head.length - operation.length - place.length, 16);
  const payload = cut(harmless(payloadOf(event)), room);
  const paint = (style: Style, text: string) =>
    options.colour ? styleText(style, text, { validateStream: false }) : text;
  return `${paint("dim", head)}${paint(styles[event.operation], operation)}${place}${paint("dim", payload)}\n`;
}

function payloadOf(event: Event): string {
  if (event.payloadOmitted !== PayloadOmitted.UNSPECIFIED)
    return `(payload omitted: ${PayloadOmitted[event.payloadOmitted]})`;
  if (event.transition === Transition.LEFT) return "(left what the filter selects)";
  return payloadText(event.after) ?? payloadText(event.before) ?? "";
}

function clockTime(time: Timestamp | undefined): string {
  return time === undefined ? "--:--:--.---" : timestampDate(time).toISOString().slice(11, 23);
}

function cut(text: string, room: number): string {
  return text.length <= room ? text : `${text.slice(0, room - 1)}…`;
}

/** What writers put into rows must not move the cursor of whoever watches. */
function harmless(text: string): string {
  return stripVTControlCharacters(text).replaceAll(/\p{Cc}/gu, " ");
}
