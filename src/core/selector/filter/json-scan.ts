import { type CelValue, celUint, listOf, mapOf } from "./cel.ts";

// Reads the JSON text of images: whole values, and the places of members without their values. The text is what Postgres took
// for `json`, so that it is skipped and not checked; whatever is none after all ends in an error, never in a loop.

const QUOTE = 0x22;
const COMMA = 0x2c;
const COLON = 0x3a;
const BACKSLASH = 0x5c;
const LIST_START = 0x5b;
const LIST_END = 0x5d;
const OBJECT_START = 0x7b;
const OBJECT_END = 0x7d;

const MAX_INT = 9_223_372_036_854_775_807n;
const MIN_INT = -9_223_372_036_854_775_808n;
const MAX_UINT = 18_446_744_073_709_551_615n;

/** The offset of the first character from `at` on that is no white space. */
export function skipSpace(text: string, at: number): number {
  let end = at;
  while (isSpace(text.charCodeAt(end))) {
    end++;
  }
  return end;
}

/** The offset behind the value that begins at `at`. */
export function skipValue(text: string, at: number): number {
  const first = text.charCodeAt(at);
  if (first === QUOTE) {
    return skipString(text, at);
  }
  return first === OBJECT_START || first === LIST_START ? skipNested(text, at) : skipPlain(text, at);
}

/** The offset behind the string whose opening quote stands at `at`. */
export function skipString(text: string, at: number): number {
  for (let quote = text.indexOf('"', at + 1); quote >= 0; quote = text.indexOf('"', quote + 1)) {
    let escapes = quote;
    while (text.charCodeAt(escapes - 1) === BACKSLASH) {
      escapes--;
    }
    if ((quote - escapes) % 2 === 0) {
      return quote + 1;
    }
  }
  throw notJson(at);
}

/**
 * The value that stands between these offsets, without white space around it. Numbers without fraction and exponent become
 * int, above the range of int uint, beyond that of both double, like all others.
 */
export function readValue(text: string, start: number, end: number): CelValue {
  switch (text.charCodeAt(start)) {
    case QUOTE:
      return readString(text, start, end);
    case OBJECT_START:
    case LIST_START:
      return readNested(text, start).value;
    default:
      return readPlain(text.slice(start, end));
  }
}

/** The string that stands between these offsets, quotes included. */
export function readString(text: string, start: number, end: number): string {
  const inner = text.slice(start + 1, end - 1);
  if (!inner.includes("\\")) {
    return inner;
  }
  const parsed: unknown = JSON.parse(text.slice(start, end));
  if (typeof parsed !== "string") {
    throw notJson(start);
  }
  return parsed;
}

interface Read {
  readonly value: CelValue;
  readonly end: number;
}

function readNested(text: string, start: number): Read {
  return text.charCodeAt(start) === OBJECT_START ? readObject(text, start) : readList(text, start);
}

function readAt(text: string, start: number): Read {
  const first = text.charCodeAt(start);
  if (first === OBJECT_START || first === LIST_START) {
    return readNested(text, start);
  }
  const end = skipValue(text, start);
  return { value: readValue(text, start, end), end };
}

function readList(text: string, start: number): Read {
  const elements: CelValue[] = [];
  let at = skipSpace(text, start + 1);
  while (text.charCodeAt(at) !== LIST_END) {
    const { value, end } = readAt(text, at);
    elements.push(value);
    at = nextItem(text, end, LIST_END);
  }
  return { value: listOf(elements), end: at + 1 };
}

function readObject(text: string, start: number): Read {
  const entries: [string, CelValue][] = [];
  let at = skipSpace(text, start + 1);
  while (text.charCodeAt(at) !== OBJECT_END) {
    const nameEnd = skipString(text, at);
    const { value, end } = readAt(text, skipColon(text, nameEnd));
    entries.push([readString(text, at, nameEnd), value]);
    at = nextItem(text, end, OBJECT_END);
  }
  return { value: mapOf(entries), end: at + 1 };
}

/** The offset of what follows the colon behind a name. */
export function skipColon(text: string, nameEnd: number): number {
  const colon = skipSpace(text, nameEnd);
  if (text.charCodeAt(colon) !== COLON) {
    throw notJson(colon);
  }
  return skipSpace(text, colon + 1);
}

/** Behind a value: the offset of what follows the comma, or of the closing bracket. */
export function nextItem(text: string, end: number, close: number): number {
  const at = skipSpace(text, end);
  const found = text.charCodeAt(at);
  if (found === COMMA) {
    return skipSpace(text, at + 1);
  }
  if (found !== close) {
    throw notJson(at);
  }
  return at;
}

function skipNested(text: string, start: number): number {
  let depth = 0;
  for (let at = start; at < text.length; at++) {
    switch (text.charCodeAt(at)) {
      case QUOTE:
        at = skipString(text, at) - 1;
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
function skipPlain(text: string, start: number): number {
  let end = start;
  while (end < text.length && !endsPlain(text.charCodeAt(end))) {
    end++;
  }
  if (end === start) {
    throw notJson(start);
  }
  return end;
}

function endsPlain(unit: number): boolean {
  return unit === COMMA || unit === OBJECT_END || unit === LIST_END || isSpace(unit);
}

function readPlain(text: string): CelValue {
  switch (text) {
    case "true":
      return true;
    case "false":
      return false;
    case "null":
      return null;
    default:
      return readNumber(text);
  }
}

function readNumber(text: string): CelValue {
  const double = Number(text);
  if (Number.isNaN(double)) {
    throw notJson(0);
  }
  if (/[.eE]/.test(text)) {
    return double;
  }
  if (Number.isSafeInteger(double)) {
    return BigInt(double);
  }
  const int = BigInt(text);
  if (int >= MIN_INT && int <= MAX_INT) {
    return int;
  }
  return int > 0n && int <= MAX_UINT ? celUint(int) : double;
}

function isSpace(unit: number): boolean {
  return unit === 0x20 || unit === 0x0a || unit === 0x0d || unit === 0x09;
}

function notJson(at: number): Error {
  return new Error(`no JSON at offset ${at}`);
}
