import { toJsonString } from "@bufbuild/protobuf";
import { EventSchema, type PayloadForm, PayloadForm as PayloadForms } from "../../gen/millrace/v1/event_pb.js";
import {
  type PollResponse,
  type SubscribeResponse,
  SubscribeResponseSchema,
} from "../../gen/millrace/v1/feed_service_pb.js";
import type { Event } from "../core/event.ts";
import type { LaneCodec } from "../core/lane/lane.ts";
import { eventBytes } from "../core/page.ts";
import {
  eventBinarySize,
  lengthFieldSize,
  type Payloads,
  varintSize,
  writeByte,
  writeEventBinary,
  writeTextField,
  writeVarint,
} from "./event-binary.ts";
import { eventMessage } from "./event-message.ts";

/**
 * What a message of events has around them, at most: the 5 bytes of the transport's frame, `SubscribeResponse.events`,
 * `EventBatch.cursor` and `complete`, in the wordier of the two codecs.
 */
export const ENVELOPE_BYTES = 256;

/** What precedes each message on the wire, the same in all three protocols: a byte of flags, and the length in four. */
export const PREFIX_BYTES = 5;

/** How the events of one stream become a message. */
export interface EventCodec extends LaneCodec {
  /** Bytes the event takes in a batch, as it will be delivered: after its payloads were omitted, where they are. */
  measure(event: Event): number;
  /** The frame that carries them. */
  batch(events: readonly Event[], cursor: string, complete: boolean): SubscribeResponse;
  /** The same frame as it goes over the wire: its message behind a prefix, not compressed. */
  batchBytes(events: readonly Event[], cursor: string, complete: boolean): Uint8Array;
  /** The fields of a `PollResponse` that are its events. */
  page(events: readonly Event[]): Pick<PollResponse, "events" | "$unknown">;
}

/** What a codec is made for. */
export interface EventCodecOptions {
  readonly form: PayloadForm;
  /** `Opened.max_message_bytes`. An event that does not fit goes without its payloads. */
  readonly maxMessageBytes: number;
  /** Whether messages are compressed afterwards: such streams do not want the same bytes as others. Default false. */
  readonly gzip?: boolean;
}

/** Whether the call speaks JSON, which all three protocols say in the suffix of its content type. */
export function speaksJson(contentType: string | null): boolean {
  return /\+json\s*(?:;|$)/i.test(contentType ?? "");
}

/** Writes the prefix of a message of so many bytes that is not compressed. */
export function writePrefix(out: Buffer, messageBytes: number): void {
  out[0] = 0;
  out.writeUInt32BE(messageBytes, 1);
}

/**
 * By the request's content type, so that stock Connect need not know.
 */
export function createEventCodec(contentType: string | null, options: EventCodecOptions): EventCodec {
  return speaksJson(contentType) ? createJsonCodec(options) : createBinaryCodec(options);
}

function identityOf(codec: string, { form, maxMessageBytes, gzip }: EventCodecOptions): string {
  return `${codec} ${form} ${maxMessageBytes}${gzip === true ? " gzip" : ""}`;
}

function payloadsBy(size: (event: Event, payloads: Payloads) => number, options: EventCodecOptions) {
  const maxEventBytes = options.maxMessageBytes - ENVELOPE_BYTES;
  return (event: Event): Payloads => {
    if (options.form === PayloadForms.NONE) {
      return "none";
    }
    const hasPayload = event.before !== undefined || event.after !== undefined;
    // No codec makes more than six bytes of one: nearly every event needs no exact look.
    if (!hasPayload || eventBytes(event) * 6 <= maxEventBytes) {
      return "whole";
    }
    return size(event, "whole") > maxEventBytes ? "omitted" : "whole";
  };
}

/**
 * protobuf-es writes unknown fields as they are. So the batch, encoded by hand, travels as an "unknown" field 2 through
 * Connect's own serializer, envelope, compression and flow control; a client sees nothing but the field `events`.
 */
