import type pg from "pg";
import { FeedError } from "../core/errors.ts";
import type { Operation } from "../core/event.ts";
import { copyOut } from "./copy-out.ts";
import type { PageBuilder } from "./page-builder.ts";

/** The letters of `outbox.operation`. */
export function operationFromLetter(letter: string): Operation {
  const operation = operations.get(letter.charCodeAt(0));
  if (operation === undefined) {
    throw new FeedError(
      "INTERNAL",
      `The outbox has an operation "${letter}".`,
      "Upgrade Millrace: a newer one wrote it.",
    );
  }
  return operation;
}

const operations: ReadonlyMap<number, Operation> = new Map([
  [0x49, "INSERT"],
  [0x55, "UPDATE"],
  [0x44, "DELETE"],
  [0x54, "TRUNCATE"],
  [0x4d, "MESSAGE"],
]);

/**
 * Runs `copyBatch` and adds its rows. Images are views of the chunks that came from the socket: nothing is copied or
 * decoded that nobody looks at.
 *
 * Stops once the builder has `maxBytes`; then, and when it fails, the statement is still running and the connection must be
 * destroyed. Resolves with whether it read to the end.
 */
export function readRows(client: pg.ClientBase, sql: string, builder: PageBuilder, maxBytes: number): Promise<boolean> {
  const decoder = new RowDecoder(builder);
  return copyOut(client, sql, (chunk, start, end) => {
    decoder.decode(chunk, start, end);
    return builder.bytes < maxBytes;
  });
}

/** Between the epochs of Postgres (2000) and Unix (1970), in microseconds. */
const epochMicros = 946_684_800_000_000;
const columns = 9;
/** The signature, 11 bytes; flags; the length of an extension that nobody uses. It comes before the first row. */
const signature = 0x50;
const headerBytes = 19;

/** One tuple per message: number of columns, and for each its length, or -1 for null, and its bytes. */
class RowDecoder {
  readonly #builder: PageBuilder;
  #topicBytes: Buffer = Buffer.alloc(0);
  #topic = "";
  #xid = -1;
  #transaction = "";
  /** Where the next column begins. */
  #at = 0;

  constructor(builder: PageBuilder) {
    this.#builder = builder;
  }

  decode(chunk: Buffer, start: number, end: number): void {
    this.#at = chunk[start] === signature ? start + headerBytes : start;
    if (this.#at >= end) return;
    const count = chunk.readInt16BE(this.#at);
    if (count === -1) return;
    if (count !== columns) throw malformed(`a row has ${count} columns`);
    this.#at += 2;
    const xid = this.#int64(chunk);
    const seq = this.#int64(chunk);
    if (xid !== this.#xid) {
      this.#xid = xid;
      this.#transaction = String(xid);
    }
    const event = {
      version: this.#builder.versionOf(xid),
      topic: this.#sameTopic(chunk),
      key: this.#text(chunk),
      operation: this.#operation(chunk),
      before: this.#image(chunk),
      after: this.#image(chunk),
      headers: this.#image(chunk),
      transaction: this.#transaction,
      occurredAtMicros: this.#int64(chunk) + epochMicros,
    };
    if (this.#at !== end) throw malformed("a row is longer than its columns");
    this.#builder.add(event, seq);
  }

  /** Steps over the column; -1 for null. */
  #length(chunk: Buffer): number {
    const length = chunk.readInt32BE(this.#at);
    this.#at += length < 0 ? 4 : 4 + length;
    return length;
  }

  /** Safe integers only: high half times 2^32 plus low half. */
  #int64(chunk: Buffer): number {
    if (this.#length(chunk) !== 8) throw malformed("a number has not 8 bytes");
    return chunk.readInt32BE(this.#at - 8) * 4_294_967_296 + chunk.readUInt32BE(this.#at - 4);
  }

  #text(chunk: Buffer): string | undefined {
    const length = this.#length(chunk);
    return length < 0 ? undefined : chunk.toString("utf8", this.#at - length, this.#at);
  }

  #image(chunk: Buffer): Uint8Array | undefined {
    const length = this.#length(chunk);
    return length < 0 ? undefined : chunk.subarray(this.#at - length, this.#at);
  }

  #operation(chunk: Buffer): Operation {
    if (this.#length(chunk) !== 1) throw malformed("an operation is not one letter");
    const letter = chunk[this.#at - 1] ?? 0;
    return operations.get(letter) ?? operationFromLetter(String.fromCharCode(letter));
  }

  /** A page has few topics and many rows: the one before is nearly always the same, and needs no new string. */
  #sameTopic(chunk: Buffer): string {
    const length = this.#length(chunk);
    const start = this.#at - Math.max(length, 0);
    const known = this.#topicBytes;
    if (known.length === length && chunk.compare(known, 0, length, start, this.#at) === 0) return this.#topic;
    this.#topicBytes = chunk.subarray(start, this.#at);
    this.#topic = chunk.toString("utf8", start, this.#at);
    return this.#topic;
  }
}

function malformed(what: string): FeedError {
  return new FeedError(
    "INTERNAL",
    `The database's copy cannot be read: ${what}.`,
    "Report it with the versions of Millrace and Postgres.",
  );
}
