import type { Image } from "../event.ts";
import type { Branch } from "./projection.ts";

// Cuts images without reading them: members are found in the bytes and copied as they stand, so that every digit of every
// number, every escape and every space within a value survives. Of bytes that are no JSON nothing is left.

const QUOTE = 0x22;
const COMMA = 0x2c;
const BACKSLASH = 0x5c;
const LIST_START = 0x5b;
const LIST_END = 0x5d;
const OBJECT_START = 0x7b;
const OBJECT_END = 0x7d;

/** Up to here a loop is quicker than a view and `set`. */
const SHORT = 48;
/** Kept from one image to the next up to this size. */
const MAX_KEPT_BYTES = 262_144;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

interface Wanted {
  readonly name: string;
  /** The name as it stands between its quotes; `undefined` for one that cannot stand there without an escape. */
  readonly bytes: Uint8Array | undefined;
  readonly part: readonly Wanted[] | "whole";
}

let scratch: Uint8Array<ArrayBuffer> = new Uint8Array(4_096);

/** The function that leaves of an object what the branch wants, and nothing of anything else. */
export function objectCut(branch: Branch): (image: Image) => Image {
  const wanted = wantedOf(branch);
  return (image) => {
    const start = skipSpace(image, 0);
    if (image[start] !== OBJECT_START) {
      return encoder.encode("{}");
    }
    // What is left is never longer than what was there, and as long only where it is the same.
    const out = image.length <= scratch.length ? scratch : new Uint8Array(image.length);
    if (out.length <= MAX_KEPT_BYTES) {
      scratch = out;
    }
    const cut = new Cut(image, out);
    try {
      cut.object(start, wanted);
    } catch {
      return encoder.encode("{}");
    }
    return cut.length === image.length ? image : out.slice(0, cut.length);
  };
}

function wantedOf(branch: Branch): readonly Wanted[] {
  return [...branch].map(([name, part]) => ({
    name,
    bytes: /["\\]/.test(name) ? undefined : encoder.encode(name),
    part: part === "whole" ? part : wantedOf(part),
  }));
}

/** One image on its way through. */
class Cut {
  readonly #image: Image;
  readonly #out: Uint8Array;
  #length = 0;

  constructor(image: Image, out: Uint8Array) {
    this.#image = image;
    this.#out = out;
  }

  get length(): number {
    return this.#length;
  }

  /** Writes what is left of the object that begins at `start`. */
  object(start: number, wanted: readonly Wanted[]): void {
    const image = this.#image;
    this.#byte(OBJECT_START);
    let first = true;
    let at = skipSpace(image, start + 1);
    while (image[at] !== OBJECT_END) {
      const nameEnd = skipString(image, at);
      const value = skipSpace(image, skipSpace(image, nameEnd) + 1);
      const end = skipValue(image, value);
      const found = this.#find(wanted, at + 1, nameEnd - 1);
      if (found === "whole" || (found !== undefined && image[value] === OBJECT_START)) {
        this.#separate(first);
        first = false;
        this.#copy(at, found === "whole" ? end : value);
        if (found !== "whole") {
          this.object(value, found);
        }
      }
      at = nextMember(image, end);
    }
    this.#byte(OBJECT_END);
  }

  #separate(first: boolean): void {
    if (!first) {
      this.#byte(COMMA);
    }
  }

  #byte(byte: number): void {
    this.#out[this.#length++] = byte;
  }

  #copy(start: number, end: number): void {
    const image = this.#image;
    const out = this.#out;
    if (end - start > SHORT) {
      out.set(image.subarray(start, end), this.#length);
    } else {
      for (let at = start; at < end; at++) {
        out[this.#length + at - start] = image[at] ?? 0;
      }
    }
    this.#length += end - start;
  }

  #find(wanted: readonly Wanted[], start: number, end: number): Wanted["part"] | undefined {
    const image = this.#image;
    for (const { bytes, part } of wanted) {
      if (bytes !== undefined && isSame(image, start, end, bytes)) {
        return part;
      }
    }
    const inner = image.subarray(start, end);
    if (!inner.includes(BACKSLASH)) {
      return undefined;
    }
    const written: unknown = JSON.parse(`"${decoder.decode(inner)}"`);
    return wanted.find(({ name }) => name === written)?.part;
  }
}

function isSame(image: Image, start: number, end: number, bytes: Uint8Array): boolean {
  if (end - start !== bytes.length) {
    return false;
  }
  for (let i = 0; i < bytes.length; i++) {
    if (image[start + i] !== bytes[i]) {
      return false;
    }
  }
  return true;
}

function skipSpace(image: Image, start: number): number {
  let at = start;
  while (image[at] === 0x20 || image[at] === 0x0a || image[at] === 0x0d || image[at] === 0x09) {
    at++;
  }
  return at;
}

function skipString(image: Image, start: number): number {
  for (let at = start + 1; at < image.length; at++) {
    if (image[at] === BACKSLASH) {
      at++;
    } else if (image[at] === QUOTE) {
      return at + 1;
    }
  }
  throw notJson(start);
}

function skipValue(image: Image, start: number): number {
  switch (image[start]) {
    case QUOTE:
      return skipString(image, start);
    case OBJECT_START:
    case LIST_START:
      return skipNested(image, start);
    default:
      return skipPlain(image, start);
  }
}

function skipNested(image: Image, start: number): number {
  let depth = 0;
  for (let at = start; at < image.length; at++) {
    switch (image[at]) {
      case QUOTE:
        at = skipString(image, at) - 1;
        break;
      case OBJECT_START:
      case LIST_START:
        depth++;
        break;
      case OBJECT_END:
      case LIST_END:
        depth--;
        if (depth === 0) {
          return at + 1;
        }
        break;
    }
  }
  throw notJson(start);
}

/** A number, `true`, `false` or `null`. */
function skipPlain(image: Image, start: number): number {
  for (let at = start; at < image.length; at++) {
    const byte = image[at] ?? 0;
    if (byte === COMMA || byte === OBJECT_END || byte <= 0x20) {
      return at;
    }
  }
  throw notJson(start);
}

/** Behind a value: where the next member begins, or the object ends. */
function nextMember(image: Image, end: number): number {
  const at = skipSpace(image, end);
  if (image[at] !== COMMA && image[at] !== OBJECT_END) {
    throw notJson(at);
  }
  return image[at] === COMMA ? skipSpace(image, at + 1) : at;
}

function notJson(at: number): Error {
  return new Error(`no JSON at byte ${at}`);
}