function createBinaryCodec(options: EventCodecOptions): EventCodec {
  const fieldSize = (event: Event, payloads: Payloads): number => lengthFieldSize(eventBinarySize(event, payloads));
  const payloadsOf = payloadsBy(fieldSize, options);
  const layOut = (events: readonly Event[], cursor: string, complete: boolean): BatchLayout => {
    const payloads = events.map(payloadsOf);
    const sizes = events.map((event, index) => eventBinarySize(event, payloads[index] ?? "whole"));
    let bytes = cursor === "" ? 0 : lengthFieldSize(Buffer.byteLength(cursor));
    bytes += complete ? 2 : 0;
    for (const size of sizes) {
      bytes += lengthFieldSize(size);
    }
    return { events, payloads, sizes, cursor, complete, bytes };
  };
  return {
    identity: identityOf("proto", options),
    measure: (event) => fieldSize(event, payloadsOf(event)),
    batch(events, cursor, complete) {
      const layout = layOut(events, cursor, complete);
      const data = Buffer.allocUnsafe(varintSize(layout.bytes) + layout.bytes);
      writeBatch(data, 0, layout);
      return {
        $typeName: "millrace.v1.SubscribeResponse",
        frame: { case: undefined },
        $unknown: [{ no: 2, wireType: 2, data }],
      };
    },
    batchBytes(events, cursor, complete) {
      const layout = layOut(events, cursor, complete);
      const messageBytes = lengthFieldSize(layout.bytes);
      const out = Buffer.allocUnsafe(PREFIX_BYTES + messageBytes);
      writePrefix(out, messageBytes);
      writeBatch(out, writeByte(out, PREFIX_BYTES, 0x12), layout);
      return out;
    },
    page(events) {
      if (events.length === 0) {
        return { events: [] };
      }
      // Events have the same number in both messages, and nothing else is in this batch: behind its length and the first tag
      // it is what a field 1 of a page goes on with.
      const layout = layOut(events, "", false);
      const lengthBytes = varintSize(layout.bytes);
      const data = Buffer.allocUnsafe(lengthBytes + layout.bytes);
      writeBatch(data, 0, layout);
      return { events: [], $unknown: [{ no: 1, wireType: 2, data: data.subarray(lengthBytes + 1) }] };
    },
  };
}

/** A batch whose size is known. */
interface BatchLayout {
  readonly events: readonly Event[];
  readonly payloads: readonly Payloads[];
  readonly sizes: readonly number[];
  readonly cursor: string;
  readonly complete: boolean;
  /** Of the message `EventBatch`. */
  readonly bytes: number;
}

/** Writes the length of the message `EventBatch`, and then the message. */
function writeBatch(out: Buffer, start: number, layout: BatchLayout): void {
  const { events, payloads, sizes, cursor, complete, bytes } = layout;
  let at = writeVarint(out, start, bytes);
  for (const [index, event] of events.entries()) {
    at = writeVarint(out, writeByte(out, at, 0x0a), sizes[index] ?? 0);
    at = writeEventBinary(out, at, event, payloads[index] ?? "whole");
  }
  at = cursor === "" ? at : writeTextField(out, at, 0x12, cursor);
  if (complete) {
    writeByte(out, writeByte(out, at, 0x18), 1);
  }
}

function createJsonCodec(options: EventCodecOptions): EventCodec {
  // One byte more for the comma between events.
  const size = (event: Event, payloads: Payloads): number =>
    Buffer.byteLength(toJsonString(EventSchema, eventMessage(event, payloads))) + 1;
  const payloadsOf = payloadsBy(size, options);
  const batch: EventCodec["batch"] = (events, cursor, complete) => ({
    $typeName: "millrace.v1.SubscribeResponse",
    frame: {
      case: "events",
      value: {
        $typeName: "millrace.v1.EventBatch",
        events: events.map((event) => eventMessage(event, payloadsOf(event))),
        cursor,
        complete,
      },
    },
  });
  return {
    identity: identityOf("json", options),
    measure: (event) => size(event, payloadsOf(event)),
    batch,
    batchBytes(events, cursor, complete) {
      return prefixed(toJsonString(SubscribeResponseSchema, batch(events, cursor, complete)));
    },
    page: (events) => ({ events: events.map((event) => eventMessage(event, payloadsOf(event))) }),
  };
}

/** A message in JSON, behind its prefix. */
export function prefixed(json: string): Uint8Array {
  const messageBytes = Buffer.byteLength(json);
  const out = Buffer.allocUnsafe(PREFIX_BYTES + messageBytes);
  writePrefix(out, messageBytes);
  out.write(json, PREFIX_BYTES, "utf8");
  return out;
}
