import type pg from "pg";
import { to as copyTo } from "pg-copy-streams";
import { FeedError } from "../core/errors.ts";
import type { Operation } from "../core/event.ts";
import { createCopyTuples } from "./copy-tuples.ts";
import type { PageBuilder } from "./page-builder.ts";

const fields = 9;
/** Between the epochs of Postgres (2000) and Unix (1970), in microseconds. */
const epochMicros = 946_684_800_000_000;

/** The letters of `outbox.operation`. */
export function operationFromLetter(letter: string): Operation {
  const operation = operations.get(letter);
  if (operation === undefined) {
    throw new FeedError(
      "INTERNAL",
      `The outbox has an operation "${letter}".`,
      "Upgrade Millrace: a newer one wrote it.",
    );
  }
  return operation;
}

const operations: ReadonlyMap<string, Operation> = new Map([
  ["I", "INSERT"],
  ["U", "UPDATE"],
  ["D", "DELETE"],
  ["T", "TRUNCATE"],
  ["M", "MESSAGE"],
]);

/**
 * Runs `copyBatch` and adds its rows. Images are views of the chunks that came from the socket: nothing is copied or
 * decoded that nobody looks at.
 *
 * Stops once the builder has `maxBytes`; then, and when it fails, the statement is still running and the connection must be
 * destroyed. Resolves with whether it read to the end.
 */
export async function readRows(
  client: pg.ClientBase,
  sql: string,
  builder: PageBuilder,
  maxBytes: number,
): Promise<boolean> {
  const stream = client.query(copyTo(sql));
  const tuples = createCopyTuples(fields);
  const topics = new Topics();
  for await (const chunk of stream) {
    tuples.push(chunk);
    for (let step = tuples.next(); step !== "more"; step = tuples.next()) {
      if (step === "end") break;
      const version = builder.versionOf(int64(tuples.field(0)));
      builder.add(
        {
          version,
          topic: topics.of(tuples.field(2)),
          key: tuples.text(3),
          operation: operationFromLetter(tuples.text(4) ?? ""),
          before: tuples.field(5),
          after: tuples.field(6),
          transaction: String(int64(tuples.field(0))),
          occurredAtMicros: int64(tuples.field(8)) + epochMicros,
          headers: tuples.field(7),
        },
        int64(tuples.field(1)),
      );
      if (builder.bytes >= maxBytes) return false;
    }
  }
  return true;
}

/** Safe integers only: high half times 2^32 plus low half. */
function int64(bytes: Buffer | undefined): number {
  if (bytes === undefined) return Number.NaN;
  return bytes.readInt32BE(0) * 4_294_967_296 + bytes.readUInt32BE(4);
}

/** A page has few topics and many rows: the one before is nearly always the same, and needs no new string. */
class Topics {
  #bytes: Buffer = Buffer.alloc(0);
  #text = "";

  of(bytes: Buffer | undefined): string {
    if (bytes === undefined) return "";
    if (!bytes.equals(this.#bytes)) {
      this.#bytes = bytes;
      this.#text = bytes.toString("utf8");
    }
    return this.#text;
  }
}
