import { create } from "@bufbuild/protobuf";
import { type Timestamp, TimestampSchema } from "@bufbuild/protobuf/wkt";
import {
  EventSchema,
  type Payload,
  PayloadOmitted,
  PayloadSchema,
  type Event as WireEvent,
} from "../../gen/millrace/v1/event_pb.js";
import type { Event, Image } from "../core/event.ts";
import type { Payloads } from "./event-binary.ts";
import { headerEntries, operationNumbers, textFromImage, transitionNumbers } from "./event-fields.ts";

/** An event as the message that the JSON codec serializes. */
export function eventMessage(event: Event, payloads: Payloads): WireEvent {
  return create(EventSchema, {
    version: BigInt(event.version),
    topic: event.topic,
    operation: operationNumbers[event.operation],
    transaction: event.transaction,
    occurredAt: timestampFromMicros(event.occurredAtMicros),
    headers: Object.fromEntries(headerEntries(event.headers)),
    payloadOmitted: payloads === "omitted" ? PayloadOmitted.TOO_LARGE : PayloadOmitted.UNSPECIFIED,
    ...(event.transition === undefined ? {} : { transition: transitionNumbers[event.transition] }),
    ...(event.attempt === undefined ? {} : { attempt: event.attempt }),
    ...(event.key === undefined ? {} : { key: event.key }),
    ...(payloads === "whole" && event.before !== undefined ? { before: payload(event.before) } : {}),
    ...(payloads === "whole" && event.after !== undefined ? { after: payload(event.after) } : {}),
  });
}

/** Microseconds since the Unix epoch, also before it. */
export function timestampFromMicros(micros: number): Timestamp {
  const seconds = Math.floor(micros / 1e6);
  return create(TimestampSchema, { seconds: BigInt(seconds), nanos: (micros - seconds * 1e6) * 1000 });
}

function payload(image: Image): Payload {
  return create(PayloadSchema, { form: { case: "json", value: textFromImage(image) } });
}
