import type { Event } from "../event.ts";
import type { Change, Row } from "./builder.ts";
import { frozen, parseExactly } from "./exact-json.ts";

const decoder = new TextDecoder();
const NO_ROW: Row = Object.freeze({});
const NO_HEADERS: Readonly<Record<string, string>> = Object.freeze({});

/** An event as a builder sees it. What it does not look at is not taken apart. */
export class SeenChange implements Change {
  readonly table: string;
  readonly operation: Change["operation"];
  readonly topic: string;
  readonly key: string | undefined;
  readonly #event: Event;
  #before: Row | undefined;
  #after: Row | undefined;

  constructor(event: Event, operation: Change["operation"], table: string) {
    this.#event = event;
    this.table = table;
    this.operation = operation;
    this.topic = event.topic;
    this.key = event.key;
  }

  get before(): Row | undefined {
    this.#before ??= rowOf(this.#event.before);
    return this.#before;
  }

  get after(): Row | undefined {
    this.#after ??= rowOf(this.#event.after);
    return this.#after;
  }

  get row(): Row {
    return this.after ?? this.before ?? NO_ROW;
  }

  get headers(): Readonly<Record<string, string>> {
    const { headers } = this.#event;
    return headers === undefined ? NO_HEADERS : headersOf(headers);
  }

  get occurredAt(): Date {
    return new Date(this.#event.occurredAtMicros / 1_000);
  }
}

/** Frozen: whoever hands on the row as it is hands on its bytes, and must not have changed it. */
function rowOf(image: Uint8Array | undefined): Row | undefined {
  return image === undefined ? undefined : (frozen(parseExactly(decoder.decode(image))) as Row);
}

/** Headers as the outbox has them: a JSON object of strings. */
export function headersOf(image: Uint8Array): Readonly<Record<string, string>> {
  return JSON.parse(decoder.decode(image)) as Readonly<Record<string, string>>;
}
