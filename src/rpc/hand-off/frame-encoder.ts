import { promisify } from "node:util";
import { gzip as gzipByCallback, gzipSync } from "node:zlib";
import { toBinary, toJsonString } from "@bufbuild/protobuf";
import { compressedFlag } from "@connectrpc/connect/protocol";
import { SubscribeResponseSchema } from "../../../gen/millrace/v1/feed_service_pb.js";
import { encodeCursor } from "../../core/cursor.ts";
import type { EventsFrame, Frame, SharedFrame } from "../../core/frame.ts";
import { type EventCodec, PREFIX_BYTES, prefixed, writePrefix } from "../codec.ts";
import { responseFromFrame, roomBeside, type StreamTerms } from "../frames.ts";

const gzip = promisify(gzipByCallback);
/** Compressing more than this keeps the event loop for longer than a thread's answer takes. */
const MAX_SYNC_BYTES = 32_768;

/** How the frames of a stream become the bytes that go over the wire, prefix and all. */
export interface FrameEncoder {
  readonly codec: EventCodec;
  /**
   * A promise only where much is compressed. What a lane's frame is made into is made once, whichever stream comes first.
   *
   * @throws FeedError when a frame does not fit what the client takes
   */
  encode(frame: Frame, terms: StreamTerms): Uint8Array | Promise<Uint8Array>;
  /** Compresses the protocol's own last message, as far as this stream's messages are. */
  last(flags: number, message: Uint8Array): Uint8Array;
}

/** What a stream's messages look like. */
export interface FrameEncoderOptions {
  readonly codec: EventCodec;
  readonly json: boolean;
  /** Least bytes of a message that is compressed with gzip; `undefined` when none is. */
  readonly gzipMinBytes: number | undefined;
}

/** Makes the bytes that Connect's own serializer, compression and envelope make. */
export function createFrameEncoder({ codec, json, gzipMinBytes }: FrameEncoderOptions): FrameEncoder {
  const pending = new WeakMap<SharedFrame, Promise<Uint8Array>>();
  const plain = (frame: Frame, terms: StreamTerms): Uint8Array => {
    if (frame.kind === "events") {
      const cursor = encodeCursor(frame.cursor, roomBeside(frame, codec, terms));
      return codec.batchBytes(frame.events, cursor, frame.complete);
    }
    const message = responseFromFrame(frame, codec, terms);
    return json ? prefixed(toJsonString(SubscribeResponseSchema, message)) : prefixedBinary(message);
  };
  const packed = (bytes: Uint8Array, flags: number): Uint8Array | Promise<Uint8Array> => {
    const messageBytes = bytes.length - PREFIX_BYTES;
    if (gzipMinBytes === undefined || messageBytes < gzipMinBytes) {
      return bytes;
    }
    const message = bytes.subarray(PREFIX_BYTES);
    if (messageBytes <= MAX_SYNC_BYTES) {
      return enveloped(flags | compressedFlag, gzipSync(message));
    }
    return gzip(message).then((data) => enveloped(flags | compressedFlag, data));
  };
  const encodeShared = (frame: EventsFrame, shared: SharedFrame, terms: StreamTerms) => {
    const known = shared.bytes ?? pending.get(shared);
    if (known !== undefined) {
      return known;
    }
    const made = packed(plain(frame, terms), 0);
    if (made instanceof Promise) {
      const kept = made.then((bytes) => {
        shared.bytes = bytes;
        return bytes;
      });
      pending.set(shared, kept);
      return kept;
    }
    shared.bytes = made;
    return made;
  };
  return {
    codec,
    encode(frame, terms) {
      const shared = frame.kind === "events" ? frame.shared : undefined;
      return shared !== undefined && frame.kind === "events"
        ? encodeShared(frame, shared, terms)
        : packed(plain(frame, terms), 0);
    },
    last(flags, message) {
      const compress = gzipMinBytes !== undefined && message.length >= gzipMinBytes;
      return compress ? enveloped(flags | compressedFlag, gzipSync(message)) : enveloped(flags, message);
    },
  };
}

function prefixedBinary(message: Parameters<typeof toBinary<typeof SubscribeResponseSchema>>[1]): Uint8Array {
  return enveloped(0, toBinary(SubscribeResponseSchema, message));
}

function enveloped(flags: number, message: Uint8Array): Uint8Array {
  const out = Buffer.allocUnsafe(PREFIX_BYTES + message.length);
  writePrefix(out, message.length);
  out[0] = flags;
  out.set(message, PREFIX_BYTES);
  return out;
}
