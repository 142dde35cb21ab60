import { FeedError } from "../../core/errors.ts";

const signatureBytes = 11;
const headerBytes = signatureBytes + 8;
const empty = Buffer.alloc(0);

/**
 * Reads the tuples of `COPY … TO STDOUT (FORMAT binary)`, one or several such copies after another, from chunks that are
 * cut anywhere. Fields are views of the chunks, not copies.
 */
export interface CopyTuples {
  /** Hands over the next chunk; only after `next` answered `more`. */
  push(chunk: Uint8Array): void;
  /** Steps to the next tuple (`tuple`), past the end of one copy (`end`), or says that it needs another chunk (`more`). */
  next(): "tuple" | "end" | "more";
  /** A field of the tuple that `next` stepped to; `undefined` for null. */
  field(index: number): Buffer | undefined;
  /** The same as text. */
  text(index: number): string | undefined;
  /** Bytes of the tuple's fields together. */
  readonly bytes: number;
}

/** For tuples of exactly this many fields. */
export function createCopyTuples(fields: number): CopyTuples {
  return new Parser(fields);
}

class Parser implements CopyTuples {
  readonly #fields: number;
  readonly #starts: Int32Array;
  readonly #ends: Int32Array;
  #buffer: Buffer = empty;
  #offset = 0;
  #inside = false;
  /** Chunks that are not joined yet: a large row is joined once, not once per chunk. */
  #waiting: Uint8Array[] = [];
  #waitingBytes = 0;
  #needed = 0;

  constructor(fields: number) {
    this.#fields = fields;
    this.#starts = new Int32Array(fields);
    this.#ends = new Int32Array(fields);
  }

  get bytes(): number {
    return (this.#ends[this.#fields - 1] ?? 0) - (this.#starts[0] ?? 0);
  }

  push(chunk: Uint8Array): void {
    this.#waiting.push(chunk);
    this.#waitingBytes += chunk.length;
    if (this.#waitingBytes < this.#needed) return;
    const [only] = this.#waiting;
    this.#buffer =
      this.#waiting.length === 1 && only !== undefined
        ? Buffer.from(only.buffer, only.byteOffset, only.length)
        : Buffer.concat(this.#waiting, this.#waitingBytes);
    this.#waiting = [];
    this.#waitingBytes = 0;
    this.#needed = 0;
    this.#offset = 0;
  }

  next(): "tuple" | "end" | "more" {
    // What there is of a large row waits for the rest of it.
    if (this.#waitingBytes > 0) return "more";
    if (!this.#inside && !this.#skipHeader()) return "more";
    const buffer = this.#buffer;
    const start = this.#offset;
    if (start + 2 > buffer.length) return this.#more(2);
    const count = buffer.readInt16BE(start);
    if (count === -1) {
      this.#offset += 2;
      this.#inside = false;
      return "end";
    }
    if (count !== this.#fields) throw malformed(`a tuple has ${count} fields where ${this.#fields} were selected`);
    let at = start + 2;
    for (let index = 0; index < count; index += 1) {
      if (at + 4 > buffer.length) return this.#more(at + 4 - start);
      const length = buffer.readInt32BE(at);
      at += 4;
      this.#starts[index] = at;
      if (length < 0) {
        // Null: an end before its start.
        this.#ends[index] = at - 1;
        continue;
      }
      at += length;
      this.#ends[index] = at;
      if (at > buffer.length) return this.#more(at - start);
    }
    this.#offset = at;
    return "tuple";
  }

  field(index: number): Buffer | undefined {
    const start = this.#starts[index] ?? 0;
    const end = this.#ends[index] ?? -1;
    return end < start ? undefined : this.#buffer.subarray(start, end);
  }

  text(index: number): string | undefined {
    const start = this.#starts[index] ?? 0;
    const end = this.#ends[index] ?? -1;
    return end < start ? undefined : this.#buffer.toString("utf8", start, end);
  }

  #skipHeader(): boolean {
    const buffer = this.#buffer;
    const start = this.#offset;
    if (start + headerBytes > buffer.length) {
      this.#more(headerBytes);
      return false;
    }
    if (buffer.toString("latin1", start, start + 6) !== "PGCOPY")
      throw malformed("it does not begin with its signature");
    const extension = buffer.readInt32BE(start + signatureBytes + 4);
    if (start + headerBytes + extension > buffer.length) {
      this.#more(headerBytes + extension);
      return false;
    }
    this.#offset += headerBytes + extension;
    this.#inside = true;
    return true;
  }

  /** Keeps what there is of the tuple, which needs this many bytes as far as is known. */
  #more(needed: number): "more" {
    const rest = this.#buffer.subarray(this.#offset);
    this.#waiting = rest.length === 0 ? [] : [rest];
    this.#waitingBytes = rest.length;
    this.#needed = needed;
    this.#buffer = empty;
    this.#offset = 0;
    return "more";
  }
}

function malformed(what: string): FeedError {
  return new FeedError(
    "INTERNAL",
    `The database's copy cannot be read: ${what}.`,
    "Report it with the versions of Millrace and Postgres.",
  );
}
