import { type Timestamp, timestampDate } from "@bufbuild/protobuf/wkt";
import { type Event, Operation, type Payload, PayloadOmitted, Transition } from "../../../gen/millrace/v1/event_pb.js";
import { GapReason, StreamState, type SubscribeResponse } from "../../../gen/millrace/v1/feed_service_pb.js";

/**
 * One event as one line of JSON. Payloads are spliced in as the server sent them and never parsed: a bigint or a numeric
 * keeps every digit. `cursor` only where one belongs exactly to this event: at the end of a batch.
 */
export function eventLine(event: Event, cursor: string | undefined): string {
  const fields = [
    field("version", String(event.version)),
    field("topic", JSON.stringify(event.topic)),
    ...optional("key", event.key === undefined ? undefined : JSON.stringify(event.key)),
    field("operation", JSON.stringify(operationName(event.operation))),
    ...optional("transition", transitionName(event)),
    ...optional("before", payloadText(event.before)),
    ...optional("after", payloadText(event.after)),
    ...optional("transaction", event.transaction === "" ? undefined : JSON.stringify(event.transaction)),
    ...optional("occurredAt", isoTime(event.occurredAt)),
    ...optional("headers", Object.keys(event.headers).length === 0 ? undefined : JSON.stringify(event.headers)),
    ...optional("payloadOmitted", omission(event.payloadOmitted)),
    ...optional("cursor", cursor === undefined ? undefined : JSON.stringify(cursor)),
  ];
  return `{${fields.join(",")}}\n`;
}

/** A frame other than events as one line of JSON, told apart from events by its `frame`. */
export function frameLine({ frame }: SubscribeResponse): string | undefined {
  switch (frame.case) {
    case "opened": {
      const { epoch, version, cursor, headVersion, oldestVersion } = frame.value;
      return line("opened", { epoch, version, cursor, headVersion, oldestVersion });
    }
    case "checkpoint": {
      const { cursor, version, state, lagVersions, progress } = frame.value;
      const { rows, estimatedRows } = progress ?? {};
      return line("checkpoint", { cursor, version, state: StreamState[state], lagVersions, rows, estimatedRows });
    }
    case "gap": {
      const { firstVersion, lastVersion, dropped, reason, cursor } = frame.value;
      return line("gap", { firstVersion, lastVersion, dropped, reason: GapReason[reason], cursor });
    }
    case "snapshotStarted": {
      const { version, cursor, restart, resumed, topics, estimatedRows } = frame.value;
      return line("snapshot_started", { version, cursor, restart, resumed, topics, estimatedRows });
    }
    case "snapshotComplete": {
      const { version, cursor, rows } = frame.value;
      return line("snapshot_complete", { version, cursor, rows });
    }
    default:
      return undefined;
  }
}

/** The JSON text of a payload on one line: outside of strings a line break is only white space, inside it is escaped. */
export function payloadText(payload: Payload | undefined): string | undefined {
  return payload?.form.case === "json" ? payload.form.value.replaceAll(/[\r\n]/g, " ") : undefined;
}

/** `INSERT`, `UPDATE`, … */
export function operationName(operation: Operation): string {
  return Operation[operation];
}

/** `ENTERED` or `LEFT`, quoted; `undefined` for what moves across no border. */
function transitionName({ transition }: Event): string | undefined {
  return transition === Transition.UNSPECIFIED ? undefined : JSON.stringify(Transition[transition]);
}

function line(frame: string, fields: Readonly<Record<string, unknown>>): string {
  const numbered = (_key: string, value: unknown) => (typeof value === "bigint" ? Number(value) : value);
  return `${JSON.stringify({ frame, ...fields }, numbered)}\n`;
}

function field(name: string, json: string): string {
  return `"${name}":${json}`;
}

function optional(name: string, json: string | undefined): readonly string[] {
  return json === undefined ? [] : [field(name, json)];
}

function omission(omitted: PayloadOmitted): string | undefined {
  return omitted === PayloadOmitted.UNSPECIFIED ? undefined : JSON.stringify(PayloadOmitted[omitted]);
}

/** With microseconds, which is what Postgres has; Date has only milliseconds. */
function isoTime(time: Timestamp | undefined): string | undefined {
  if (time === undefined) return undefined;
  const micros = String(Math.floor(time.nanos / 1000)).padStart(6, "0");
  return `"${timestampDate(time).toISOString().slice(0, 19)}.${micros}Z"`;
}
