import { PayloadForm } from "../../gen/millrace/v1/event_pb.js";
import type { EventsQuery } from "./query.ts";
import { createFrameTextEncoder, type FrameTextEncoder } from "./text-encoder.ts";

/** The same as for calls of gRPC that do not say: whoever changes the transport shall get the same events. */
const DEFAULT_MAX_MESSAGE_BYTES = 4_128_768;
/** Clients choose `max_message_bytes` freely; an encoder that is forgotten here goes on where it is in use. */
const MAX_ENCODERS = 256;

/** One encoder for all streams that want the same bytes. */
export class EncoderPool {
  readonly #encoders = new Map<string, FrameTextEncoder>();

  /** The encoder of what a query asks for. */
  of({ form, request }: EventsQuery): FrameTextEncoder {
    const maxMessageBytes = request.maxMessageBytes === 0 ? DEFAULT_MAX_MESSAGE_BYTES : request.maxMessageBytes;
    const payloads = request.payloadForm !== PayloadForm.NONE;
    const key = `${form.name} ${payloads} ${maxMessageBytes}`;
    const known = this.#encoders.get(key);
    if (known !== undefined) {
      return known;
    }
    if (this.#encoders.size >= MAX_ENCODERS) {
      this.#encoders.clear();
    }
    const made = createFrameTextEncoder({ form, payloads, maxMessageBytes });
    this.#encoders.set(key, made);
    return made;
  }
}
