/**
 * What a client saw, in words of its own: the checker knows no type of the code under test, so that a mistake there
 * cannot excuse itself here.
 */

/** One event or snapshot row as it arrived. */
export interface SeenEvent {
  readonly version: number;
  readonly topic: string;
  readonly key: string | undefined;
  /** `INSERT`, `UPDATE`, `DELETE`, `TRUNCATE`, `SNAPSHOT`, `MESSAGE`. */
  readonly operation: string;
  /** JSON text, byte for byte. */
  readonly before: string | undefined;
  readonly after: string | undefined;
  /** Decimal xid8; empty on snapshot rows. */
  readonly transaction: string;
  readonly occurredAtMicros: number;
  readonly headers: string | undefined;
  /** `ENTERED` or `LEFT`, where a filter on rows says so. */
  readonly transition?: string | undefined;
}

/** One frame as it arrived. */
export type SeenFrame =
  | { readonly kind: "opened"; readonly epoch: string; readonly version: number; readonly cursor: string }
  | {
      readonly kind: "events";
      readonly events: readonly SeenEvent[];
      readonly cursor: string;
      readonly complete: boolean;
    }
  | {
      readonly kind: "checkpoint";
      readonly version: number;
      readonly cursor: string;
      readonly state: string;
      /** `undefined` when it says that it is unknown, or when nobody looked. */
      readonly lagVersions?: number | undefined;
      readonly lagMs?: number | undefined;
    }
  | {
      readonly kind: "gap";
      /** Both inclusive. */
      readonly firstVersion: number;
      readonly lastVersion: number;
      readonly dropped: number | undefined;
      /** `DROP_OLDEST`, `DROP_NEWEST`, `LATEST`, `SAMPLE`. */
      readonly reason: string;
      readonly cursor: string;
    }
  | {
      readonly kind: "snapshot_started";
      readonly version: number;
      readonly restart: boolean;
      readonly resumed: boolean;
      readonly cursor: string;
    }
  | { readonly kind: "snapshot_complete"; readonly version: number; readonly cursor: string; readonly rows: number }
  | { readonly kind: "closing"; readonly cursor: string };

/** One call, from its first frame to however it ended. */
export interface SeenCall {
  /** The cursor that the call was opened with; `undefined` when it began otherwise. */
  readonly from: string | undefined;
  readonly frames: readonly SeenFrame[];
}

/** One client's story: its calls, each but the first resumed with the last cursor of the one before. */
export interface Recording {
  readonly client: string;
  readonly calls: readonly SeenCall[];
}

/** A broken guarantee, with what is needed to look into it. */
export interface Complaint {
  readonly guarantee: "G1" | "G2" | "G3" | "G4" | "G5" | "G6" | "G7" | "G8" | "G9" | "G10" | "G11";
  readonly client: string;
  readonly text: string;
}

/** Every frame of every call, in the order of arrival. */
export function framesOf(recording: Recording): readonly SeenFrame[] {
  return recording.calls.flatMap((call) => call.frames);
}

/** Every event but snapshot rows, in the order of arrival. */
export function eventsOf(recording: Recording): readonly SeenEvent[] {
  return framesOf(recording).flatMap((frame) =>
    frame.kind === "events" ? frame.events.filter((event) => event.operation !== "SNAPSHOT") : [],
  );
}

/** The events of a story after its snapshot, where it began with one: those within are of parts of the tables only. */
export function eventsAfterSnapshot(recording: Recording): readonly SeenEvent[] {
  const frames = framesOf(recording);
  const complete = frames.findIndex(({ kind }) => kind === "snapshot_complete");
  const began = frames.some(({ kind }) => kind === "snapshot_started");
  if (began && complete < 0) return [];
  const after: Recording = { ...recording, calls: [{ from: undefined, frames: frames.slice(complete + 1) }] };
  return eventsOf(after);
}

/** The same text for the same event and no other: every field counts. */
export function identityOf(event: SeenEvent): string {
  return JSON.stringify([
    event.version,
    event.topic,
    event.key ?? null,
    event.operation,
    event.before ?? null,
    event.after ?? null,
    event.transaction,
    event.occurredAtMicros,
    event.headers ?? null,
  ]);
}

/** For complaints: where and what, without the images. */
export function describeEvent(event: SeenEvent): string {
  return `v${event.version} ${event.operation} ${event.topic}/${event.key ?? "-"} (transaction ${event.transaction})`;
}
