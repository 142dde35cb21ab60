/**
 * Reads the wire format by hand: a client that decodes every field in JavaScript would measure itself. It knows no more
 * of protobuf than varints and lengths, and of the messages only the fields that benchmarks look at.
 */

/** What a benchmark looks at in an event. Images are views into the frame. */
export interface WireEvent {
  version: number;
  topic: string;
  operation: number;
  before: Uint8Array | undefined;
  after: Uint8Array | undefined;
}

/** A frame's field number in `SubscribeResponse`: 1 opened, 2 events, 3 checkpoint, 5 and 6 snapshot, 9 closing. */
export interface WireFrame {
  readonly kind: number;
  readonly body: Uint8Array;
}

/** The one field of a `SubscribeResponse`. */
export function readFrame(message: Uint8Array): WireFrame {
  const reader = new Reader(message);
  const tag = reader.varint();
  return { kind: tag >>> 3, body: reader.bytes() };
}

/** What a benchmark looks at in a `PollResponse`. */
export interface WirePage {
  readonly events: number;
  readonly cursor: string;
  readonly hasMore: boolean;
}

/** Reads a `PollResponse`. */
export function readPage(message: Uint8Array): WirePage {
  const reader = new Reader(message);
  let events = 0;
  let cursor = "";
  let hasMore = false;
  while (!reader.done) {
    const tag = reader.varint();
    if (tag >>> 3 === 1) {
      reader.skip(2);
      events += 1;
    } else if (tag >>> 3 === 2) {
      cursor = Buffer.from(reader.bytes()).toString();
    } else if (tag >>> 3 === 3) {
      hasMore = reader.varint() === 1;
    } else {
      reader.skip(tag & 7);
    }
  }
  return { events, cursor, hasMore };
}

/** Calls back for each event of an `EventBatch`; returns how many. The object is the same each time. */
export function readEvents(batch: Uint8Array, onEvent: ((event: WireEvent) => void) | undefined): number {
  const reader = new Reader(batch);
  let count = 0;
  const event: WireEvent = { version: 0, topic: "", operation: 0, before: undefined, after: undefined };
  while (!reader.done) {
    const tag = reader.varint();
    if (tag >>> 3 !== 1) {
      reader.skip(tag & 7);
      continue;
    }
    count += 1;
    const bytes = reader.bytes();
    if (onEvent !== undefined) {
      readEvent(bytes, event);
      onEvent(event);
    }
  }
  return count;
}

/** The cursor of an `EventBatch`. */
export function readBatchCursor(batch: Uint8Array): string {
  const reader = new Reader(batch);
  while (!reader.done) {
    const tag = reader.varint();
    if (tag === 0x12) return text(reader.bytes());
    reader.skip(tag & 7);
  }
  return "";
}

/** What `opened.lease` says. */
export function readLease(opened: Uint8Array): { readonly generation: number; readonly member: string } {
  const lease = { generation: 0, member: "" };
  const reader = new Reader(opened);
  while (!reader.done) {
    const tag = reader.varint();
    if (tag >>> 3 !== 12) {
      reader.skip(tag & 7);
      continue;
    }
    const inner = new Reader(reader.bytes());
    while (!inner.done) {
      const field = inner.varint();
      if (field === 0x10) lease.generation = inner.varint();
      else if (field === 0x1a) lease.member = text(inner.bytes());
      else inner.skip(field & 7);
    }
  }
  return lease;
}

/** The version of a checkpoint or of `opened`; field 2 in both. */
export function readVersion(body: Uint8Array): number {
  const reader = new Reader(body);
  while (!reader.done) {
    const tag = reader.varint();
    if (tag === 0x10) return reader.varint();
    reader.skip(tag & 7);
  }
  return 0;
}

function readEvent(bytes: Uint8Array, event: WireEvent): void {
  const reader = new Reader(bytes);
  event.before = undefined;
  event.after = undefined;
  while (!reader.done) {
    const tag = reader.varint();
    if (tag === 0x08) event.version = reader.varint();
    else if (tag === 0x12) event.topic = text(reader.bytes());
    else if (tag === 0x20) event.operation = reader.varint();
    else if (tag === 0x2a) event.before = readFrame(reader.bytes()).body;
    else if (tag === 0x32) event.after = readFrame(reader.bytes()).body;
    else reader.skip(tag & 7);
  }
}

function text(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("latin1");
}

class Reader {
  readonly #bytes: Uint8Array;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  get done(): boolean {
    return this.#at >= this.#bytes.length;
  }

  varint(): number {
    let value = 0;
    let scale = 1;
    for (;;) {
      const byte = this.#bytes[this.#at++] ?? 0;
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
      scale *= 128;
    }
  }

  bytes(): Uint8Array {
    const length = this.varint();
    this.#at += length;
    return this.#bytes.subarray(this.#at - length, this.#at);
  }

  skip(wireType: number): void {
    if (wireType === 0) this.varint();
    else if (wireType === 2) this.bytes();
    else if (wireType === 1) this.#at += 8;
    else this.#at += 4;
  }
}
