import { FeedError } from "./errors.ts";
import type { Version } from "./event.ts";
import { isPiece, type Thinned } from "./policy/policy.ts";
import type { SnapshotPlace } from "./ports.ts";

/**
 * "After this version of this epoch", or "in the middle of a snapshot, what was delivered of it being as of this version".
 * Immutable; ordered by version within an epoch. Its text form is opaque to clients.
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
  /**
   * `undefined` outside of snapshots. In the middle of one, the place to go on from: everything that it covers was
   * delivered and is as of `version`. "anew" where there is none: to resume is to take the snapshot from its first row.
   */
  readonly snapshot: SnapshotPlace | "anew" | undefined;
  /** In the middle of a piece that a policy thinned: what is left out of the rest of it has been told. Outside of snapshots. */
  readonly thinned?: Thinned | undefined;
  /**
   * In a group: which delivery to this member it stands after, from 1. A group's frames do not rise by version (what is
   * delivered again comes later), so that the version alone would not say what whoever acknowledges it has been given.
   * Outside of snapshots and thinned pieces; means nothing to a stream that begins here.
   */
  readonly delivery?: number | undefined;
  /** Beside `delivery`: to whom, as `deliveredTo` has it. What another member was given says nothing of what this one was. */
  readonly deliveredTo?: number | undefined;
}

/** A member's generation as its cursors hold it: 32 bits are enough to tell those apart that one could mistake. */
export function deliveredTo(generation: number): number {
  return generation % 2 ** 32;
}

// Text form: base64url, without padding, of
//   format byte · flags · 16 bytes of epoch · varint version
//   · with a place: 4 bytes of shape · varint sources · varint rows · with a key: varint of its length, and the key in UTF-8
//   · of a group: varint of the delivery
//   · in a thinned piece: varint of its last version less the cursor's · varint of every how many events, 0 for each key's last
//   · 4 bytes of fingerprint, of a group: of the member · 4 bytes of FNV-1a over all before.
// The checksum guards against damage (a digit lost in copying), not against forgery: a forged cursor reads nothing that
// its bearer could not read with a plain version.
const FORMAT = 1;
const FLAG_ANEW = 1;
const FLAG_PLACE = 2;
const FLAG_KEY = 4;
const FLAG_THINNED = 8;
const FLAG_DELIVERY = 16;
const FLAGS_KNOWN: ReadonlySet<number> = new Set([
  0,
  FLAG_ANEW,
  FLAG_PLACE,
  FLAG_PLACE | FLAG_KEY,
  FLAG_THINNED,
  FLAG_DELIVERY,
]);
const EPOCH_OFFSET = 2;
const VERSION_OFFSET = 18;
const MAX_VARINT_BYTES = 8;
const TRAILER_BYTES = 8;
const MIN_BYTES = VERSION_OFFSET + 1 + TRAILER_BYTES;
/** Without a key. */
const MAX_FIXED_BYTES = VERSION_OFFSET + MAX_VARINT_BYTES + 4 + 3 * MAX_VARINT_BYTES + TRAILER_BYTES;
/** Characters of the longest cursor: what `SubscribeRequest.after_cursor` takes. */
const MAX_CHARACTERS = 4096;
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/**
 * The text that clients hold and give back: about 40 characters of base64url, and in the middle of a snapshot about as many
 * more as the last row's key has.
 *
 * @param maxCharacters - A place that does not fit becomes "anew". Cursors without one are never longer than 57.
 */
export function encodeCursor(cursor: Cursor, maxCharacters = MAX_CHARACTERS): string {
  if (!UUID.test(cursor.epoch) || !isCount(cursor.version)) {
    throw new FeedError(
      "INTERNAL",
      `A cursor cannot hold version ${cursor.version} of epoch ${cursor.epoch}.`,
      "Report this as a fault of Millrace.",
    );
  }
  const { snapshot } = cursor;
  if (typeof snapshot !== "object") {
    return textOf(cursor, snapshot === "anew" ? FLAG_ANEW : flagsOf(cursor), undefined, undefined);
  }
  const key = snapshot.key === undefined ? undefined : encoder.encode(snapshot.key);
  const fits = MAX_FIXED_BYTES + (key?.length ?? 0) <= Math.min(maxCharacters, MAX_CHARACTERS) * 0.75;
  if (!fits || !isCount(snapshot.sources) || !isCount(snapshot.rows) || snapshot.key?.isWellFormed() === false) {
    return textOf(cursor, FLAG_ANEW, undefined, undefined);
  }
  return textOf(cursor, key === undefined ? FLAG_PLACE : FLAG_PLACE | FLAG_KEY, snapshot, key);
}

function flagsOf({ thinned, delivery }: Cursor): number {
  return thinned !== undefined ? FLAG_THINNED : delivery !== undefined ? FLAG_DELIVERY : 0;
}

