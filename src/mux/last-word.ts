import { constants } from "node:http2";
import { frameType, HEAD_BYTES, putHead } from "./frame.ts";

/** nghttp2's own errors, which sessions are destroyed with, and what it says of each on the wire. Others are internal. */
const wireCodes: ReadonlyMap<number, number> = new Map([
  [-505, constants.NGHTTP2_PROTOCOL_ERROR],
  [-510, constants.NGHTTP2_STREAM_CLOSED],
  [-522, constants.NGHTTP2_FRAME_SIZE_ERROR],
  [-523, constants.NGHTTP2_COMPRESSION_ERROR],
  [-524, constants.NGHTTP2_FLOW_CONTROL_ERROR],
  [-531, constants.NGHTTP2_PROTOCOL_ERROR],
  [-532, constants.NGHTTP2_PROTOCOL_ERROR],
  [-533, constants.NGHTTP2_REFUSED_STREAM],
]);

/** The error code of the GOAWAY that a session sends as it is destroyed with these arguments. */
export function codeOfDestroy(error: unknown, code: number | undefined): number {
  if (typeof error === "number") {
    return error;
  }
  if (code !== undefined || error === undefined || error === null) {
    return code ?? constants.NGHTTP2_NO_ERROR;
  }
  const errno = typeof error === "object" && "errno" in error ? error.errno : undefined;
  return (typeof errno === "number" ? wireCodes.get(errno) : undefined) ?? constants.NGHTTP2_INTERNAL_ERROR;
}

/** A GOAWAY without more than its code. */
export function goaway(lastStreamId: number, code: number): Buffer {
  const frame = Buffer.alloc(HEAD_BYTES + 8);
  putHead(frame, 0, 8, frameType.goaway, 0, 0);
  frame.writeUInt32BE(lastStreamId, HEAD_BYTES);
  frame.writeUInt32BE(code, HEAD_BYTES + 4);
  return frame;
}
