/** One HTTP/2 frame. */
export interface Frame {
  readonly type: number;
  readonly flags: number;
  readonly id: number;
  readonly payload: Buffer;
}

export const type = {
  data: 0,
  headers: 1,
  priority: 2,
  rstStream: 3,
  settings: 4,
  pushPromise: 5,
  ping: 6,
  goaway: 7,
  windowUpdate: 8,
  continuation: 9,
} as const;

export const flags = { endStream: 1, ack: 1, endHeaders: 4, padded: 8, priority: 32 } as const;

export const setting = {
  headerTableSize: 1,
  enablePush: 2,
  maxConcurrentStreams: 3,
  initialWindowSize: 4,
  maxFrameSize: 5,
  maxHeaderListSize: 6,
} as const;

export const errorCode = {
  none: 0,
  protocol: 1,
  internal: 2,
  flowControl: 3,
  streamClosed: 5,
  frameSize: 6,
  cancel: 8,
  compression: 9,
  enhanceYourCalm: 11,
} as const;

export const preface = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "latin1");

/** Any frame, also wrong ones. */
export function frame(kind: number, flagBits: number, id: number, payload: Uint8Array = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = kind;
  head[4] = flagBits;
  head.writeUInt32BE(id >>> 0, 5);
  return Buffer.concat([head, payload]);
}

export function settings(values: Readonly<Partial<Record<keyof typeof setting, number>>>): Buffer {
  const entries = Object.entries(values).map(([name, value]) => {
    const entry = Buffer.alloc(6);
    entry.writeUInt16BE(setting[name as keyof typeof setting], 0);
    entry.writeUInt32BE(value >>> 0, 2);
    return entry;
  });
  return frame(type.settings, 0, 0, Buffer.concat(entries));
}

export function settingsAck(): Buffer {
  return frame(type.settings, flags.ack, 0);
}

export function windowUpdate(id: number, increment: number): Buffer {
  return frame(type.windowUpdate, 0, id, uint32(increment));
}

export function rstStream(id: number, code: number): Buffer {
  return frame(type.rstStream, 0, id, uint32(code));
}

export function goaway(lastId: number, code: number): Buffer {
  return frame(type.goaway, 0, 0, Buffer.concat([uint32(lastId), uint32(code)]));
}

export function ping(text: string, ack = false): Buffer {
  return frame(type.ping, ack ? flags.ack : 0, 0, Buffer.from(text.padEnd(8).slice(0, 8), "latin1"));
}

export function data(id: number, payload: Uint8Array, end = false): Buffer {
  return frame(type.data, end ? flags.endStream : 0, id, payload);
}

/** A request, its header block cut into so many parts. */
export function request(
  id: number,
  path: string,
  options: {
    readonly end?: boolean;
    readonly parts?: number;
    readonly fields?: readonly (readonly [string, string])[];
  } = {},
): Buffer {
  const { end = true, parts = 1, fields = [] } = options;
  const block = requestBlock(path, fields);
  const size = Math.ceil(block.length / parts);
  return Buffer.concat(
    Array.from({ length: parts }, (_, index) =>
      frame(
        index === 0 ? type.headers : type.continuation,
        (index === 0 && end ? flags.endStream : 0) | (index === parts - 1 ? flags.endHeaders : 0),
        id,
        block.subarray(index * size, (index + 1) * size),
      ),
    ),
  );
}

/** POST with literal fields: no dynamic table, no Huffman code. */
export function requestBlock(path: string, fields: readonly (readonly [string, string])[] = []): Buffer {
  return Buffer.concat([
    Buffer.from([0x83, 0x86, 0x04]),
    text(path),
    Buffer.from([0x01]),
    text("localhost"),
    ...fields.map(([name, value]) => Buffer.concat([Buffer.from([0]), text(name), text(value)])),
  ]);
}

export function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value >>> 0);
  return bytes;
}

function text(value: string): Buffer {
  if (value.length > 126) throw new Error("a field this long takes more than one byte for its length");
  return Buffer.concat([Buffer.from([value.length]), Buffer.from(value, "latin1")]);
}

/** Cuts bytes into frames; keeps what is not whole. */
export class FrameReader {
  #rest: Buffer = Buffer.alloc(0);

  push(chunk: Buffer): Frame[] {
    let bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    const frames: Frame[] = [];
    while (bytes.length >= 9) {
      const end = 9 + bytes.readUIntBE(0, 3);
      if (bytes.length < end) break;
      frames.push({
        type: bytes[3] ?? 0,
        flags: bytes[4] ?? 0,
        id: bytes.readUInt32BE(5),
        payload: bytes.subarray(9, end),
      });
      bytes = bytes.subarray(end);
    }
    this.#rest = bytes;
    return frames;
  }
}
