import { type Event, HIDDEN_TOPIC, type Image } from "../event.ts";
import { parseTopicPattern, patternMatches, type TopicPattern } from "../selector/topic.ts";
import type { BuiltEvent, BuiltSource, Change } from "./builder.ts";
import { textOf } from "./exact-json.ts";
import { headersOf, SeenChange } from "./seen-change.ts";

/** Topics that begin like this are Millrace's own: no builder answers with one. */
export const OWN_TOPICS = "millrace.";
/** Where the change goes whose builder fails, under the topic that it had. */
export const DEAD_LETTER_TOPIC = "millrace.dead_letter";

const MAX_TOPIC_BYTES = 255;
const MAX_KEY_BYTES = 8_192;
/** Of one image. */
const MAX_IMAGE_BYTES = 64 * 1024 * 1024;
const MAX_ERROR_CHARACTERS = 500;
/** Topics that were found right. */
const KNOWN_TOPICS = 10_000;

const encoder = new TextEncoder();
const fields: ReadonlySet<string> = new Set(["topic", "key", "payload", "before", "headers"]);

/** What came of running a builder. */
export interface Built {
  readonly event: Event;
  readonly outcome: "built" | "hidden" | "failed";
  /** Of `failed`. */
  readonly reason?: string | undefined;
}

/** Whether both are the same to everybody who is shown them. */
export function isSameEvent(one: Event, other: Event): boolean {
  return (
    one.topic === other.topic &&
    one.key === other.key &&
    isSameImage(one.before, other.before) &&
    isSameImage(one.after, other.after) &&
    isSameImage(one.headers, other.headers)
  );
}

function isSameImage(one: Image | undefined, other: Image | undefined): boolean {
  return (
    one === other || (one !== undefined && one.length === other?.length && one.every((byte, at) => byte === other[at]))
  );
}

/** A source's builder, made ready. */
export class EventBuilder {
  readonly source: BuiltSource;
  readonly #patterns: readonly TopicPattern[] | undefined;
  readonly #known = new Set<string>();

  constructor(source: BuiltSource) {
    this.source = source;
    this.#patterns = source.topics?.flatMap((text) => {
      const parsed = parseTopicPattern(text);
      return "pattern" in parsed ? [parsed.pattern] : [];
    });
  }

  /** The event that stands for this one. Never throws. `undefined` when it is none that builders see. */
  build(event: Event): Built | undefined {
    const { operation } = event;
    if (operation === "TRUNCATE" || operation === "MESSAGE") return undefined;
    try {
      const change = new SeenChange(event, operation, this.source.table);
      const answer: unknown = this.source.build(change);
      if (answer === undefined || answer === null) return { event: hidden(event), outcome: "hidden" };
      return { event: this.#eventFrom(event, change, asBuilt(answer)), outcome: "built" };
    } catch (error) {
      const reason = reasonOf(error);
      return { event: deadLetter(event, this.source.table, reason), outcome: "failed", reason };
    }
  }

  #eventFrom(event: Event, change: Change, { topic, key, payload, before, headers }: BuiltEvent): Event {
    const deleted = event.operation === "DELETE";
    const image = payload === undefined ? undefined : imageOf(payload, event, change);
    const old = before === undefined || deleted ? undefined : imageOf(before, event, change);
    return {
      version: event.version,
      topic: topic === undefined ? event.topic : this.#checkedTopic(topic),
      key: key === undefined ? event.key : checkedKey(key),
      operation: event.operation,
      before: deleted ? image : old,
      after: deleted ? undefined : image,
      transaction: event.transaction,
      occurredAtMicros: event.occurredAtMicros,
      headers: headers === undefined ? event.headers : headersImage(headers),
      origin: { topic: event.topic, key: event.key },
    };
  }

  #checkedTopic(topic: unknown): string {
    if (typeof topic !== "string") throw new Error(`the topic is ${kindOf(topic)}, and must be a text`);
    if (this.#known.has(topic)) return topic;
    const parsed = parseTopicPattern(topic);
    if ("problem" in parsed) throw new Error(`the topic "${topic}" ${parsed.problem}`);
    if (!parsed.pattern.exact || topic.includes("{")) throw new Error(`the topic "${topic}" is a pattern`);
    if (topic.startsWith(OWN_TOPICS)) throw new Error(`the topic "${topic}" begins as Millrace's own do`);
    if (this.#patterns?.some((pattern) => patternMatches(pattern, topic)) === false) {
      throw new Error(`the topic "${topic}" is none of the source's \`topics\``);
    }
    if (this.#known.size >= KNOWN_TOPICS) this.#known.clear();
    this.#known.add(topic);
    return topic;
  }
}

