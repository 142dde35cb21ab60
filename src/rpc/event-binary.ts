import type { Event } from "../core/event.ts";
import { headerEntries, operationNumbers, payloadOmittedTooLarge, transitionNumbers } from "./event-fields.ts";

// `millrace.v1.Event` in protobuf's binary format, by hand: an image goes from the database's socket to the client's as
// bytes, without becoming a string on the way. Byte-identical to `toBinary`; a property test holds it to that.
//
// Each function that writes returns the offset behind what it wrote. Sizes come first because every nested message is
// preceded by its length.

const VARINT = 0;
const BYTES = 2;
const tag = (field: number, wireType: number): number => (field << 3) | wireType;
const VERSION = tag(1, VARINT);
const TOPIC = tag(2, BYTES);
const KEY = tag(3, BYTES);
const OPERATION = tag(4, VARINT);
const BEFORE = tag(5, BYTES);
const AFTER = tag(6, BYTES);
const TRANSACTION = tag(7, BYTES);
const OCCURRED_AT = tag(8, BYTES);
const HEADERS = tag(9, BYTES);
const TRANSITION = tag(10, VARINT);
const ATTEMPT = tag(11, VARINT);
const PAYLOAD_OMITTED = tag(12, VARINT);
const FIRST = tag(1, BYTES);
const SECOND = tag(2, BYTES);

/** Which payloads go out. `omitted`: the event has them, and they are too large. */
export type Payloads = "whole" | "none" | "omitted";

/** Bytes of the message `Event`, without the tag and length before it. */
export function eventBinarySize(event: Event, payloads: Payloads): number {
  // Rows of a snapshot that was taken before the first event carry version 0: protobuf leaves zeros out.
  let size = (event.version === 0 ? 0 : 1 + varintSize(event.version)) + textFieldSize(event.topic) + 2;
  if (event.key !== undefined) {
    size += textFieldSize(event.key);
  }
  if (payloads === "whole") {
    size += imageSize(event.before) + imageSize(event.after);
  }
  if (event.transaction !== "") {
    size += textFieldSize(event.transaction);
  }
  size += 2 + timestampSize(event.occurredAtMicros);
  for (const [name, value] of headerEntries(event.headers)) {
    size += lengthPrefixed(textFieldSize(name) + textFieldSize(value)) + 1;
  }
  if (event.transition !== undefined) {
    size += 2;
  }
  if (event.attempt !== undefined) {
    size += 1 + varintSize(event.attempt);
  }
  return payloads === "omitted" ? size + 2 : size;
}

/** Writes the message `Event`, without the tag and length before it. */
export function writeEventBinary(out: Buffer, start: number, event: Event, payloads: Payloads): number {
  let at = event.version === 0 ? start : writeVarint(out, writeByte(out, start, VERSION), event.version);
  at = writeTextField(out, at, TOPIC, event.topic);
  if (event.key !== undefined) {
    at = writeTextField(out, at, KEY, event.key);
  }
  at = writeByte(out, writeByte(out, at, OPERATION), operationNumbers[event.operation]);
  if (payloads === "whole") {
    at = writeImage(out, writeImage(out, at, BEFORE, event.before), AFTER, event.after);
  }
  if (event.transaction !== "") {
    at = writeTextField(out, at, TRANSACTION, event.transaction);
  }
  at = writeByte(out, writeByte(out, at, OCCURRED_AT), timestampSize(event.occurredAtMicros));
  at = writeTimestamp(out, at, event.occurredAtMicros);
  for (const [name, value] of headerEntries(event.headers)) {
    at = writeVarint(out, writeByte(out, at, HEADERS), textFieldSize(name) + textFieldSize(value));
    at = writeTextField(out, writeTextField(out, at, FIRST, name), SECOND, value);
  }
  if (event.transition !== undefined) {
    at = writeByte(out, writeByte(out, at, TRANSITION), transitionNumbers[event.transition]);
  }
  if (event.attempt !== undefined) {
    at = writeVarint(out, writeByte(out, at, ATTEMPT), event.attempt);
  }
  return payloads === "omitted" ? writeByte(out, writeByte(out, at, PAYLOAD_OMITTED), payloadOmittedTooLarge) : at;
}