function textOf(cursor: Cursor, flags: number, place: SnapshotPlace | undefined, key: Uint8Array | undefined): string {
  const bytes = new Uint8Array(MAX_FIXED_BYTES + (key?.length ?? 0));
  const view = new DataView(bytes.buffer);
  bytes[0] = FORMAT;
  bytes[1] = flags;
  bytes.set(Uint8Array.fromHex(cursor.epoch.replaceAll("-", "")), EPOCH_OFFSET);
  let length = writeVarint(bytes, VERSION_OFFSET, cursor.version);
  if (place !== undefined) {
    view.setUint32(length, place.shape >>> 0);
    length = writeVarint(bytes, writeVarint(bytes, length + 4, place.sources), place.rows);
  }
  if (key !== undefined) {
    length = writeVarint(bytes, length, key.length);
    bytes.set(key, length);
    length += key.length;
  }
  if (flags === FLAG_THINNED && cursor.thinned !== undefined) {
    length = writeVarint(bytes, length, cursor.thinned.until - cursor.version);
    length = writeVarint(bytes, length, cursor.thinned.every);
  }
  if (flags === FLAG_DELIVERY) {
    length = writeVarint(bytes, length, cursor.delivery ?? 0);
  }
  view.setUint32(length, (flags === FLAG_DELIVERY ? (cursor.deliveredTo ?? 0) : cursor.fingerprint) >>> 0);
  length += 4;
  view.setUint32(length, checksum(bytes, length));
  length += 4;
  return bytes.subarray(0, length).toBase64({ alphabet: "base64url", omitPadding: true });
}

/** @throws FeedError CURSOR_INVALID for every text that `encodeCursor` does not produce. */
export function decodeCursor(text: string): Cursor {
  const bytes = bytesFromText(text);
  if (bytes.length < MIN_BYTES || text.length > MAX_CHARACTERS) {
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
  const fields = new Fields(bytes.subarray(VERSION_OFFSET, end - 4));
  const version = fields.varint();
  const place = (flags & FLAG_PLACE) === 0 ? undefined : placeFrom(fields, (flags & FLAG_KEY) !== 0);
  const thinned = version === undefined || flags !== FLAG_THINNED ? undefined : thinnedFrom(fields, version);
  const delivery = flags === FLAG_DELIVERY ? fields.varint() : undefined;
  if (
    !FLAGS_KNOWN.has(flags) ||
    version === undefined ||
    (flags === FLAG_DELIVERY && delivery === undefined) ||
    place === "damaged" ||
    thinned === "damaged" ||
    !fields.done
  ) {
    throw damaged("its fields are out of range");
  }
  const last = view.getUint32(end - 4);
  return {
    epoch: uuidFromBytes(bytes.subarray(EPOCH_OFFSET, VERSION_OFFSET)),
    version,
    fingerprint: delivery === undefined ? last : 0,
    snapshot: flags === FLAG_ANEW ? "anew" : place,
    ...(thinned === undefined ? {} : { thinned }),
    ...(delivery === undefined ? {} : { delivery, deliveredTo: last }),
  };
}

function thinnedFrom(fields: Fields, version: Version): Thinned | "damaged" {
  const length = fields.varint();
  const every = fields.varint();
  const thinned = length === undefined || every === undefined ? undefined : { until: version + length, every };
  return thinned !== undefined && every !== 1 && isPiece(version, thinned) ? thinned : "damaged";
}

function placeFrom(fields: Fields, withKey: boolean): SnapshotPlace | "damaged" {
  const shape = fields.uint32();
  const sources = fields.varint();
  const rows = fields.varint();
  const key = withKey ? fields.text() : undefined;
  if (shape === undefined || sources === undefined || rows === undefined || (withKey && key === undefined)) {
    return "damaged";
  }
  return { shape, sources, key, rows };
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
  return a.version - b.version || Number(a.snapshot === undefined) - Number(b.snapshot === undefined);
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

function isCount(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0;
}

/** Reads one field after another; each is `undefined` unless it is whole, in range and in its one form. */
class Fields {
  readonly #bytes: Uint8Array;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  get done(): boolean {
    return this.#at === this.#bytes.length;
  }

  /** A safe integer in the shortest of its forms. */
  varint(): number | undefined {
    let value = 0;
    for (let scale = 1; this.#at < this.#bytes.length; scale *= 128) {
      const byte = this.#bytes[this.#at++] ?? 0;
      value += (byte & 127) * scale;
      if (!Number.isSafeInteger(value)) {
        return undefined;
      }
      if (byte < 128) {
        return byte === 0 && scale > 1 ? undefined : value;
      }
    }
    return undefined;
  }

  uint32(): number | undefined {
    const bytes = this.#take(4);
    return bytes === undefined ? undefined : new DataView(bytes.buffer, bytes.byteOffset).getUint32(0);
  }

  text(): string | undefined {
    const length = this.varint();
    const bytes = length === undefined ? undefined : this.#take(length);
    try {
      return bytes === undefined ? undefined : decoder.decode(bytes);
    } catch {
      return undefined;
    }
  }

  #take(length: number): Uint8Array | undefined {
    const end = this.#at + length;
    if (end > this.#bytes.length) {
      return undefined;
    }
    const taken = this.#bytes.subarray(this.#at, end);
    this.#at = end;
    return taken;
  }
}

function checksum(bytes: Uint8Array, end: number): number {
  let hash = 0x811c9dc5;
  for (let at = 0; at < end; at++) {
    hash = Math.imul(hash ^ (bytes[at] ?? 0), 0x01000193);
  }
  return hash >>> 0;
}
