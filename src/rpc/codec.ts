import { toJsonString } from "@bufbuild/protobuf";
import { EventSchema, type PayloadForm, PayloadForm as PayloadForms } from "../../gen/millrace/v1/event_pb.js";
import type { SubscribeResponse } from "../../gen/millrace/v1/feed_service_pb.js";
import type { Event } from "../core/event.ts";
import type { LaneCodec } from "../core/lane.ts";
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

/** How the events of one stream become a message. */
export interface EventCodec extends LaneCodec {
  /** Bytes the event takes in a batch, as it will be delivered: after its payloads were omitted, where they are. */
  measure(event: Event): number;
  /** The frame that carries them. */
  batch(events: readonly Event[], cursor: string, complete: boolean): SubscribeResponse;
}

/** What a codec is made for. */
export interface EventCodecOptions {
  readonly form: PayloadForm;
  /** `Opened.max_message_bytes`. An event that does not fit goes without its payloads. */
  readonly maxMessageBytes: number;
}

/**
 * By the request's content type, so that stock Connect need not know: all three protocols name the codec in its suffix.
 */
export function createEventCodec(contentType: string | null, options: EventCodecOptions): EventCodec {
  return /\+json\s*(?:;|$)/i.test(contentType ?? "") ? createJsonCodec(options) : createBinaryCodec(options);
}

function identityOf(codec: string, { form, maxMessageBytes }: EventCodecOptions): string {
  return `${codec} ${form} ${maxMessageBytes}`;
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
  return {
    identity: identityOf("proto", options),
    measure: (event) => fieldSize(event, payloadsOf(event)),
    batch(events, cursor, complete) {
      const payloads = events.map(payloadsOf);
      const sizes = events.map((event, index) => eventBinarySize(event, payloads[index] ?? "whole"));
      let size = cursor === "" ? 0 : lengthFieldSize(Buffer.byteLength(cursor));
      size += complete ? 2 : 0;
      for (const bytes of sizes) {
        size += lengthFieldSize(bytes);
      }
      const data = Buffer.allocUnsafe(varintSize(size) + size);
      let at = writeVarint(data, 0, size);
      for (const [index, event] of events.entries()) {
        at = writeVarint(data, writeByte(data, at, 0x0a), sizes[index] ?? 0);
        at = writeEventBinary(data, at, event, payloads[index] ?? "whole");
      }
      at = cursor === "" ? at : writeTextField(data, at, 0x12, cursor);
      if (complete) {
        writeByte(data, writeByte(data, at, 0x18), 1);
      }
      return {
        $typeName: "millrace.v1.SubscribeResponse",
        frame: { case: undefined },
        $unknown: [{ no: 2, wireType: 2, data }],
      };
    },
  };
}

function createJsonCodec(options: EventCodecOptions): EventCodec {
  // One byte more for the comma between events.
  const size = (event: Event, payloads: Payloads): number =>
    Buffer.byteLength(toJsonString(EventSchema, eventMessage(event, payloads))) + 1;
  const payloadsOf = payloadsBy(size, options);
  return {
    identity: identityOf("json", options),
    measure: (event) => size(event, payloadsOf(event)),
    batch: (events, cursor, complete) => ({
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
    }),
  };
}
