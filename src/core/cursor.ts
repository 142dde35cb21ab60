import { FeedError } from "./errors.ts";
import type { Version } from "./event.ts";

/**
 * "After this version of this epoch", or "in the middle of a snapshot taken at this version". Immutable; ordered by
 * version within an epoch. Its text form is opaque to clients.
 */
export interface Cursor {
  /** UUID. */
  readonly epoch: string;
  readonly version: Version;
  /**
   * Of the tick that settled `version`; see `Tick.fingerprint`. 0 when that tick was no longer kept as the cursor was
   * made: then nothing is compared.
   */
  readonly fingerprint: number;
  /** The snapshot at `version` is not complete: to resume is to take it again. */
  readonly snapshot: boolean;
}

// Text form: base64url, without padding, of
//   format byte · flags · 16 bytes of epoch · varint version · 4 bytes of fingerprint · 4 bytes of FNV-1a over all before.
// The checksum guards against damage (a digit lost in copying), not against forgery: a forged cursor reads nothing that
// its bearer could not read with a plain version.
const FORMAT = 1;
const FLAG_SNAPSHOT = 1;
const EPOCH_OFFSET = 2;
const VERSION_OFFSET = 18;
const MAX_VARINT_BYTES = 8;
const TRAILER_BYTES = 8;
const MAX_BYTES = VERSION_OFFSET + MAX_VARINT_BYTES + TRAILER_BYTES;
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/** The text that clients hold and give back: about 40 characters of base64url. */
export function encodeCursor(cursor: Cursor): string {
  if (!UUID.test(cursor.epoch) || !Number.isSafeInteger(cursor.version) || cursor.version < 0) {
    throw new FeedError(
      "INTERNAL",
      `A cursor cannot hold version ${cursor.version} of epoch ${cursor.epoch}.`,
      "Report this as a fault of Millrace.",
    );
  }
  const bytes = new Uint8Array(MAX_BYTES);
  const view = new DataView(bytes.buffer);
  bytes[0] = FORMAT;
  bytes[1] = cursor.snapshot ? FLAG_SNAPSHOT : 0;
  bytes.set(Uint8Array.fromHex(cursor.epoch.replaceAll("-", "")), EPOCH_OFFSET);
  let length = writeVarint(bytes, VERSION_OFFSET, cursor.version);
  view.setUint32(length, cursor.fingerprint >>> 0);
  length += 4;
  view.setUint32(length, checksum(bytes, length));
  length += 4;
  return bytes.subarray(0, length).toBase64({ alphabet: "base64url", omitPadding: true });
}

/** @throws FeedError CURSOR_INVALID for every text that `encodeCursor` does not produce. */
export function decodeCursor(text: string): Cursor {
  const bytes = bytesFromText(text);
  if (bytes.length < VERSION_OFFSET + 1 + TRAILER_BYTES || bytes.length > MAX_BYTES) {
    throw damaged("it has the wrong length");
  }
  if (bytes[0] !== FORMAT) {
    throw damaged(`its format ${bytes[0]} is not known to this version of Millrace`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const end = bytes.length - 4;
  if (view.getUint32(end) !== checksum(bytes, end)) {
    throw damaged("its checksum does not match");
  }
  const flags = bytes[1] ?? 0;
  const version = readVarint(bytes, VERSION_OFFSET, end - 4);
  if (version === undefined || (flags & ~FLAG_SNAPSHOT) !== 0) {
    throw damaged("its fields are out of range");
  }
  return {
    epoch: uuidFromBytes(bytes.subarray(EPOCH_OFFSET, VERSION_OFFSET)),
    version,
    fingerprint: view.getUint32(end - 4),
    snapshot: (flags & FLAG_SNAPSHOT) !== 0,
  };
}

/**
 * Negative when `a` comes first. Within a version, the middle of its snapshot comes before its end.
 *
 * @throws FeedError INTERNAL for cursors of two epochs: those have no order.
 */
export function compareCursors(a: Cursor, b: Cursor): number {
  if (a.epoch !== b.epoch) {
    throw new FeedError(
      "INTERNAL",
      "Cursors of two epochs have no order.",
      "Compare epochs before comparing cursors; this is a fault of the caller.",
    );
  }
  return a.version - b.version || Number(b.snapshot) - Number(a.snapshot);
}

function bytesFromText(text: string): Uint8Array {
  let bytes: Uint8Array;
  try {
    bytes = Uint8Array.fromBase64(text, { alphabet: "base64url" });
  } catch (cause) {
    throw damaged("it is not base64url", cause);
  }
  // One cursor, one text: stray bits in the last character, padding and white space are damage too.
  if (bytes.toBase64({ alphabet: "base64url", omitPadding: true }) !== text) {
    throw damaged("it is not in the form in which it was given out");
  }
  return bytes;
}

function damaged(reason: string, cause?: unknown): FeedError {
  return new FeedError(
    "CURSOR_INVALID",
    `The cursor cannot be read: ${reason}.`,
    "Pass a cursor exactly as a frame carried it, or start from `snapshot`, `oldest` or `now`.",
    { cause },
  );
}

function uuidFromBytes(bytes: Uint8Array): string {
  const hex = bytes.toHex();
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

/** Arithmetic and not shifts: versions go beyond 32 bits. */
function writeVarint(bytes: Uint8Array, offset: number, value: number): number {
  let rest = value;
  let at = offset;
  while (rest >= 128) {
    bytes[at++] = (rest % 128) | 128;
    rest = Math.floor(rest / 128);
  }
  bytes[at++] = rest;
  return at;
}

/** `undefined` unless exactly the bytes up to `end` are the shortest form of a safe integer. */
function readVarint(bytes: Uint8Array, offset: number, end: number): number | undefined {
  let value = 0;
  let scale = 1;
  for (let at = offset; at < end; at++) {
    const byte = bytes[at] ?? 0;
    value += (byte & 127) * scale;
    scale *= 128;
    const last = (byte & 128) === 0;
    if (last !== (at === end - 1) || (last && byte === 0 && at > offset)) {
      return undefined;
    }
  }
  return Number.isSafeInteger(value) ? value : undefined;
}

function checksum(bytes: Uint8Array, end: number): number {
  let hash = 0x811c9dc5;
  for (let at = 0; at < end; at++) {
    hash = Math.imul(hash ^ (bytes[at] ?? 0), 0x01000193);
  }
  return hash >>> 0;
}
