import type { Version } from "../../core/event.ts";
import type {
  DeadLetter,
  DeliveredUpTo,
  StoredPosition,
  SubscriptionRecord,
} from "../../core/subscription/subscription-store.ts";

/** A row of `recordOf`. */
export interface RecordRow {
  readonly id: string;
  readonly definition: string;
  readonly isGroup: boolean;
  readonly topics: readonly string[];
  readonly owner: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly expireAfterMs: number | null;
  readonly state: SubscriptionRecord["state"];
  readonly cursor: string;
  readonly epoch: string;
  readonly version: Version;
  readonly generation: number;
  readonly createdAtMs: number;
  readonly lastUsedAtMs: number;
  readonly expiresAtMs: number | null;
  readonly deadLetters: number;
  readonly oldestVersion: Version;
}

/** A row of `claimedRecord`. */
export interface ClaimedRow extends RecordRow {
  readonly delivered: readonly (readonly [Version, number])[] | null;
  readonly progress: string | null;
  readonly holderReplica: string | null;
  readonly holderUrl: string | null;
  readonly heldUntilMs: number | null;
}

/** A row of `listDeadLetters`. */
export interface DeadLetterRow {
  readonly there: boolean;
  readonly total: number;
  readonly version: Version | null;
  readonly topic: string;
  readonly key: string | null;
  readonly operation: DeadLetter["operation"];
  readonly before: string | null;
  readonly after: string | null;
  readonly headers: string | null;
  readonly transaction: string;
  readonly occurredAtMicros: number;
  readonly transition: "ENTERED" | "LEFT" | null;
  readonly attempts: number;
  readonly reason: string;
  readonly deadAtMs: number;
}

const encoder = new TextEncoder();

/** The record that a row is. */
export function recordFromRow(row: RecordRow): SubscriptionRecord {
  return {
    id: row.id,
    definition: row.definition,
    isGroup: row.isGroup,
    topics: row.topics,
    owner: row.owner,
    labels: row.labels,
    expireAfterMs: milliseconds(row.expireAfterMs),
    state: row.state,
    position: positionFromRow(row),
    generation: row.generation,
    createdAtMs: row.createdAtMs,
    lastUsedAtMs: row.lastUsedAtMs,
    expiresAtMs: row.expiresAtMs ?? undefined,
    deadLetters: row.deadLetters,
    oldestVersion: row.state === "LOST" ? row.oldestVersion : undefined,
  };
}

/** The position in a row. */
export function positionFromRow({ cursor, epoch, version }: StoredPosition): StoredPosition {
  return { cursor, epoch, version };
}

/** How often what lies beyond the position was delivered. */
export function deliveredFromRow({ delivered, version: position }: ClaimedRow): readonly DeliveredUpTo[] {
  const all = (delivered ?? []).map(([version, attempts]) => ({ version, attempts }));
  return all.filter(({ version }) => version > position);
}

/** The dead letter that a row is. */
export function deadLetterFromRow(row: DeadLetterRow & { readonly version: Version }): DeadLetter {
  return {
    version: row.version,
    topic: row.topic,
    key: row.key ?? undefined,
    operation: row.operation,
    before: image(row.before),
    after: image(row.after),
    headers: image(row.headers),
    transaction: row.transaction,
    occurredAtMicros: row.occurredAtMicros,
    transition: row.transition ?? undefined,
    attempts: row.attempts,
    reason: row.reason,
    deadAtMs: row.deadAtMs,
  };
}

function image(text: string | null): Uint8Array | undefined {
  return text === null ? undefined : encoder.encode(text);
}

/** It was given as whole milliseconds. */
function milliseconds(value: number | null): number | undefined {
  return value === null ? undefined : Math.round(value);
}
