import { PayloadForm } from "../../gen/millrace/v1/event_pb.js";
import type { SubscribeRequest } from "../../gen/millrace/v1/feed_service_pb.js";
import { DEFAULT_MAX_MESSAGE_BYTES } from "../rpc/stream-request.ts";
import { createFrameTextEncoder, type FrameTextEncoder } from "./text-encoder.ts";
import type { TextForm } from "./text-form.ts";

/** Clients choose `max_message_bytes` freely; an encoder that is forgotten here goes on where it is in use. */
const MAX_ENCODERS = 256;

/** One encoder for all streams that want the same bytes. */
export class EncoderPool {
  readonly #encoders = new Map<string, FrameTextEncoder>();

  /** The encoder of what is asked for, with the limits of calls by gRPC: whoever changes the transport gets the same. */
  of(form: TextForm, request: SubscribeRequest): FrameTextEncoder {
    const maxMessageBytes = request.maxMessageBytes || DEFAULT_MAX_MESSAGE_BYTES;
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