function asBuilt(answer: unknown): BuiltEvent {
  if (typeof answer !== "object" || answer === null) {
    throw new Error(`the builder answered with ${kindOf(answer)}, and must with an object, or undefined`);
  }
  if (Array.isArray(answer)) {
    throw new Error("the builder answered with a list: of one change comes one event or none");
  }
  if ("then" in answer && typeof answer.then === "function") {
    // Nobody awaits it: should it be rejected, that must not end the process.
    answer.then(undefined, () => undefined);
    throw new Error("the builder answered with a promise, and must be synchronous");
  }
  for (const name of Object.keys(answer)) {
    if (!fields.has(name)) throw new Error(`the builder answered with \`${name}\`, which no event has`);
  }
  return answer;
}

/** The row's own bytes where it is handed on as it is: with every digit, and without the work. */
function imageOf(value: unknown, event: Event, change: Change): Image {
  if (event.after !== undefined && value === change.after) return event.after;
  if (event.before !== undefined && value === change.before) return event.before;
  const text = textOf(value);
  if (text === undefined) throw new Error(`the payload is ${kindOf(value)}, and JSON has none`);
  const image = encoder.encode(text);
  if (image.length > MAX_IMAGE_BYTES)
    throw new Error(`the payload has ${image.length} bytes, ${MAX_IMAGE_BYTES} are most`);
  return image;
}

function checkedKey(key: unknown): string | undefined {
  if (key === null) return undefined;
  if (typeof key !== "string") throw new Error(`the key is ${kindOf(key)}, and must be a text or null`);
  if (!key.isWellFormed()) throw new Error("the key is no well-formed Unicode");
  if (key.length * 3 > MAX_KEY_BYTES && encoder.encode(key).length > MAX_KEY_BYTES) {
    throw new Error(`the key has more than ${MAX_KEY_BYTES} bytes`);
  }
  return key;
}

function headersImage(headers: unknown): Image | undefined {
  if (typeof headers !== "object" || headers === null)
    throw new Error(`headers are ${kindOf(headers)}, and must be an object`);
  const entries = Object.entries(headers);
  for (const [name, value] of entries) {
    if (typeof value !== "string") throw new Error(`the header \`${name}\` is ${kindOf(value)}, and must be a text`);
  }
  return entries.length === 0 ? undefined : encoder.encode(JSON.stringify(headers));
}

/** Its version stays, and what cursors of snapshots go by. */
function hidden({ version, topic, key, operation, transaction, occurredAtMicros }: Event): Event {
  return {
    version,
    topic: HIDDEN_TOPIC,
    key: undefined,
    operation,
    before: undefined,
    after: undefined,
    transaction,
    occurredAtMicros,
    headers: undefined,
    origin: { topic, key },
  };
}

/** The change as it was written, at its version, where nobody takes it for one of the source's. */
function deadLetter(event: Event, table: string, reason: string): Event {
  const { topic, key } = event;
  const wanted = `${DEAD_LETTER_TOPIC}.${topic}`;
  const said = { "millrace-error": reason, "millrace-source": table, "millrace-topic": topic };
  const headers = { ...(event.headers === undefined ? {} : headersOf(event.headers)), ...said };
  return {
    ...event,
    topic: wanted.length > MAX_TOPIC_BYTES ? DEAD_LETTER_TOPIC : wanted,
    headers: encoder.encode(JSON.stringify(headers)),
    origin: { topic, key },
  };
}

/** One line without the stack: a builder that fails fails alike wherever it is run. */
function reasonOf(error: unknown): string {
  let text: string;
  try {
    text = error instanceof Error ? error.message : String(error);
  } catch {
    text = "it threw what has no text";
  }
  return (
    text.replaceAll(/\s+/g, " ").trim().slice(0, MAX_ERROR_CHARACTERS).toWellFormed() ||
    "it threw an error without a message"
  );
}

function kindOf(value: unknown): string {
  if (value === null) return "null";
  if (value === undefined) return "undefined";
  return Array.isArray(value) ? "a list" : `a ${typeof value}`;
}
