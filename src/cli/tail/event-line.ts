import { durationMs, type Timestamp } from "@bufbuild/protobuf/wkt";
import { type Event, Operation, type Payload, PayloadOmitted, Transition } from "../../../gen/millrace/v1/event_pb.js";
import {
  GapReason,
  type Opened,
  StreamState,
  type SubscribeResponse,
} from "../../../gen/millrace/v1/feed_service_pb.js";
import { eventMembers, onOneLine } from "../../http-stream/event-text.ts";
import { frameFields, type ToldFrame, type ToldTerms } from "../../http-stream/frame-text.ts";
import { NDJSON } from "../../http-stream/text-form.ts";
import { operationFromWire } from "../../rpc/event-fields.ts";

/**
 * One event as one line of JSON, the same that `/v1/events` gives. Payloads are spliced in as the server sent them and never
 * parsed: a bigint or a numeric keeps every digit.
 *
 * @param cursor - resumes exactly after it; `undefined` where that is not known
 * @param complete - everything up to here is whole transactions
 */
export function eventLine(event: Event, cursor: string | undefined, complete = false): string {
  const members = eventMembers({
    version: event.version,
    topic: event.topic,
    key: event.key,
    operation: operationFromWire(event.operation) ?? "MESSAGE",
    transition: transitionOf(event),
    attempt: event.attempt === 0 ? undefined : event.attempt,
    before: payloadText(event.before),
    after: payloadText(event.after),
    transaction: event.transaction,
    occurredAtMicros: event.occurredAt === undefined ? undefined : microsOf(event.occurredAt),
    headers: Object.entries(event.headers),
    omitted: event.payloadOmitted === PayloadOmitted.TOO_LARGE,
    complete,
  });
  return cursor === undefined ? `{${members}}\n` : NDJSON.change(members, cursor);
}

/** A frame other than events as one line of JSON, told apart from events by its `frame`. */
export function frameLine(response: SubscribeResponse): string | undefined {
  const { value } = response.frame;
  const told = toldFrame(response);
  if (told === undefined || value === undefined || !("cursor" in value)) return undefined;
  const terms =
    response.frame.case === "opened" ? termsOf(response.frame.value) : { checkpointIntervalMs: 0, maxAgeMs: 0 };
  return NDJSON.other(told.kind, frameFields(told, terms), value.cursor);
}

/** The JSON text of a payload on one line: outside of strings a line break is only white space, inside it is escaped. */
export function payloadText(payload: Payload | undefined): string | undefined {
  return payload?.form.case === "json" ? onOneLine(payload.form.value) : undefined;
}

/** `INSERT`, `UPDATE`, … */
export function operationName(operation: Operation): string {
  return Operation[operation];
}

function toldFrame({ frame }: SubscribeResponse): ToldFrame | undefined {
  switch (frame.case) {
    case "opened":
      return openedOf(frame.value);
    case "checkpoint": {
      const { version, state, lagVersions, lag, time, progress } = frame.value;
      return {
        kind: "checkpoint",
        version: Number(version),
        state: StreamState[state],
        lagVersions: numberOf(lagVersions),
        lagMs: lag === undefined ? undefined : durationMs(lag),
        timeMicros: time === undefined ? undefined : microsOf(time),
        progress: progress && { rows: Number(progress.rows), estimatedRows: numberOf(progress.estimatedRows) },
      };
    }
    case "gap": {
      const { firstVersion, lastVersion, dropped, reason } = frame.value;
      const range = { firstVersion: Number(firstVersion), lastVersion: Number(lastVersion) };
      return { kind: "gap", ...range, dropped: numberOf(dropped), reason: GapReason[reason] };
    }
    case "snapshotStarted": {
      const { version, restart, resumed, topics, estimatedRows } = frame.value;
      const about = numberOf(estimatedRows);
      return { kind: "snapshot_started", version: Number(version), restart, resumed, topics, estimatedRows: about };
    }
    case "snapshotComplete":
      return { kind: "snapshot_complete", version: Number(frame.value.version), rows: Number(frame.value.rows) };
    default:
      return undefined;
  }
}

function openedOf({ epoch, version, headVersion, oldestVersion, streamId, lease }: Opened): ToldFrame {
  return {
    kind: "opened",
    ...{ epoch, streamId, version: Number(version), head: Number(headVersion), oldest: Number(oldestVersion) },
    lease: lease && {
      subscriptionId: lease.subscriptionId,
      generation: Number(lease.generation),
      member: lease.member === "" ? undefined : lease.member,
      maxInFlight: lease.maxInFlight === 0 ? undefined : lease.maxInFlight,
    },
  };
}

function termsOf({ checkpointInterval, maxAge }: Opened): ToldTerms {
  return {
    checkpointIntervalMs: checkpointInterval === undefined ? 0 : durationMs(checkpointInterval),
    maxAgeMs: maxAge === undefined ? 0 : durationMs(maxAge),
  };
}

function numberOf(value: bigint | undefined): number | undefined {
  return value === undefined ? undefined : Number(value);
}

/** `undefined` for what moves across no border. */
function transitionOf({ transition }: Event): "ENTERED" | "LEFT" | undefined {
  if (transition === Transition.UNSPECIFIED) return undefined;
  return transition === Transition.ENTERED ? "ENTERED" : "LEFT";
}

function microsOf({ seconds, nanos }: Timestamp): number {
  return Number(seconds) * 1e6 + Math.floor(nanos / 1000);
}
