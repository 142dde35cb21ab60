import type { PayloadForm } from "../../../gen/millrace/v1/event_pb.js";
import { createEventCodec, speaksJson } from "../codec.ts";
import { createFrameEncoder, type FrameEncoder } from "./frame-encoder.ts";

/** Clients choose `max_message_bytes` freely; an encoder that is forgotten here goes on where it is in use. */
const MAX_ENCODERS = 256;

/** What a call has settled on. */
export interface EncoderTerms {
  readonly contentType: string | null;
  readonly form: PayloadForm;
  readonly maxMessageBytes: number;
  /** Least bytes of a message that is compressed with gzip; `undefined` when none is. */
  readonly gzipMinBytes: number | undefined;
}

/** One encoder for all streams that want the same bytes: thousands of idle ones shall not have one each. */
export class EncoderPool {
  readonly #encoders = new Map<string, FrameEncoder>();

  /** The encoder of these terms. */
  of({ contentType, form, maxMessageBytes, gzipMinBytes }: EncoderTerms): FrameEncoder {
    const json = speaksJson(contentType);
    const key = `${json} ${form} ${maxMessageBytes} ${gzipMinBytes}`;
    const known = this.#encoders.get(key);
    if (known !== undefined) {
      return known;
    }
    if (this.#encoders.size >= MAX_ENCODERS) {
      this.#encoders.clear();
    }
    const codec = createEventCodec(contentType, { form, maxMessageBytes, gzip: gzipMinBytes !== undefined });
    const encoder = createFrameEncoder({ codec, json, gzipMinBytes });
    this.#encoders.set(key, encoder);
    return encoder;
  }
}