/** Bytes of a field whose value has this many: one byte of tag, the length, the value. For field numbers below 16. */
export function lengthFieldSize(bytes: number): number {
  return 1 + lengthPrefixed(bytes);
}

/** Writes an unsigned varint of up to 53 bits. */
export function writeVarint(out: Buffer, start: number, value: number): number {
  let at = start;
  let rest = value;
  // Shifts are faster than division and hold 31 bits.
  while (rest > 0x7fffffff) {
    out[at++] = (rest % 128) | 128;
    rest = Math.floor(rest / 128);
  }
  while (rest > 127) {
    out[at++] = (rest & 127) | 128;
    rest >>>= 7;
  }
  out[at++] = rest;
  return at;
}

/** Bytes of an unsigned varint of up to 53 bits. */
export function varintSize(value: number): number {
  let size = 1;
  for (let rest = value; rest > 127; rest = Math.floor(rest / 128)) {
    size++;
  }
  return size;
}

/** Writes a string field. */
export function writeTextField(out: Buffer, start: number, fieldTag: number, text: string): number {
  const bytes = Buffer.byteLength(text);
  const at = writeVarint(out, writeByte(out, start, fieldTag), bytes);
  out.write(text, at, bytes, "utf8");
  return at + bytes;
}

/** Writes one byte. */
export function writeByte(out: Buffer, at: number, byte: number): number {
  out[at] = byte;
  return at + 1;
}

function lengthPrefixed(bytes: number): number {
  return varintSize(bytes) + bytes;
}

function textFieldSize(text: string): number {
  return lengthFieldSize(Buffer.byteLength(text));
}

/** A `Payload` whose only field is `json`. */
function imageSize(image: Uint8Array | undefined): number {
  return image === undefined ? 0 : lengthFieldSize(lengthFieldSize(image.length));
}

function writeImage(out: Buffer, start: number, fieldTag: number, image: Uint8Array | undefined): number {
  if (image === undefined) {
    return start;
  }
  let at = writeVarint(out, writeByte(out, start, fieldTag), lengthFieldSize(image.length));
  at = writeVarint(out, writeByte(out, at, FIRST), image.length);
  out.set(image, at);
  return at + image.length;
}

/** A negative int64 always takes ten bytes. Zero is the default and is left out. */
function timestampSize(micros: number): number {
  const seconds = Math.floor(micros / 1e6);
  const nanos = (micros - seconds * 1e6) * 1000;
  const secondsSize = seconds === 0 ? 0 : 1 + (seconds < 0 ? 10 : varintSize(seconds));
  return secondsSize + (nanos === 0 ? 0 : 1 + varintSize(nanos));
}

function writeTimestamp(out: Buffer, start: number, micros: number): number {
  const seconds = Math.floor(micros / 1e6);
  const nanos = (micros - seconds * 1e6) * 1000;
  let at = start;
  if (seconds > 0) {
    at = writeVarint(out, writeByte(out, at, tag(1, VARINT)), seconds);
  } else if (seconds < 0) {
    at = writeNegativeVarint(out, writeByte(out, at, tag(1, VARINT)), seconds);
  }
  return nanos === 0 ? at : writeVarint(out, writeByte(out, at, tag(2, VARINT)), nanos);
}

function writeNegativeVarint(out: Buffer, start: number, value: number): number {
  let rest = BigInt.asUintN(64, BigInt(value));
  let at = start;
  while (rest > 127n) {
    out[at++] = Number(rest & 127n) | 128;
    rest >>= 7n;
  }
  out[at++] = Number(rest);
  return at;
}
