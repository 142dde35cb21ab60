import { createHash } from "node:crypto";
import pg from "pg";
import { FeedError } from "../core/errors.ts";
import type { Version } from "../core/event.ts";
import { jsonProblem } from "../core/json-text.ts";
import type { NewEvent, Publication, Published } from "../core/ports.ts";
import { sentence } from "./database-error.ts";
import { withLease } from "./lease.ts";
import { queryError } from "./query-error.ts";
import { beginPublish, findLastVersion, publishEvents } from "./statements/publish.ts";

interface Outcome {
  readonly xid: string;
  readonly outcome: "appended" | "duplicate" | "conflict";
  readonly version: Version | undefined;
}

/**
 * Appends application events in one transaction, durable when this resolves. A repeated idempotency key of the last 24 h
 * resolves as the first did, with `duplicate`, and with its version once that is settled and as long as it is kept.
 *
 * @throws FeedError INVALID_REQUEST for what cannot be stored, with the field's path, and for a key that was used with
 * other events; TOPIC_FORBIDDEN for the topic of a watched table; DATABASE_UNAVAILABLE.
 */
export async function publish(
  pool: pg.Pool,
  epoch: string,
  request: Publication,
  signal: AbortSignal,
): Promise<Published> {
  assertStorable(request);
  const { xid, outcome, version } = await append(pool, epoch, request, signal);
  if (outcome === "conflict") {
    throw new FeedError(
      "INVALID_REQUEST",
      "The idempotency key was used for other events within the last 24 hours.",
      "Repeat a request exactly, or give it a key of its own.",
      { violations: [{ field: "idempotency_key", message: "belongs to a request with other events" }] },
    );
  }
  return { xid, duplicate: outcome === "duplicate", version };
}

async function append(pool: pg.Pool, epoch: string, request: Publication, signal: AbortSignal): Promise<Outcome> {
  const { events, principal, idempotencyKey } = request;
  try {
    return await withLease(pool, signal, async (lease) => {
      await lease.run(beginPublish);
      const [row] = await lease.rows<Omit<Outcome, "version">>(publishEvents, [
        events.map(({ topic }) => topic),
        events.map(({ key }) => key),
        events.map(({ operation }) => operation),
        events.map(({ payload }) => payload),
        events.map(({ headers }) => (Object.keys(headers).length === 0 ? undefined : JSON.stringify(headers))),
        principal,
        idempotencyKey,
        contentHash(events),
        epoch,
      ]);
      if (row === undefined) throw new FeedError("INTERNAL", "publish() gave no answer.", "Report it.");
      const [found] =
        row.outcome === "duplicate" ? await lease.rows<{ version: string }>(findLastVersion, [row.xid]) : [];
      await lease.run("commit");
      return { ...row, version: found === undefined ? undefined : Number(found.version) };
    });
  } catch (error) {
    throw refusal(error, events) ?? queryError(error, "publish");
  }
}

/** The same for the same events, however the request was written. */
function contentHash(events: readonly NewEvent[]): Buffer {
  const hash = createHash("sha256");
  for (const { topic, key, operation, payload, headers } of events) {
    const sorted = Object.entries(headers).toSorted(([a], [b]) => (a < b ? -1 : 1));
    hash.update(JSON.stringify([topic, key ?? null, operation, payload ?? null, sorted]));
  }
  return hash.digest();
}

/** What `millrace.emit` refuses carries a hint; what Postgres itself refuses a role does not. */
function refusal(error: unknown, events: readonly NewEvent[]): FeedError | undefined {
  if (!(error instanceof pg.DatabaseError)) return undefined;
  if (error.code === "42501" && error.hint !== undefined) {
    const index = events.findIndex(({ topic }) => error.message.includes(`"${topic}"`));
    return new FeedError("TOPIC_FORBIDDEN", sentence(error.message), error.hint, {
      cause: error,
      violations: index < 0 ? [] : [{ field: `events[${index}].topic`, message: "belongs to a watched table" }],
    });
  }
  // Data exceptions and program limits: something in the events.
  if (error.code?.startsWith("54") || error.code?.startsWith("22")) {
    return new FeedError("INVALID_REQUEST", sentence(error.message), error.hint ?? "Correct the events.", {
      cause: error,
      violations: [{ field: "events", message: error.message }],
    });
  }
  return undefined;
}

function assertStorable(request: Publication): void {
  const violations = request.events.flatMap((event, index) =>
    problems(event).map(([field, message]) => ({ field: `events[${index}].${field}`, message })),
  );
  const texts = { idempotency_key: request.idempotencyKey, principal: request.principal };
  for (const [field, text] of Object.entries(texts)) {
    if (text.includes("\0")) violations.push({ field, message: noNul });
  }
  const [first] = violations;
  if (first === undefined) return;
  throw new FeedError(
    "INVALID_REQUEST",
    `${first.field} ${first.message}.`,
    "Correct the request; nothing was appended.",
    { violations: violations.slice(0, 100) },
  );
}

const noNul = "must not hold the character U+0000, which Postgres cannot store";

function problems({ topic, key, operation, payload, headers }: NewEvent): (readonly [string, string])[] {
  const found: (readonly [string, string])[] = [];
  if (topic.includes("\0")) found.push(["topic", noNul]);
  if (key?.includes("\0")) found.push(["key", noNul]);
  if (operation === "SNAPSHOT" || operation === "TRUNCATE") {
    found.push(["operation", "must be MESSAGE, INSERT, UPDATE or DELETE"]);
  } else if (operation !== "MESSAGE" && key === undefined) {
    found.push(["key", `must be given for ${operation}`]);
  }
  const problem = payload === undefined ? undefined : jsonProblem(payload);
  if (problem !== undefined) found.push(["payload.json", problem]);
  for (const [name, value] of Object.entries(headers)) {
    if (name.includes("\0") || value.includes("\0")) found.push(["headers", noNul]);
  }
  return found;
}
