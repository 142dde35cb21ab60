import { FeedError } from "../core/errors.ts";
import type { Version } from "../core/event.ts";
import { jsonProblem } from "../core/json-text.ts";
import type { NewEvent, Publication, Published } from "../core/ports.ts";
import type { MemoryTransaction } from "./transaction.ts";

/** Requests that carried an idempotency key, with what they were answered. Kept as long as the store. */
export class Publisher {
  readonly #remembered = new Map<string, { readonly content: string; readonly xid: string }>();
  readonly #begin: () => MemoryTransaction;
  readonly #lastVersionOf: (xid: string) => Version | undefined;

  constructor(begin: () => MemoryTransaction, lastVersionOf: (xid: string) => Version | undefined) {
    this.#begin = begin;
    this.#lastVersionOf = lastVersionOf;
  }

  publish(request: Publication): Published {
    assertValid(request.events);
    const id = `${request.principal}\0${request.idempotencyKey}`;
    const content = JSON.stringify(request.events);
    const known = request.idempotencyKey === "" ? undefined : this.#remembered.get(id);
    if (known !== undefined) {
      if (known.content !== content) {
        throw invalid("idempotency_key", "was used before with other events");
      }
      return { xid: known.xid, duplicate: true, version: this.#lastVersionOf(known.xid) };
    }
    const transaction = this.#begin();
    try {
      for (const event of request.events) {
        transaction.emit(event);
      }
    } catch (error) {
      transaction.rollback();
      throw error;
    }
    const xid = transaction.xid();
    transaction.commit();
    if (request.idempotencyKey !== "") {
      this.#remembered.set(id, { content, xid });
    }
    return { xid, duplicate: false, version: undefined };
  }
}

function assertValid(events: readonly NewEvent[]): void {
  if (events.length === 0) {
    throw invalid("events", "must hold at least one event");
  }
  events.forEach((event, i) => {
    if (event.operation === "SNAPSHOT" || event.operation === "TRUNCATE") {
      throw invalid(`events[${i}].operation`, `must not be ${event.operation}: only sources have those`);
    }
    if (event.operation !== "MESSAGE" && event.key === undefined) {
      throw invalid(`events[${i}].key`, `must be given for ${event.operation}`);
    }
    const problem = event.payload === undefined ? undefined : jsonProblem(event.payload);
    if (problem !== undefined) {
      throw invalid(`events[${i}].payload.json`, problem);
    }
  });
}

function invalid(field: string, message: string): FeedError {
  return new FeedError("INVALID_REQUEST", `${field}: ${message}.`, "Correct the request; nothing was appended.", {
    violations: [{ field, message }],
  });
}
