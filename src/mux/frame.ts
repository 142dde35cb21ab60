/** Bytes before the payload of every HTTP/2 frame. */
export const HEAD_BYTES = 9;
/** Largest payload that is sent: every peer takes this much (RFC 9113, 4.2), and longer frames would delay the others. */
export const PAYLOAD_MAX = 16_384;
/** No flow-control window may grow beyond (RFC 9113, 6.9.1). */
export const WINDOW_MAX = 0x7fff_ffff;
/** What every connection and, before SETTINGS, every stream begins with. */
export const INITIAL_WINDOW = 65_535;
/** Bytes that a client sends before its first frame. */
export const PREFACE_BYTES = 24;

/** The frame types that matter to flow control or to the order of frames. */
export const frameType = {
  data: 0x0,
  headers: 0x1,
  rstStream: 0x3,
  settings: 0x4,
  goaway: 0x7,
  windowUpdate: 0x8,
  continuation: 0x9,
} as const;

/** END_STREAM and END_HEADERS where the type has them; ACK of SETTINGS is the same bit as END_STREAM. */
export const flag = { endStream: 0x1, ack: 0x1, endHeaders: 0x4 } as const;

/** SETTINGS_INITIAL_WINDOW_SIZE. */
export const SETTING_INITIAL_WINDOW = 0x4;

/** Writes a frame's head at `at`. */
export function putHead(
  out: Uint8Array,
  at: number,
  length: number,
  type: number,
  flags: number,
  streamId: number,
): void {
  out[at] = length >>> 16;
  out[at + 1] = length >>> 8;
  out[at + 2] = length;
  out[at + 3] = type;
  out[at + 4] = flags;
  putStreamId(out, at, streamId);
}

/** Writes the stream of a frame whose head begins at `at`. */
export function putStreamId(out: Uint8Array, at: number, streamId: number): void {
  out[at + 5] = streamId >>> 24;
  out[at + 6] = streamId >>> 16;
  out[at + 7] = streamId >>> 8;
  out[at + 8] = streamId;
}

/** A DATA frame that carries nothing but the end of its stream. */
export function endOfStream(streamId: number): Buffer {
  const frame = Buffer.alloc(HEAD_BYTES);
  putHead(frame, 0, 0, frameType.data, flag.endStream, streamId);
  return frame;
}

/** `increment` from 1 to `WINDOW_MAX`; stream 0 is the connection. */
export function windowUpdate(streamId: number, increment: number): Buffer {
  const frame = Buffer.alloc(HEAD_BYTES + 4);
  putHead(frame, 0, 4, frameType.windowUpdate, 0, streamId);
  frame.writeUInt32BE(increment, HEAD_BYTES);
  return frame;
}

/**
 * What makes the library find the overflow of a window that it does not know the true size of: no window, however small,
 * takes this. What follows the first one too many is ignored by it.
 */
export function overflow(streamId: number): Buffer {
  return Buffer.concat(Array.from({ length: 3 }, () => windowUpdate(streamId, WINDOW_MAX)));
}
